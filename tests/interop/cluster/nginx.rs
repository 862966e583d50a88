//! `nginx.conf` over three nodes.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use super::{Load, Node};
use crate::postgres::nodes::{
    asserting, assertion, cluster_with, present, wait_until_accepted, wait_until_ready,
};
use crate::support::nginx::Nginx;
use crate::support::postgres::Role;
use crate::support::registry::client_json;
use crate::support::{Signer, wait_until};

/// All clients of a test have one address, and a node that hangs is given up sooner.
const EDITS: [(&str, &str); 2] =
    [("rate=50r/s", "rate=100000r/s"), ("proxy_read_timeout 15s", "proxy_read_timeout 2s")];

pub(super) fn nginx_over(nodes: &[Node; 3]) -> Nginx {
    Nginx::over(nodes.each_ref().map(|node| node.program.address), &EDITS)
}

#[test]
fn no_secret_grant_is_lost_when_a_node_is_killed_hangs_or_is_restarted() {
    let cluster = cluster_with(&[client_json("steady", &json!({}))]);
    let nodes = Node::three(&cluster.url(Role::Node), None);
    let nginx = nginx_over(&nodes);
    let load = Load::on(nginx.plain, "steady");
    let nodes = thread::scope(|scope| {
        let stop = load.start(scope);
        load.go_on(80);
        assert!(nodes.iter().all(|node| node.program.issued() > 0));
        let [killed, stopped, hung] = nodes;

        killed.program.kill();
        load.go_on(80);
        let killed = killed.start_again();
        wait_until(|| killed.program.issued() > 0);

        let mut stopped = stopped;
        stopped.program.terminate();
        assert_eq!(stopped.program.wait().code(), Some(0));
        load.go_on(80);
        let stopped = stopped.start_again();
        wait_until(|| stopped.program.issued() > 0);

        hung.program.stop();
        load.go_on(80);
        hung.program.go_on();
        wait_until_ready(&hung.program);
        let before = hung.program.issued();
        wait_until(|| hung.program.issued() > before);
        drop(stop);
        [killed, stopped, hung]
    });
    drop(nodes);
    // nginx logs the time of each attempt.
    let log = nginx.into_log();
    let was_sent_again = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["upstream_seconds"].as_str().unwrap().contains(", ")
    };
    assert!(log.lines().any(|line| was_sent_again(&line)), "no request was sent again");
}

/// Presents an assertion until a node decides: on a machine under load, a node may be too busy. Returns
/// the status, and whether one was.
fn decide(nginx: &Nginx, assertion: &str) -> (u16, bool) {
    let was_busy = Cell::new(false);
    let status = Cell::new(0);
    wait_until(|| {
        let response = present(nginx.plain, assertion);
        let is_busy = response.status == 503;
        was_busy.set(was_busy.get() || is_busy);
        status.set(response.status);
        !is_busy
    });
    (status.get(), was_busy.get())
}

/// An assertion that a killed node had may count as used. Then the client makes a new one. None is
/// accepted twice.
#[test]
fn an_assertion_whose_node_is_killed_is_accepted_or_refused_once() {
    let signer = Signer::es256();
    let cluster = cluster_with(&[asserting(&signer)]);
    let nodes = Node::three(&cluster.url(Role::Node), None);
    let nginx = nginx_over(&nodes);
    wait_until_accepted(&nodes[0].program, &signer);
    let mut refused = 0;
    let mut accepted = BTreeSet::new();
    for number in 0..60 {
        if number == 20 {
            nodes[0].program.kill();
        }
        let assertion = assertion(&signer, &format!("through-{number}"));
        match decide(&nginx, &assertion) {
            (200, _) => assert!(accepted.insert(assertion)),
            // The first attempt was recorded, and not answered in time.
            (400, true) => {}
            (400, false) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused <= 1, "{refused}");
    for assertion in accepted {
        assert_eq!(decide(&nginx, &assertion).0, 400);
    }
}
