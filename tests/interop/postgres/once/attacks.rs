//! Rare events, and what an operator may do to the guard.

use std::process::Command;
use std::thread;

use serde_json::json;

use super::crowd::{Maker, now};
use crate::postgres::nodes::{cluster_with, readiness, start, start_in, wait_until_ready};
use crate::support::command::succeed;
use crate::support::postgres::session::Session;
use crate::support::postgres::{DATABASE, Postgres, Role, psql_at};
use crate::support::{Home, Program, Request, wait_until};

struct Guarded {
    maker: Maker,
    cluster: Postgres,
    nodes: [Program; 2],
}

impl Guarded {
    /// Starts two servers, and waits until they accept what is fresh.
    fn start() -> Self {
        let maker = Maker::new();
        let cluster = cluster_with(&maker.clients());
        let nodes = [(); 2].map(|()| start(&cluster.url(Role::Node), &[], &[]));
        let guarded = Self { maker, cluster, nodes };
        guarded.wait();
        guarded
    }

    fn wait(&self) {
        let fresh = || self.fresh();
        self.nodes.iter().for_each(|node| wait_until(|| status(node, &fresh()) == 200));
    }

    fn fresh(&self) -> Request {
        self.maker.make(now(), 60, 0).request
    }

    fn used(&self) -> Request {
        let used = self.fresh();
        assert_eq!(status(&self.nodes[0], &used), 200);
        used
    }

    /// Asserts that no server accepts what was used.
    #[track_caller]
    fn assert_refused(&self, used: &Request) {
        let statuses = self.nodes.each_ref().map(|node| status(node, used));
        assert_eq!(statuses, [400, 400]);
    }
}

fn status(node: &Program, request: &Request) -> u16 {
    request.send(node.address).status
}

/// A use whose statement has timed out may be recorded later. It is accepted never or once.
#[test]
fn a_use_that_is_recorded_after_its_time_is_not_accepted() {
    let guarded = Guarded::start();
    let rows = || guarded.cluster.psql("select count(*) from grantd.guard").parse::<u64>().unwrap();
    let before = rows();
    let mut session = Session::open(&guarded.cluster);
    session.run("begin; lock table grantd.guard in exclusive mode");
    let late = guarded.fresh();
    assert_eq!(status(&guarded.nodes[0], &late), 503);
    session.run("commit");
    wait_until(|| rows() == before + 1);
    guarded.assert_refused(&late);
    guarded.wait();
}

/// Without its birth, the guard begins anew. A use that is not over cannot be deleted.
#[test]
fn a_guard_whose_rows_are_deleted_accepts_nothing_twice() {
    let guarded = Guarded::start();
    let (used, psql) = (guarded.used(), |sql: &str| guarded.cluster.psql_as(Role::Owner, sql));
    for delete in ["delete from grantd.guard", "delete from grantd.guard where key <> ''"] {
        psql(delete).assert_error(1, &["a use that is not over cannot be deleted", "TRUNCATE"]);
    }
    guarded.assert_refused(&used);
    assert_eq!(status(&guarded.nodes[0], &guarded.fresh()), 200);
    // `truncate` and many births at once.
    for end in ["delete from grantd.guard where key = ''", "truncate grantd.guard"] {
        psql(end).assert_fine();
        let begin = "select grantd.begin_epoch()";
        thread::scope(|scope| {
            for _ in 0..8 {
                let cluster = &guarded.cluster;
                scope.spawn(|| cluster.psql_as(Role::Node, begin).assert_fine().len());
            }
        });
        let births = "select count(*) from grantd.guard g, grantd.epoch where g.key = ''";
        assert_eq!(guarded.cluster.psql(births), "1");
        guarded.assert_refused(&used);
        guarded.nodes.iter().for_each(wait_until_ready);
        assert_eq!(status(&guarded.nodes[1], &guarded.fresh()), 400);
    }
    guarded.wait();
    guarded.assert_refused(&used);
}

/// A guard that is logged survives a promotion that has lost uses.
#[test]
fn a_guard_that_is_logged_is_not_used() {
    let guarded = Guarded::start();
    let used = guarded.used();
    guarded.cluster.psql("alter table grantd.guard set logged");
    for node in &guarded.nodes {
        wait_until(|| readiness(node).1.contains("grantd.guard must be UNLOGGED"));
        assert_eq!(status(node, &guarded.fresh()), 503);
        assert_eq!(status(node, &used), 503);
    }
    guarded.cluster.psql("alter table grantd.guard set unlogged");
    guarded.nodes.iter().for_each(wait_until_ready);
    guarded.assert_refused(&used);
    guarded.wait();
    guarded.assert_refused(&used);
}

/// What ended no later than a row that was dropped may have been used.
#[test]
fn after_the_clock_of_the_database_was_set_back_what_was_dropped_is_refused() {
    let guarded = Guarded::start();
    let assertion = |id: &str, life: u64| {
        let (now, id) = (now(), id.to_owned());
        guarded.maker.assertion(&json!({ "jti": id, "iat": now, "exp": now + life }))
    };
    // As it would be after the clock was an hour ahead.
    guarded.cluster.psql(
        "update grantd.guard set ends = ends - interval '1 hour' where key <> '';
         insert into grantd.guard (key, ends) values ('x', now() - interval '11 seconds')",
    );
    wait_until(|| guarded.cluster.psql("select dropped is null from grantd.epoch") == "f");
    let epoch = guarded.cluster.psql("select epoch from grantd.epoch");
    assert_eq!(status(&guarded.nodes[0], &assertion("before", 60)), 200);
    guarded.cluster.psql(
        "update grantd.guard set dropped = now() + interval '200 seconds',
           xid = pg_current_xact_id() where key = ''",
    );
    assert_eq!(guarded.cluster.psql("select epoch from grantd.epoch"), epoch);
    for node in &guarded.nodes {
        let dropped = assertion("dropped", 60).send(node.address);
        dropped.assert_refused(503, "temporarily_unavailable");
    }
    assert_eq!(status(&guarded.nodes[0], &assertion("after", 300)), 200);
    assert_eq!(status(&guarded.nodes[1], &assertion("after", 300)), 400);
}

/// Without `iat`, an assertion counts as signed 300 s before its end: so one that is signed 310 s
/// after the birth is accepted, no matter how soon it ends.
#[test]
fn an_assertion_without_the_time_of_its_signature_is_refused_by_its_end() {
    let guarded = Guarded::start();
    let since = "select ceil(extract(epoch from since)) from grantd.epoch";
    let since: u64 = guarded.cluster.psql(since).parse().unwrap();
    for (number, end, expected) in
        [(0, now() + 60, 400), (1, since + 310 - 1, 400), (2, since + 311, 200)]
    {
        let claims = json!({ "jti": format!("without-{number}"), "exp": end });
        let assertion = guarded.maker.assertion(&claims);
        assert_eq!(status(&guarded.nodes[0], &assertion), expected, "{number}");
        guarded.assert_refused(&assertion);
    }
}

/// A second server with the same state directory, and a database with the same rows.
#[test]
fn a_copy_of_a_server_or_of_the_database_accepts_nothing_twice() {
    let mut guarded = Guarded::start();
    let used = guarded.used();
    let copy = Home::without_key();
    let state = guarded.nodes[0].home.path("state");
    succeed(Command::new("cp").arg("-a").arg(state).arg(copy.path("state")));
    let url = guarded.cluster.url(Role::Node);
    guarded.nodes[1] = start_in(copy, &url, &[], &[]);
    guarded.assert_refused(&used);
    let both = guarded.used();
    guarded.assert_refused(&both);

    let Guarded { cluster, nodes, .. } = guarded;
    drop(nodes);
    let sessions = "select count(*) from pg_stat_activity where usename = 'grantd_node'";
    wait_until(|| cluster.psql(sessions) == "0");
    let epochs = "select count(*) from grantd.epoch";
    assert_eq!(cluster.psql(epochs), "1");
    // A database that is copied file by file has the rows, and lacks what is used from now on.
    cluster.copy_database("copy");
    let copied = url_of(&cluster, "copy");
    let births = "select count(*) from grantd.guard where key = ''";
    assert_eq!(psql_at(&copied, births).assert_fine().trim(), "1");
    assert_eq!(psql_at(&copied, epochs).assert_fine().trim(), "0");
}

fn url_of(cluster: &Postgres, database: &str) -> String {
    let url = cluster.url(Role::Owner);
    format!("{}{database}", url.strip_suffix(DATABASE).unwrap())
}
