//! What a promoted standby has lost: revocations are written back, and other changes are logged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use grantd::clock::Clock;
use serde_json::{Value, json};

use super::nodes::{
    ask, asserting, assertion, cluster_with, present, put, readiness, start, start_in, three,
    wait_until_accepted, wait_until_ready,
};
use super::snapshot::end;
use super::store::on;
use crate::support::home::secret_of;
use crate::support::postgres::{Postgres, Role, Stop};
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, is_active, revoke, token_of};
use crate::support::{Home, Program, Request, Signer, StopOnDrop, wait_until};

/// A primary with these clients, a standby, and the URL that names both.
fn pair(clients: &[Value]) -> (Postgres, Postgres, String) {
    let primary = cluster_with(clients);
    let standby = primary.standby();
    let url = Postgres::url_of(Role::Node, &[&primary, &standby]);
    (primary, standby, url)
}

/// Cuts the standby off when it has everything that was written so far.
fn cut_off(primary: &Postgres, standby: &Postgres) {
    standby.catch_up_with(primary);
    standby.stop_following();
}

/// The fields of the line that names what the store has lost.
fn differences(node: &Program) -> Value {
    node.log.wait_for(|line| line["message"].to_string().contains("has lost its last changes"))
}

fn deadlocks(cluster: &Postgres) -> usize {
    cluster.log().matches("deadlock detected").count()
}

/// A server that was stopped while the token was revoked learns of it from the others.
#[test]
fn what_is_revoked_stays_revoked_when_the_standby_that_lacks_it_is_promoted() {
    let (mut primary, standby, url) =
        pair(&[client_json("c", &json!({})), client_json("cut", &json!({}))]);
    let few = [("GRANTD_LIMITS__REVOCATIONS", "40")];
    let nodes = [(); 3].map(|()| start(&url, &[], &few));
    cut_off(&primary, &standby);
    let [one, two, late] = nodes.each_ref().map(|node| node.address);
    nodes[2].stop();
    let token = token_of(one, "c");
    assert_revoked(&revoke(one, "c", &token));
    let covered = token_of(one, "cut");
    for _ in 0..40 {
        if nodes[0].metric("grantd_revocation_cut_offs_total") == 0 {
            assert_revoked(&revoke(one, "cut", &token_of(one, "cut")));
        }
    }
    assert_eq!(nodes[0].metric("grantd_revocation_cut_offs_total"), 1);
    let is_revoked = |address: SocketAddr| {
        !is_active(address, "c", &token) && !is_active(address, "cut", &covered)
    };
    assert!(is_revoked(one));
    wait_until(|| is_revoked(two));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for node in &nodes[..2] {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(is_revoked(node.address), "{}", node.address);
                }
            });
        }
        let stop = StopOnDrop(&is_over);
        primary.kill();
        standby.promote();
        let begin = Clock::system().instant();
        nodes[2].go_on();
        wait_until(|| is_revoked(late));
        println!("revoked on all {:?} after the promotion", begin.elapsed());
        nodes.iter().for_each(wait_until_ready);
        drop(stop);
    });
    assert!(nodes.iter().all(|node| is_revoked(node.address)));
    let left = "select (select count(*) > 0 from grantd.revocation), count(*) from grantd.cut_off";
    assert_eq!(standby.psql(left), "t|1");
}

/// The only server that knows of the revocation is restarted before the standby is promoted, or
/// after.
#[test]
fn a_server_that_is_restarted_writes_back_what_only_its_snapshot_holds() {
    for is_promoted_first in [false, true] {
        let (mut primary, standby, url) = pair(&[client_json("c", &json!({}))]);
        let node = start_in(Home::without_key(), &url, &[], &[]);
        let token = token_of(node.address, "c");
        cut_off(&primary, &standby);
        put(&primary, &client_json("lost", &json!({})));
        wait_until(|| ask(node.address, "lost", &secret_of("lost")).status == 200);
        // No poll brings what is written last.
        assert_revoked(&revoke(node.address, "c", &token));
        primary.kill();
        let home = end(node);
        if is_promoted_first {
            standby.promote();
        }
        let node = start_in(home, &url, &[], &[]);
        assert!(!is_active(node.address, "c", &token), "{is_promoted_first}");
        if !is_promoted_first {
            assert!(readiness(&node).1.starts_with("degraded: "));
            standby.promote();
        }
        assert_eq!(differences(&node)["clients_gone"], "lost");
        wait_until(|| standby.psql("select count(*) from grantd.revocation") == "1");
        let other = start(&url, &[], &[]);
        assert!(!is_active(other.address, "c", &token));
    }
}

#[test]
fn registry_changes_that_are_gone_are_logged_with_their_ids() {
    let clients = ["back", "changed", "kept"].map(|id| client_json(id, &json!({})));
    let (mut primary, standby, url) = pair(&clients);
    let home = Home::without_key();
    let node = start(&url, &[], &[]);
    cut_off(&primary, &standby);
    let owner = Postgres::url_of(Role::Owner, &[&primary, &standby]);
    for number in 10..35 {
        put(&primary, &client_json(&format!("gone-{number}"), &json!({})));
    }
    put(&primary, &client_json("changed", &json!({ "enabled": false })));
    primary.psql("delete from grantd.client where client_id = 'back'");
    let made = on(&home, &owner, &["key", "rotate"]);
    let made: Value = serde_json::from_str(made.assert_fine()).unwrap();
    let is_granted = |id: &str| ask(node.address, id, &secret_of(id)).status == 200;
    wait_until(|| node.metric("grantd_clients ") == 27 && !is_granted("back"));
    let kid = made["kid"].as_str().unwrap();
    let key_set = || Request::get("/.well-known/jwks.json").send(node.address);
    wait_until(|| key_set().text().contains(kid));
    primary.kill();
    standby.promote();
    let line = differences(&node);
    let gone = line["clients_gone"].as_str().unwrap();
    assert!(gone.contains("gone-") && gone.ends_with(" and 5 more"), "{line}");
    assert_eq!(gone.split(", ").count(), 20, "{line}");
    assert_eq!(
        (&line["clients_changed"], &line["clients_new"]),
        (&json!("changed"), &json!("back"))
    );
    assert_eq!(line["keys_gone"], made["kid"], "{line}");
    wait_until(|| is_granted("back") && is_granted("changed"));
    // Without a loss, nothing is logged.
    let before = node.log.lines().len();
    standby.kill_one_process();
    wait_until(|| {
        let lines = node.log.lines().split_off(before);
        lines.iter().any(|line| line["message"] == "the store was read anew")
    });
    let named = |line: &Value| line["message"].to_string().contains("has lost its last changes");
    assert_eq!(node.log.count(named), 1);
}

#[test]
fn servers_that_write_back_at_once_do_not_wait_for_each_other() {
    let (mut primary, standby, url) = pair(&[client_json("c", &json!({}))]);
    let nodes = three(&url);
    cut_off(&primary, &standby);
    primary.psql(
        "insert into grantd.revocation
           select decode(md5(n::text), 'hex'), '', extract(epoch from now())::bigint + 3600
           from generate_series(1, 20000) n;
         insert into grantd.cut_off
           select decode(substr(md5(n::text), 1, 16), 'hex'),
             extract(epoch from now())::bigint + 3600
           from generate_series(1, 3000) n",
    );
    wait_until(|| nodes.iter().all(|node| node.metric("grantd_revocations ") == 20_000));
    // The cut-offs were read with them.
    primary.kill();
    standby.promote();
    let left =
        "select (select count(*) from grantd.revocation), (select count(*) from grantd.cut_off)";
    wait_until(|| standby.psql(left) == "20000|3000");
    nodes.iter().for_each(wait_until_ready);
    assert_eq!(deadlocks(&standby), 0, "{}", standby.log());
}

/// Prints how long each thing takes after the database is back.
#[test]
fn after_a_restart_of_the_database_everything_is_accepted_again() {
    let signer = Signer::es256();
    let mut cluster = cluster_with(&[asserting(&signer), client_json("c", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    wait_until_accepted(&node, &signer);
    cluster.stop(Stop::Fast);
    wait_until(|| node.metric("grantd_store_up ") == 0);
    let early = assertion(&signer, "early");
    cluster.start_again();
    let begin = Clock::system().instant();
    wait_until_ready(&node);
    println!("ready {:?} after the start of the database", begin.elapsed());
    let token = token_of(node.address, "c");
    wait_until(|| revoke(node.address, "c", &token).status == 200);
    println!("revocations {:?} after the start of the database", begin.elapsed());
    // What was used before the epoch is not known.
    wait_until(|| present(node.address, &early).status == 400);
    wait_until_accepted(&node, &signer);
    println!("assertions {:?} after the start of the database", begin.elapsed());
    present(node.address, &early).assert_refused(400, "invalid_client");
}
