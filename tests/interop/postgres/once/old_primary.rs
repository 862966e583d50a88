//! The primary from before a failover is started again.

use std::fs;

use serde_json::{Value, json};

use super::crowd::{Crowd, Maker, back, now};
use crate::postgres::nodes::{
    ask, cluster_with, put, readiness, start, start_in, three, wait_until_ready,
};
use crate::support::home::secret_of;
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{Postgres, Role};
use crate::support::registry::client_json;
use crate::support::{Program, wait_until};

fn was_refused(node: &Program) -> bool {
    let is_it = |line: &Value| {
        let problem = line["problem"].as_str().unwrap_or_default();
        line["message"] == "an old primary of the database is not used"
            && problem.contains("on timeline 1, and this server has seen timeline 2")
    };
    node.log.count(is_it) > 0
}

/// Ends the connections of all servers to `cluster`.
fn disconnect(cluster: &Postgres) {
    cluster.psql(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
        Role::Node.name()
    ));
}

/// Returns how often the server has written the whole snapshot.
fn snapshots(node: &Program) -> usize {
    node.log.count(|line| line["message"] == "the snapshot of the store is complete")
}

#[test]
fn the_primary_from_before_a_failover_is_not_used() {
    let maker = Maker::new();
    let mut old = cluster_with(&maker.clients());
    let new = old.standby();
    let url = Postgres::url_of(Role::Node, &[&old, &new]);
    let [running, restarted, third] = three(&url);
    let crowd = Crowd::of("old primary", maker, [&running, &restarted, &third]);
    let mut restarted = Some(restarted);
    crowd.run(|| {
        crowd.wait_for_the_first(&old);
        let before = restarted.as_ref().map_or(0, snapshots);
        crowd.during("promotion of a standby", None, || {
            old.kill();
            new.promote();
            back(&new)
        });
        wait_until(|| restarted.as_ref().map_or(0, snapshots) > before);
        crowd.during("the old primary is back, and connections end", None, || {
            old.start_again();
            disconnect(&new);
            back(&new)
        });
        crowd.during("kill -9 of a server", Some(1), || {
            let home = restarted.take().expect("a server").into_home();
            let again = start_in(home, &url, &[], &[]);
            crowd.move_to(1, &again);
            restarted = Some(again);
            back(&new)
        });
    });
    let again = restarted.expect("a server");
    put(&new, &client_json("late", &json!({})));
    put(&old, &client_json("stray", &json!({})));
    // It was not there at the failover, and looks at all hosts.
    let newcomer = start(&url, &[], &[]);
    for node in [&running, &again, &third, &newcomer] {
        assert!(was_refused(node));
        let status = |client: &str| ask(node.address, client, &secret_of(client)).status;
        wait_until(|| status("late") == 200);
        assert_eq!(status("stray"), 400);
        wait_until_ready(node);
    }
    // It has begun no guard.
    assert_eq!(old.psql("select count(*) from grantd.guard"), "0");

    // A server that reaches only the old one starts from its snapshot, and accepts no assertion.
    let maker = &crowd.maker;
    let only_old = Postgres::url_of(Role::Node, &[&old]);
    let cut_off = start_in(again.into_home(), &only_old, &[], &[]);
    let (status, text) = readiness(&cut_off);
    assert_eq!(status, 200);
    for says in ["degraded: ", "on timeline 1", "timeline 2", "stop it", "(here state/snapshot)"] {
        assert!(text.contains(says), "{text}");
    }
    let assertion = maker.assertion(&json!({ "jti": "cut-off", "iat": now(), "exp": now() + 60 }));
    for _ in 0..3 {
        assertion.send(cut_off.address).assert_refused(503, "temporarily_unavailable");
    }
    assert_eq!(ask(cut_off.address, "proving", &secret_of("proving")).status, 200);
    assert_eq!(assertion.send(running.address).status, 200);
    assertion.send(cut_off.address).assert_refused(503, "temporarily_unavailable");

    // It is a restored backup after all: the operator does what the text says.
    let home = cut_off.into_home();
    fs::remove_file(home.path("state/snapshot")).unwrap();
    let told = start_in(home, &only_old, &[], &[]);
    wait_until_ready(&told);
    assert_eq!(ask(told.address, "stray", &secret_of("stray")).status, 200);
}

/// Behind a pooler, the database changes under a connection.
#[test]
fn the_primary_from_before_a_failover_is_not_used_behind_pgbouncer() {
    let maker = Maker::new();
    let mut old = cluster_with(&maker.clients());
    let new = old.standby();
    let bouncer = PgBouncer::before_with(&old, &[("server_login_retry", "1")]);
    let node = start(&bouncer.url(Role::Node), &[], &[]);
    let number = || maker.make(now(), 60, 0).request.send(node.address).status;
    old.kill();
    new.promote();
    bouncer.move_to(&new);
    put(&new, &client_json("late", &json!({})));
    wait_until(|| ask(node.address, "late", &secret_of("late")).status == 200);
    wait_until(|| number() == 200);
    old.start_again();
    bouncer.move_to(&old);
    disconnect(&new);
    wait_until(|| readiness(&node).1.contains("it is the primary from before a failover"));
    assert_eq!(number(), 503);
    assert_eq!(old.psql("select count(*) from grantd.guard where key <> ''"), "0");
    bouncer.move_to(&new);
    disconnect(&old);
    wait_until(|| number() == 200);
    wait_until_ready(&node);
}
