//! From files to the store and back: nothing that was revoked becomes valid again.

use std::fs;

use serde_json::{Value, json};

use super::nodes::start_in;
use super::snapshot::end;
use super::store::{migrated, on, printed};
use crate::support::postgres::Role;
use crate::support::registry::client_json;
use crate::support::status::{ISSUER, assert_revoked, is_active, revoke, token_of};
use crate::support::{Home, Program, wait_until};

const IMPORT: [&str; 6] = ["store", "import", "--clients", "clients.json", "--keys", "keys"];
const STATE: [&str; 2] = ["--state", "state"];

/// Tokens of two clients.
struct Tokens {
    revoked: String,
    /// Was not revoked itself: its client was cut off.
    cut_off: String,
    valid: String,
}

impl Tokens {
    /// Gets tokens from a server with files, and revokes them.
    fn of(node: &Program) -> Self {
        let address = node.address;
        let [revoked, valid] = [(); 2].map(|()| token_of(address, "c"));
        assert_revoked(&revoke(address, "c", &revoked));
        let cut_off = token_of(address, "cut");
        for _ in 0..40 {
            if node.metric("grantd_revocation_cut_offs_total") == 0 {
                assert_revoked(&revoke(address, "cut", &token_of(address, "cut")));
            }
        }
        let tokens = Self { revoked, cut_off, valid };
        assert!(tokens.are_revoked(node));
        tokens
    }

    #[track_caller]
    fn are_revoked(&self, node: &Program) -> bool {
        assert!(is_active(node.address, "c", &self.valid));
        !is_active(node.address, "c", &self.revoked)
            && !is_active(node.address, "cut", &self.cut_off)
    }
}

fn serve_files(home: Home, more: &[&str]) -> Program {
    let arguments = [&["--issuer", ISSUER][..], more].concat();
    Program::start_with(home, &arguments, &[("GRANTD_LIMITS__REVOCATIONS", "40")])
}

fn with_clients() -> Home {
    let home = Home::new();
    home.register(&["c", "cut"].map(|id| client_json(id, &json!({}))));
    home
}

fn warnings(node: &Program) -> usize {
    node.log.count(|line: &Value| line["message"].to_string().contains("are not in force"))
}

#[test]
fn what_was_revoked_stays_revoked_in_the_store_and_in_files_again() {
    let (cluster, url) = migrated();
    let node = serve_files(with_clients(), &[]);
    let tokens = Tokens::of(&node);
    let home = end(node);
    let line = printed(&on(&home, &url, &[&IMPORT[..], &STATE].concat()));
    assert_eq!((&line["imported"], &line["cut_offs"]), (&json!(true), &json!(1)), "{line}");
    let node = start_in(home, &cluster.url(Role::Node), &[], &[]);
    assert!(tokens.are_revoked(&node));
    assert_eq!(warnings(&node), 0);
    let home = end(node);

    let export = ["store", "export", "--clients", "new.json", "--keys", "new-keys"];
    let line = printed(&on(&home, &url, &[&export[..], &["--state", "new-state"]].concat()));
    assert_eq!(line["cut_offs"], 1, "{line}");
    let again = ["store", "export", "--clients", "2.json", "--keys", "2", "--state", "new-state"];
    on(&home, &url, &again).assert_error(1, &["new-state/revocations: exists already"]);
    let files = ["--clients", "new.json", "--keys", "new-keys", "--state", "new-state"];
    assert!(tokens.are_revoked(&serve_files(home, &files)));
}

/// The store may hold other clients by then.
#[test]
fn revocations_that_were_left_in_a_file_are_warned_of_and_imported_later() {
    let (cluster, url) = migrated();
    let node = serve_files(with_clients(), &[]);
    let tokens = Tokens::of(&node);
    let home = end(node);
    on(&home, &url, &IMPORT).assert_fine();
    on(&home, &url, &["client", "add", "--id", "later", "--scope", "s"]).assert_fine();
    let copy = Home::new();
    fs::create_dir(copy.path("state")).unwrap();
    fs::copy(home.path("state/revocations"), copy.path("state/revocations")).unwrap();
    let node = start_in(home, &cluster.url(Role::Node), &[], &[]);
    assert_eq!(warnings(&node), 1);
    assert!(!tokens.are_revoked(&node));
    let line = printed(&on(&copy, &url, &[&["store", "import"][..], &STATE].concat()));
    assert_eq!((&line["cut_offs"], &line["clients"]), (&json!(1), &Value::Null), "{line}");
    wait_until(|| tokens.are_revoked(&node));
    let node = start_in(end(node), &cluster.url(Role::Node), &[], &[]);
    assert_eq!(warnings(&node), 0);

    on(&copy, &url, &["store", "import", "--state", "mistyped"])
        .assert_error(1, &["mistyped: cannot be read"]);
    copy.write("state/revocations", "no revocation\n");
    on(&copy, &url, &["store", "import", "--state", "state"])
        .assert_error(1, &["state/revocations:1: is not a valid revocation record"]);
    on(&copy, &url, &["store", "import"]).assert_error(2, &["--clients <FILE>"]);
}
