//! A lifetime that was shortened counts on all servers, and for the commands, until its tokens have
//! expired.

use std::fs;

use grantd::clock::Clock;
use serde_json::{Value, json};

use super::nodes::{cluster_with, put, start};
use super::store::{on, printed};
use crate::support::postgres::Role;
use crate::support::registry::client_json;
use crate::support::status::{is_active, token_of, vision_token_of};
use crate::support::{Home, Program, wait_until};

/// The client whose tokens have no `iat`.
fn vision(lifetime: u32, not_before: u64) -> Value {
    client_json("vision", &json!({ "token_lifetime": lifetime, "not_before": not_before }))
}

fn has_learned(node: &Program) -> bool {
    let is_it = |line: &Value| {
        let changes = line["changes"].as_str().unwrap_or_default();
        line["message"] == "reloaded" && changes.contains("shortened lifetimes")
    };
    node.log.count(is_it) > 0
}

#[test]
fn a_lifetime_that_was_shortened_counts_on_servers_that_have_not_seen_it() {
    let now = Clock::unix_micros() / 1_000_000;
    let cluster = cluster_with(&[
        vision(7200, 0),
        client_json("c", &json!({ "token_lifetime": 60 })),
        client_json("d", &json!({ "token_lifetime": 60 })),
    ]);
    let url = cluster.url(Role::Node);
    let first = start(&url, &[], &[]);
    let token = vision_token_of(first.address, "vision");
    put(&cluster, &vision(60, now + 100));
    wait_until(|| !is_active(first.address, "vision", &token));
    wait_until(|| cluster.psql("select lifetime from grantd.shortened") == "7200");

    // A new server, and a command on a machine without a server.
    let later = start(&url, &[], &[]);
    assert!(!is_active(later.address, "vision", &token));
    let owner = cluster.url(Role::Owner);
    let rotated = printed(&on(&Home::new(), &owner, &["key", "rotate"]));
    let retires = &rotated["retires"];
    let kept = retires["gone_at"].as_u64().unwrap() - retires["retires_at"].as_u64().unwrap();
    assert!(kept >= 7200 + 300, "{rotated}");

    // A running server learns what another one has noted.
    let longer = format!("select grantd.shorten('{{c}}', '{{86400}}', '{{{}}}')", now + 86_400);
    cluster.psql_as(Role::Node, &longer).assert_fine();
    wait_until(|| has_learned(&first) && has_learned(&later));
    let written = "select client_id, lifetime from grantd.shortened order by 1";
    assert_eq!(cluster.psql(written), "c|86400\nvision|7200");
    cluster.psql_as(Role::Node, "delete from grantd.shortened").assert_error(1, &["permission"]);

    // Files have it again.
    let home = Home::new();
    let export =
        ["store", "export", "--clients", "n.json", "--keys", "n-keys", "--state", "n-state"];
    on(&home, &owner, &export).assert_fine();
    let text = fs::read_to_string(home.path("n-state/lifetimes")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(recorded["shortened"]["vision"]["lifetime"], 7200, "{recorded}");
    cluster.psql("delete from grantd.shortened");
    on(&home, &owner, &["store", "import", "--state", "n-state"]).assert_fine();
    assert_eq!(cluster.psql(written), "c|86400\nvision|7200");

    // What no longer counts is dropped.
    drop((first, later));
    cluster.psql("insert into grantd.shortened values ('d', 86400, 1)");
    let last = start(&url, &[], &[]);
    wait_until(|| cluster.psql(written) == "c|86400\nvision|7200");
    assert!(!is_active(last.address, "vision", &token));
}

/// With a client, the counts of its secrets are dropped.
#[test]
fn the_uses_of_a_client_that_is_removed_are_dropped() {
    let cluster = cluster_with(&[client_json("c", &json!({})), client_json("d", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let counted = "select string_agg(client_id, ',' order by client_id) from grantd.secret_use";
    for client in ["c", "d"] {
        token_of(node.address, client);
    }
    wait_until(|| cluster.psql(counted) == "c,d");
    token_of(node.address, "c");
    cluster.psql("delete from grantd.client where client_id = 'c'");
    assert_eq!(cluster.psql(counted), "d");
    token_of(node.address, "d");
    // What was used and not yet counted is not added to a client that is gone.
    wait_until(|| cluster.psql("select uses from grantd.secret_use") == "2");
    assert_eq!(cluster.psql(counted), "d");
}
