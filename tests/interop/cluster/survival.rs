//! The table of what survives: the rows that no other test shows.

use std::fs;

use serde_json::json;

use super::Node;
use super::databases::{Databases, in_office};
use super::page::{PAGE, commands};
use crate::deploy::text_of;
use crate::postgres::nodes::{
    ask, asserting, assertion, cluster_with, present, put, wait_until_accepted, wait_until_ready,
};
use crate::postgres::store::{OTHER_MASTER_KEY, with_store};
use crate::support::command::{run, succeed};
use crate::support::home::{secret_of, set_mode};
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{DATABASE, Role, Stop};
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, is_active, revoke, token_of};
use crate::support::{Home, Request, Signer, Token, wait_until};

/// The tests that the table names exist.
#[test]
fn every_row_of_the_table_is_shown_by_a_test() {
    let section = PAGE.split("\n## What survives\n").nth(1).expect("a section");
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 8, "{rows:?}");
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
    for row in rows {
        let shown = row.trim_matches('|').rsplit('|').next().unwrap();
        let named: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            let mut grep = std::process::Command::new("grep");
            succeed(grep.args(["-rqE", &format!("^fn {name}\\(\\) \\{{")]).arg(tests));
        }
    }
}

/// With `synchronous_standby_names`, no change is possible without a standby, and assertions and
/// secret grants go on.
#[test]
fn a_change_that_waits_for_a_standby_survives_the_primary() {
    let signer = Signer::es256();
    let mut databases = Databases::start();
    let settings = text_of("cluster/postgresql.conf");
    let names =
        settings.lines().find_map(|line| line.strip_prefix("#synchronous_standby_names = "));
    databases
        .primary
        .psql(&format!("alter system set synchronous_standby_names = {}", names.unwrap()));
    databases.primary.psql("select pg_reload_conf()");
    wait_until(|| databases.primary.psql("select sync_state from pg_stat_replication") == "quorum");
    put(&databases.primary, &client_json("c", &json!({})));
    put(&databases.primary, &asserting(&signer));
    let ports = [databases.primary.port, databases.standby.port];
    let node = Node::start(&databases.url(Role::Node, ports), Some(&databases.office));
    let at = node.program.address;
    wait_until_accepted(&node.program, &signer);
    let [revoked, waiting] = [(); 2].map(|()| token_of(at, "c"));

    databases.standby.stop(Stop::Fast);
    revoke(at, "c", &waiting).assert_refused(503, "temporarily_unavailable");
    let alone = assertion(&signer, "alone");
    assert_eq!(present(at, &alone).status, 200);
    present(at, &alone).assert_refused(400, "invalid_client");
    assert_eq!(ask(at, "c", &secret_of("c")).status, 200);
    databases.standby.start_again();
    wait_until(|| revoke(at, "c", &waiting).status == 200);

    assert_revoked(&revoke(at, "c", &revoked));
    put(&databases.primary, &client_json("last", &json!({})));
    drop(node);
    databases.primary.kill();
    databases.standby.promote();
    // It waits for a standby of its own.
    databases.standby.psql("alter system reset synchronous_standby_names");
    databases.standby.psql("select pg_reload_conf()");
    // This node has seen nothing of what was acknowledged.
    let later = Node::start(&databases.url(Role::Node, ports), Some(&databases.office));
    let at = later.program.address;
    assert!(!is_active(at, "c", &revoked) && !is_active(at, "c", &waiting));
    assert_eq!(ask(at, "last", &secret_of("last")).status, 200);
    present(at, &alone).assert_refused(400, "invalid_client");
}

/// A node that is cut off goes on with what it knows, and learns the rest when it is back. When the
/// guard is emptied, what was used before is refused, and nothing else is lost.
#[test]
fn a_node_that_is_cut_off_and_a_guard_that_is_emptied_accept_nothing_twice() {
    let signer = Signer::es256();
    let cluster = cluster_with(&[client_json("c", &json!({})), asserting(&signer)]);
    let mut bouncer = PgBouncer::before(&cluster);
    let nodes =
        [cluster.url(Role::Node), bouncer.url(Role::Node)].map(|url| Node::start(&url, None));
    let [at, cut_off] = nodes.each_ref().map(|node| node.program.address);
    wait_until_accepted(&nodes[0].program, &signer);
    let token = token_of(at, "c");
    bouncer.kill();
    wait_until(|| nodes[1].program.metric("grantd_store_up ") == 0);
    assert_revoked(&revoke(at, "c", &token));
    put(&cluster, &client_json("new", &json!({})));
    wait_until(|| ask(at, "new", &secret_of("new")).status == 200);
    let used = assertion(&signer, "used");
    present(cut_off, &used).assert_refused(503, "temporarily_unavailable");
    assert_eq!(present(at, &used).status, 200);
    assert!(is_active(cut_off, "c", &token));
    assert_eq!(ask(cut_off, "new", &secret_of("new")).status, 400);
    // Its tokens are accepted everywhere.
    let other = Request::get("/.well-known/jwks.json").send(at).json();
    Token::verified_with(&ask(cut_off, "c", &secret_of("c")), &other);
    bouncer.start_again();
    wait_until(|| !is_active(cut_off, "c", &token));
    wait_until(|| ask(cut_off, "new", &secret_of("new")).status == 200);
    wait_until(|| present(cut_off, &used).status == 400);

    cluster.psql("truncate grantd.guard");
    for at in [at, cut_off] {
        present(at, &used).assert_refused(400, "invalid_client");
        assert!(!is_active(at, "c", &token));
    }
}

/// Without the master key, running nodes go on, and none starts. New keys take the place of the lost
/// ones.
#[test]
fn a_lost_master_key_is_replaced_and_running_nodes_go_on() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let url = cluster.url(Role::Node);
    let node = Node::start(&url, None);
    let at = node.program.address;
    let home = Home::without_key();
    let key = [("GRANTD_MASTER_KEY", OTHER_MASTER_KEY)];
    let mut start = with_store(&home, &url, &["serve", "--listen", "127.0.0.1:0"]);
    let refused = run(start.args(["--admin-listen", "127.0.0.1:0"]).envs(key));
    refused.assert_error(1, &["is sealed with the master key"]);
    let old = Token::verified(&ask(at, "c", &secret_of("c")), at);

    let owner = cluster.url(Role::Owner);
    let [script] = commands("Master key lost", &[]).try_into().unwrap();
    let mut shell = in_office(&home, &script);
    shell.envs([("PGHOST", "127.0.0.1"), ("PGDATABASE", DATABASE), ("GRANTD_STORE_URL", &owner)]);
    shell.envs([("PGUSER", Role::Owner.name()), ("PGPASSWORD", Role::Owner.password())]);
    succeed(shell.env("PGPORT", cluster.port.to_string()).envs(key));
    set_mode(&node.program.home.path("master.key"), 0o600);
    fs::write(node.program.home.path("master.key"), OTHER_MASTER_KEY).unwrap();
    let node = node.start_again();
    let at = node.program.address;
    wait_until_ready(&node.program);
    let new = ask(at, "c", &secret_of("c"));
    Token::verified(&new, at);
    let keys = Request::get("/.well-known/jwks.json").send(at).json();
    let keys = keys["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["kid"] != old.header["kid"]), "the old key is lost");
}
