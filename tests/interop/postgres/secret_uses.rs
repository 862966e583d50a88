//! The uses of secrets, which servers add up in the store.

use std::thread;

use serde_json::json;

use super::nodes::{cluster_with, start, three};
use crate::support::home::{hash_of, secret_of};
use crate::support::postgres::{Postgres, Role};
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, revoke, token_of};
use crate::support::{Connection, Encoding, Program, Request, request_of, wait_until};

/// Returns the number of statements of servers in the cluster's log.
fn statements(cluster: &Postgres) -> usize {
    let log = cluster.log();
    let is_of_a_server = |line: &&str| line.contains(Role::Node.name());
    log.lines().filter(is_of_a_server).filter(|line| line.contains(" LOG:  execute ")).count()
}

#[test]
fn a_secret_grant_makes_no_query() {
    const GRANTS: usize = 10_000;
    const THREADS: usize = 8;
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    cluster.psql("alter system set log_statement = 'all'");
    cluster.psql("select pg_reload_conf()");
    let node = start(&cluster.url(Role::Node), &[], &[("GRANTD_STORE__POLL_MS", "1000")]);
    // A request that has to make a query is seen.
    let before = statements(&cluster);
    for _ in 0..20 {
        let token = token_of(node.address, "c");
        assert_revoked(&revoke(node.address, "c", &token));
    }
    assert!(statements(&cluster) >= before + 20, "{}", cluster.log());
    let uses = "select coalesce(sum(uses), 0) from grantd.secret_use";
    wait_until(|| cluster.psql(uses) == "40");

    let before = statements(&cluster);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut connection = Connection::open(node.address);
                let request =
                    Request::token(Encoding::Urlencoded, &request_of("c", &secret_of("c"), &[]));
                for _ in 0..GRANTS / THREADS {
                    assert_eq!(connection.ask(&request).status, 200);
                }
            });
        }
    });
    // The uses are written too, many in one statement.
    wait_until(|| cluster.psql(uses) == (GRANTS + 40).to_string());
    let made = statements(&cluster) - before;
    assert!(made > 0 && made < GRANTS / 20, "{made} statements for {GRANTS} grants");
}

/// The uses of a secret on all servers are added up.
#[test]
fn every_server_shows_the_uses_of_a_secret_on_all() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let nodes = three(&cluster.url(Role::Node));
    for (uses, node) in (1..).zip(&nodes) {
        for _ in 0..uses {
            token_of(node.address, "c");
        }
    }
    let shown = |node: &Program| {
        let client = Request::get("/clients/c").send(node.admin).json();
        client["secrets"][0]["uses"].as_u64()
    };
    wait_until(|| nodes.iter().all(|node| shown(node) == Some(6)));
}

/// A server's role may set a sum to its limit.
#[test]
fn a_sum_at_its_limit_and_a_label_that_cannot_be_stored_keep_no_use_from_being_added() {
    let secrets = |label: &str, id: &str| {
        let secret = json!({ "label": label, "hash": hash_of(&secret_of(id)) });
        client_json(id, &json!({ "secrets": [secret] }))
    };
    let clients = [
        client_json("full", &json!({})),
        secrets("nul\0", "nul"),
        secrets(&"long".repeat(300), "long"),
        client_json("z", &json!({})),
    ];
    let cluster = cluster_with(&clients);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let uses = |id: &str| {
        cluster.psql(&format!("select uses from grantd.secret_use where client_id = '{id}'"))
    };
    token_of(node.address, "full");
    wait_until(|| uses("full") == "1");
    let limit = "4611686018427387904";
    let set = format!("update grantd.secret_use set uses = {limit}");
    cluster.psql_as(Role::Node, &set).assert_fine();
    for id in ["full", "nul", "long", "z"] {
        token_of(node.address, id);
        token_of(node.address, id);
    }
    wait_until(|| uses("z") == "2");
    assert_eq!(uses("full"), limit);
}
