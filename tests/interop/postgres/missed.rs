//! Changes that a server or the database has missed: they are read anew or written back. Old rows are
//! dropped.

use serde_json::{Value, json};

use super::nodes::{
    ask, asserting, assertion, begin, cluster_with, present, put, start, three,
    wait_until_accepted, wait_until_ready,
};
use crate::support::home::secret_of;
use crate::support::postgres::Role;
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, is_active, revoke, token_of};
use crate::support::{Program, Signer, wait_until};

/// A standby that is promoted may lack what was written last.
#[test]
fn what_a_promoted_standby_has_lost_is_written_back() {
    let signer = Signer::es256();
    let mut primary = cluster_with(&[asserting(&signer), client_json("c", &json!({}))]);
    let standby = primary.standby();
    let [one, two] = [&primary, &standby].map(|cluster| format!("127.0.0.1:{}", cluster.port));
    let url = primary.url(Role::Node).replace(&one, &format!("{one},{two}"));
    let nodes = three(&url);
    wait_until_accepted(&nodes[0], &signer);
    standby.catch_up_with(&primary);
    standby.stop_following();
    let token = token_of(nodes[0].address, "c");
    assert_revoked(&revoke(nodes[1].address, "c", &token));
    put(&primary, &client_json("lost", &json!({})));
    let used = assertion(&signer, "used");
    assert_eq!(present(nodes[1].address, &used).status, 200);
    let is_granted = |node: &Program| ask(node.address, "lost", &secret_of("lost")).status == 200;
    wait_until(|| nodes.iter().all(is_granted));
    wait_until(|| nodes.iter().all(|node| !is_active(node.address, "c", &token)));
    primary.kill();
    standby.promote();
    nodes.iter().for_each(wait_until_ready);
    for node in &nodes {
        assert!(!is_active(node.address, "c", &token));
        wait_until(|| !is_granted(node));
        present(node.address, &used).assert_refused(400, "invalid_client");
    }
    let later = start(&url, &[], &[]);
    assert!(!is_active(later.address, "c", &token));
    wait_until_accepted(&later, &signer);
    present(later.address, &used).assert_refused(400, "invalid_client");
}

/// A long list of changes in one transaction.
#[test]
fn an_import_of_many_clients_reaches_a_server_that_goes_on() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let entry = client_json("x", &json!({})).to_string();
    cluster.psql(&format!(
        "insert into grantd.client (client_id, entry)
         select 'n' || n, replace($entry${entry}$entry$, '\"x\"', '\"n' || n || '\"')
         from generate_series(1, 20000) n"
    ));
    wait_until(|| {
        assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
        node.metric("grantd_clients ") == 20_001
    });
    assert_eq!(ask(node.address, "n20000", &secret_of("x")).status, 200);
    // A server that starts reads them in several batches.
    let later = start(&cluster.url(Role::Node), &[], &[]);
    assert_eq!(later.metric("grantd_clients "), 20_001);
    assert_eq!(ask(later.address, "n1", &secret_of("x")).status, 200);
    cluster.psql("delete from grantd.client where client_id <> 'c'");
    wait_until(|| [&node, &later].iter().all(|node| node.metric("grantd_clients ") == 1));
}

/// Rows that are over are dropped, and a server that was away for longer than the outbox reaches back reads
/// everything anew.
#[test]
fn rows_that_are_over_are_dropped_and_missed_changes_are_read_anew() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let away = start(&cluster.url(Role::Node), &[], &[]);
    away.stop();
    put(&cluster, &client_json("missed", &json!({})));
    cluster.psql(
        "insert into grantd.guard (key, ends) values
           ('\\x01', now() - interval '2 minutes'), ('\\x02', now() + interval '1 hour');
         insert into grantd.cut_off values ('\\x0101010101010101', 1),
           ('\\x0202020202020202', extract(epoch from now())::bigint + 600);
         insert into grantd.revocation values
           (decode(repeat('01', 16), 'hex'), '', 1),
           (decode(repeat('02', 16), 'hex'), '\\x0202020202020202',
            extract(epoch from now())::bigint + 500),
           (decode(repeat('03', 16), 'hex'), '\\x0202020202020202',
            extract(epoch from now())::bigint + 700);
         update grantd.changes set at = now() - interval '2 hours'",
    );
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let left = "select (select count(*) from grantd.guard), (select count(*) from grantd.cut_off),
        (select count(*) from grantd.revocation), (select count(*) from grantd.changes),
        (select xid > '0' from grantd.pruned)";
    // In the guard, its birth is left too.
    wait_until(|| cluster.psql(left) == "2|1|1|0|t");
    assert_eq!(node.log.count(|line| line["level"] == "WARN"), 0);
    away.go_on();
    wait_until(|| ask(away.address, "missed", &secret_of("missed")).status == 200);
    wait_until_ready(&away);
}

/// The rows of the outbox that a poll looks back to are kept, no matter how long a transaction is
/// open.
#[test]
fn a_transaction_that_is_open_for_hours_lets_no_server_read_everything_anew() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let mut open = begin(&cluster, &client_json("late", &json!({})));
    put(&cluster, &client_json("beside", &json!({})));
    cluster.psql("update grantd.changes set at = now() - interval '2 hours'");
    let node = start(&cluster.url(Role::Node), &[], &[]);
    // What was dropped at the start is what is older than the open transaction.
    wait_until(|| cluster.psql("select xid > '0' from grantd.pruned") == "t");
    assert_eq!(cluster.psql("select count(*) > 0 from grantd.changes"), "t");
    open.run("commit");
    wait_until(|| ask(node.address, "late", &secret_of("late")).status == 200);
    let was_read = |line: &Value| line["message"] == "the store was read anew";
    assert_eq!(node.log.count(was_read), 0);
}

/// A row that upkeep has dropped because of a cut-off was not lost.
#[test]
fn what_a_cut_off_covers_is_not_written_back() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    cluster.psql(
        "insert into grantd.revocation values (decode(repeat('02', 16), 'hex'),
           '\\x0202020202020202', extract(epoch from now())::bigint + 500)",
    );
    let node = start(&cluster.url(Role::Node), &[], &[]);
    cluster.psql(
        "insert into grantd.cut_off values
           ('\\x0202020202020202', extract(epoch from now())::bigint + 600);
         delete from grantd.revocation",
    );
    cluster.kill_one_process();
    wait_until(|| node.log.count(|line| line["message"] == "the store was read anew") > 0);
    let is_lost = |line: &Value| line["message"].to_string().contains("had lost");
    assert_eq!(node.log.count(is_lost), 0);
    assert_eq!(cluster.psql("select count(*) from grantd.revocation"), "0");
}

/// A machine of the database that is set back with its memory: transaction ids repeat, while the start of
/// PostgreSQL and the birth of the guard stay. It is imitated by polls whose snapshots are ahead.
#[test]
fn a_database_that_is_set_back_while_it_runs_is_read_anew_and_begins_an_epoch() {
    let signer = Signer::es256();
    let cluster = cluster_with(&[asserting(&signer)]);
    let nodes = [(); 2].map(|()| start(&cluster.url(Role::Node), &[], &[]));
    wait_until_accepted(&nodes[0], &signer);
    let before = assertion(&signer, "before");
    let epoch = || cluster.psql("select epoch from grantd.epoch");
    let old = epoch();
    cluster.psql(
        "alter function grantd.poll(text) rename to real_poll;
         create sequence grantd.polls;
         create function grantd.poll(last text)
         returns table (epoch text, snapshot text, is_pruned boolean, since timestamptz, kind text,
           name text, seq bigint)
         language sql security definer as $$
           select p.epoch,
             format('%1$s:%1$s:', pg_snapshot_xmax(p.snapshot::pg_snapshot)::text::bigint + 1000000),
             nextval('grantd.polls') = 0, p.since, null, null, null::bigint
           from grantd.real_poll(last) p limit 1
         $$",
    );
    let polls = || cluster.psql("select last_value from grantd.polls").parse::<u64>().unwrap();
    wait_until(|| polls() >= 10);
    put(&cluster, &client_json("missed", &json!({})));
    cluster.psql(
        "drop function grantd.poll(text); alter function grantd.real_poll(text) rename to poll",
    );
    let is_granted =
        |node: &Program| ask(node.address, "missed", &secret_of("missed")).status == 200;
    wait_until(|| nodes.iter().all(is_granted));
    let is_said = |line: &Value| {
        line["message"].as_str().is_some_and(|it| it.starts_with("the database was set back"))
    };
    let said: Vec<_> = nodes.iter().map(|node| node.log.count(is_said)).collect();
    assert!(said.iter().all(|count| *count <= 1) && said.contains(&1), "{said:?}");
    assert_ne!(epoch(), old);
    nodes.iter().for_each(wait_until_ready);
    present(nodes[1].address, &before).assert_refused(400, "invalid_client");
    wait_until_accepted(&nodes[1], &signer);
}
