//! Rows of signing keys that cannot be opened: damaged ones, or those that no server has written.

use super::nodes::{ask, cluster_with, readiness, start, start_in, wait_until_ready};
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
