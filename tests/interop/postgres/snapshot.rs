//! A server starts from its sealed snapshot while the database is away.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::impostor::silent_after_login;
use super::nodes::{ask, cluster_with, put, readiness, start_in, wait_until_ready};
use super::store::{MASTER_KEY, with_store};
use crate::support::command::{Ended, run};
use crate::support::home::secret_of;
use crate::support::postgres::{Postgres, Role, Stop};
use crate::support::registry::client_json;
use crate::support::status::{introspect, is_active, revoke, token_of, validate};
use crate::support::{Home, Program, Request, wait_until};

const OTHER_MASTER_KEY: &str = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Runs `serve`, which fails.
fn refused(home: &Home, url: &str, variables: &[(&str, &str)]) -> Ended {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut command = with_store(home, url, &arguments);
    command.envs(variables.iter().copied());
    run(command)
}

fn snapshot(home: &Home) -> std::path::PathBuf {
    home.path("state/snapshot")
}

/// Runs `check`, and returns what it says of the snapshot.
fn checked(home: &Home, url: &str) -> String {
    let ended = run(with_store(home, url, &["check"]));
    let mut lines = ended.stdout.lines().chain(ended.stderr.lines());
    let line = lines.find(|line| line.contains("state/snapshot"));
    let line = line.unwrap_or_else(|| panic!("{ended:?}"));
    line.trim_start_matches("grantd: ").to_owned()
}

/// Ends a server, which then writes the last changes to its snapshot.
pub(super) fn end(mut node: Program) -> Home {
    node.terminate();
    assert!(node.wait().success());
    node.into_home()
}

fn is_granted(address: SocketAddr, client: &str) -> bool {
    ask(address, client, &secret_of(client)).status == 200
}

#[test]
fn a_server_starts_serves_and_comes_back_while_the_database_is_away() {
    let mut cluster = cluster_with(&[client_json("a", &json!({})), client_json("b", &json!({}))]);
    let url = cluster.url(Role::Node);
    let home = Home::without_key();
    assert!(checked(&home, &url).contains("there is no snapshot yet"));
    let node = start_in(home, &url, &[], &[]);
    let (kept, revoked) = (token_of(node.address, "a"), token_of(node.address, "a"));
    assert_eq!(revoke(node.address, "a", &revoked).status, 200);
    put(&cluster, &client_json("c", &json!({})));
    put(&cluster, &client_json("b", &json!({ "enabled": false })));
    wait_until(|| is_granted(node.address, "c") && !is_granted(node.address, "b"));
    wait_until(|| !is_active(node.address, "a", &revoked));
    let keys = Request::get("/connect/jwk_uri").send(node.address).json();
    let home = end(node);
    assert!(checked(&home, &url).contains("clients: 3, keys: 1"), "{}", checked(&home, &url));

    cluster.stop(Stop::Fast);
    let said = checked(&home, &url);
    assert!(said.starts_with("note: ") && said.contains("while the database is away"), "{said}");
    let node = start_in(home, &url, &[], &[]);
    assert!(is_granted(node.address, "a") && is_granted(node.address, "c"));
    assert!(!is_granted(node.address, "b"));
    assert_eq!(Request::get("/connect/jwk_uri").send(node.address).json(), keys);
    assert!(is_active(node.address, "a", &kept) && !is_active(node.address, "a", &revoked));
    let (status, text) = readiness(&node);
    assert!(status == 200 && text.starts_with("degraded: postgres://"), "{text}");
    assert!(text.contains(" s ago stays in force") && !text.contains(Role::Node.password()));
    assert_eq!(node.metric("grantd_store_up "), 0);
    let line = node.log.wait_for(|line| {
        line["message"].as_str().is_some_and(|text| text.contains("starting from the snapshot"))
    });
    assert!(line["age_in_s"].as_u64().is_some(), "{line}");
    wait_until(|| node.metric("grantd_store_age_seconds ") >= 2);
    revoke(node.address, "a", &kept).assert_refused(503, "temporarily_unavailable");

    // What changes before the server reaches the database is in force soon after.
    cluster.start_again();
    put(&cluster, &client_json("d", &json!({})));
    wait_until(|| is_granted(node.address, "d"));
    wait_until_ready(&node);
    assert_eq!(node.metric("grantd_store_up "), 1);
    wait_until(|| node.metric("grantd_store_age_seconds ") == 0);
    assert_eq!(revoke(node.address, "a", &kept).status, 200);
    // From then on the snapshot is written again.
    let home = end(node);
    cluster.stop(Stop::Immediate);
    let node = start_in(home, &url, &[], &[]);
    assert!(is_granted(node.address, "d") && !is_active(node.address, "a", &kept));
    assert!(!is_active(node.address, "a", &revoked));
}

#[test]
fn without_a_usable_snapshot_the_start_fails_with_what_to_do() {
    let mut cluster = cluster_with(&[client_json("a", &json!({}))]);
    let url = cluster.url(Role::Node);
    // The first server makes the key after it has read everything, so its base may lack the key. The
    // second one writes a base with the key, and a record after it.
    let home = end(start_in(Home::without_key(), &url, &[], &[]));
    let file = snapshot(&home);
    let inode = || fs::metadata(&file).unwrap().ino();
    let first = inode();
    let node = start_in(home, &url, &[], &[]);
    wait_until(|| inode() != first);
    let token = token_of(node.address, "a");
    assert_eq!(revoke(node.address, "a", &token).status, 200);
    let home = end(node);
    let written = fs::read(&file).unwrap();
    cluster.stop(Stop::Fast);

    let away = "cannot be reached";
    refused(&home, &url, &[("GRANTD_STORE__CACHE", "false")]).assert_error(1, &[away]);
    let other = [("GRANTD_MASTER_KEY", OTHER_MASTER_KEY)];
    let known = [away, "state/snapshot", "is sealed with the master key", "store.master_key_file"];
    refused(&home, &url, &other).assert_error(1, &known);
    let elsewhere = url.replace("/grantd", "/other");
    refused(&home, &elsewhere, &[]).assert_error(1, &["another store", "store.url"]);
    for (changed, says) in [
        (written[..100].to_vec(), "no server can start from it"),
        (b"{}".to_vec(), "no server can start from it"),
    ] {
        fs::write(&file, changed).unwrap();
        refused(&home, &url, &[]).assert_error(1, &[away, "state/snapshot", says]);
        assert!(checked(&home, &url).starts_with("warning: "));
    }
    let mut flipped = written.clone();
    flipped[100] ^= 1;
    fs::write(&file, flipped).unwrap();
    let says =
        "was changed since it was sealed, or belongs elsewhere: delete the file: `serve` writes it";
    refused(&home, &url, &[]).assert_error(1, &[says]);
    fs::remove_file(&file).unwrap();
    refused(&home, &url, &[]).assert_error(1, &[away, "state/snapshot", "No such file"]);
    let target = home.write("target", "precious");
    std::os::unix::fs::symlink(&target, &file).unwrap();
    refused(&home, &url, &[]).assert_error(1, &["symbolic link"]);

    fs::remove_file(&file).unwrap();
    // A machine has lost power in the middle of a write.
    fs::write(&file, &written[..written.len() - 3]).unwrap();
    let cut = "ends in the middle of a record";
    let said = checked(&home, &url);
    assert!(said.starts_with("warning: ") && said.contains(cut), "{said}");
    let node = start_in(home, &url, &[], &[]);
    assert!(is_granted(node.address, "a"));
    assert_eq!(node.log.count(|line| line["message"].to_string().contains(cut)), 1);
}

#[test]
fn an_old_snapshot_serves_secrets_and_vouches_for_no_token() {
    let mut cluster = cluster_with(&[client_json("a", &json!({}))]);
    let url = cluster.url(Role::Node);
    let node = start_in(Home::without_key(), &url, &[], &[]);
    let token = token_of(node.address, "a");
    let home = end(node);
    cluster.stop(Stop::Fast);
    std::thread::sleep(Duration::from_secs(3));
    let node = start_in(home, &url, &[], &[("GRANTD_STORE__MAX_STALENESS", "2")]);
    let (status, text) = readiness(&node);
    assert!(status == 503 && text.contains("store.max_staleness"), "{text}");
    introspect(node.address, "a", &token).assert_refused(503, "temporarily_unavailable");
    assert_eq!(validate(node.address, &token).status, 503);
    assert!(is_granted(node.address, "a"));
    cluster.start_again();
    wait_until_ready(&node);
    assert!(is_active(node.address, "a", &token));
}

/// A database that accepts connections and answers nothing costs a few seconds.
#[test]
fn a_server_starts_while_the_database_hangs() {
    let cluster = cluster_with(&[]);
    cluster.psql(&format!(
        "insert into grantd.client (client_id, entry)
         select 'many' || n, replace($entry${}$entry$, '\"many\"', '\"many' || n || '\"')
         from generate_series(1, 10000) n",
        client_json("many", &json!({}))
    ));
    let url = cluster.url(Role::Node);
    let home = end(start_in(Home::without_key(), &url, &[], &[]));
    cluster.freeze();
    let begin = grantd::clock::Clock::system().instant();
    let node = start_in(home, &url, &[], &[]);
    println!("started after {:?} beside a database that hangs", begin.elapsed());
    assert_eq!(ask(node.address, "many7", &secret_of("many")).status, 200);
    assert!(readiness(&node).1.starts_with("degraded: "));
    cluster.go_on();
    wait_until_ready(&node);
}

/// What listens at the database's address lets the server in and then answers nothing.
#[test]
fn a_server_starts_while_the_database_hangs_after_the_login() {
    let mut cluster = cluster_with(&[client_json("a", &json!({}))]);
    let url = cluster.url(Role::Node);
    let home = end(start_in(Home::without_key(), &url, &[], &[]));
    let epoch = cluster.psql("select epoch from grantd.epoch");
    cluster.stop(Stop::Fast);
    silent_after_login(cluster.port, &epoch);
    let begin = grantd::clock::Clock::system().instant();
    let node = start_in(home, &url, &[], &[]);
    println!("started after {:?} beside a database that hangs after the login", begin.elapsed());
    assert!(is_granted(node.address, "a"));
    wait_until(|| readiness(&node).1.contains("did not answer within"));
}

/// Nothing of what is in the database can be read from the snapshot.
#[test]
fn the_snapshot_shows_nothing() {
    let cluster: Postgres = cluster_with(&[client_json("shown", &json!({}))]);
    let node = start_in(Home::without_key(), &cluster.url(Role::Node), &[], &[]);
    let token = token_of(node.address, "shown");
    assert_eq!(revoke(node.address, "shown", &token).status, 200);
    let home = end(node);
    let mut text = Vec::new();
    fs::File::open(snapshot(&home)).unwrap().read_to_end(&mut text).unwrap();
    let hash = cluster.psql("select entry::json#>>'{secrets,0,hash}' from grantd.client");
    for plain in ["shown", "client_id", &hash, MASTER_KEY, Role::Node.password(), "PRIVATE"] {
        assert!(!text.windows(plain.len()).any(|bytes| bytes == plain.as_bytes()), "{plain}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode_of(&snapshot(&home)));
    assert_eq!(mode & 0o777, 0o600);
}

fn mode_of(file: &Path) -> fs::Permissions {
    fs::metadata(file).unwrap().permissions()
}
