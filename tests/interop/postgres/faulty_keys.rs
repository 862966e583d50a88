//! Rows of signing keys that cannot be opened: damaged ones, or those that no server has written.

use super::nodes::{ask, cluster_with, readiness, start, start_in, wait_until_ready};
use super::rotation::{self, lease, signs_with};
use super::snapshot::end;
use super::store::{MASTER_KEY, on, printed};
use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::postgres::Role;
use crate::support::registry::client_json;
use crate::support::{Home, Program, Request, wait_until};

use serde_json::json;

fn publishes(node: &Program, kid: &str) -> bool {
    Request::get("/.well-known/jwks.json").send(node.address).text().contains(kid)
}

#[test]
fn a_row_that_holds_no_key_keeps_no_server_from_starting() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let (url, owner) = (cluster.url(Role::Node), cluster.url(Role::Owner));
    let node = start(&url, &[], &[]);
    let rotated = printed(&on(&Home::new(), &owner, &["key", "rotate"]));
    let next = rotated["kid"].as_str().unwrap();
    wait_until(|| publishes(&node, next));
    cluster.psql(&format!(
        "create table kept as select * from grantd.signing_key where key_id = '{next}';
         delete from grantd.signing_key where key_id = '{next}'"
    ));
    wait_until(|| !publishes(&node, next));
    let garbage = "insert into grantd.signing_key (key_id, document) values ('it''s none', 'x')";
    cluster.psql(garbage);
    let remedy = "DELETE FROM grantd.signing_key WHERE key_id = 'it''s none'";
    wait_until(|| readiness(&node).1.contains(remedy));
    // The other keys are followed all the same.
    cluster.psql("insert into grantd.signing_key select * from kept");
    wait_until(|| publishes(&node, next));
    on(&Home::new(), &owner, &["key", "list"]).assert_error(1, &[remedy]);

    let node = start_in(end(node), &url, &[], &[]);
    assert!(publishes(&node, next) && readiness(&node).1.contains(remedy));
    assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
    cluster.psql_as(Role::Owner, remedy).assert_fine();
    wait_until_ready(&node);

    // A key of a master key that is not set here may be the one with which the others sign.
    cluster.psql(
        "insert into grantd.signing_key (key_id, document)
         values ('foreign', decode('01' || repeat('ab', 60), 'hex'))",
    );
    let home = end(node);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut command = home.command(&serve);
    command.env("GRANTD_STORE_URL", &url).env("GRANTD_MASTER_KEY", MASTER_KEY);
    let says = ["foreign: is sealed with the master key abababab", "WHERE key_id = 'foreign'"];
    run(command).assert_error(1, &says);
}

/// With the role of a server, the next key can be spoiled shortly before it signs. The servers that run
/// keep its previous version, and so does one that starts with its snapshot.
#[test]
fn a_server_that_starts_keeps_the_previous_version_of_a_spoiled_key() {
    let cluster = rotation::cluster();
    let url = cluster.url(Role::Node);
    let short = [("GRANTD_JWKS_MAX_AGE", "5")];
    let [running, starting] = [(); 2].map(|()| start(&url, &[], &short));
    let first = signs_with(&running);
    let rotated = printed(&rotation::key(&cluster, &["rotate"]));
    let next = rotated["kid"].as_str().unwrap();
    wait_until(|| publishes(&running, next) && publishes(&starting, next));
    let (leads, term) = lease(&cluster);
    let spoil = format!(
        "select grantd.postpone_key(key_id, 'x', published_at, signs_from + 1, '{leads}', {term})
         from grantd.signing_key where key_id = '{next}'"
    );
    assert_eq!(cluster.psql_as(Role::Node, &spoil).assert_fine(), "t\n");
    let kept = "the previous version of this one, if any";
    wait_until(|| readiness(&running).1.contains(kept));

    // The next snapshot holds it, too.
    let mut home = end(starting);
    for _ in 0..2 {
        let node = start_in(home, &url, &[], &short);
        assert!(publishes(&node, next));
        let (status, text) = readiness(&node);
        assert!(status == 200 && text.contains(next) && text.contains(kept), "{text}");
        let message = "the previous version of this signing key stays in force";
        assert_eq!(node.log.count(|line| line["message"] == message && line["kid"] == next), 1);
        home = end(node);
    }
    let node = start_in(home, &url, &[], &short);
    wait_until(|| [&running, &node].iter().all(|node| signs_with(node) == next));
    assert_ne!(first, next);
    // Without a snapshot, there is no previous version.
    let other = start(&url, &[], &short);
    assert!(!publishes(&other, next) && signs_with(&other) == first);
}
