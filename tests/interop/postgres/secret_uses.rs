//! The uses of secrets, which servers add up in the store.

use std::thread;

use serde_json::json;

use super::nodes::{cluster_with, start, three};
use crate::support::home::secret_of;
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
