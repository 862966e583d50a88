//! Several servers with one store.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use grantd::clock::Clock;
use serde_json::{Value, json};

use super::store::{MASTER_KEY, migrated};
use crate::support::home::{hash_of, secret_of, set_mode};
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role, Stop};
use crate::support::registry::{client_json, client_with_hash, client_without_secret};
use crate::support::status::{
    ISSUER, assert_revoked, introspect, is_active, revoke, token_of, validate,
};
use crate::support::{Encoding, Home, Program, Request, Response, Signer, request_of, wait_until};

/// Returns a cluster with the schema and these clients.
pub(crate) fn cluster_with(clients: &[Value]) -> Postgres {
    let (cluster, _) = migrated();
    clients.iter().for_each(|client| put(&cluster, client));
    cluster
}

/// Registers a client, or changes it.
pub(crate) fn put(cluster: &Postgres, client: &Value) {
    let id = client["client_id"].as_str().unwrap();
    put_text(cluster, id, &client.to_string());
}

pub(crate) fn put_text(cluster: &Postgres, id: &str, entry: &str) {
    cluster.psql(&format!(
        "insert into grantd.client (client_id, entry) values ('{id}', $entry${entry}$entry$)
         on conflict (client_id) do update set entry = excluded.entry"
    ));
}

pub(crate) fn start(url: &str, more: &[&str], variables: &[(&str, &str)]) -> Program {
    start_in(Home::without_key(), url, more, variables)
}

/// Starts a server in `home`.
pub(crate) fn start_in(
    home: Home,
    url: &str,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Program {
    // While a change is waited for, the old secret is refused many times.
    let own = [
        ("GRANTD_STORE_URL", url),
        ("GRANTD_MASTER_KEY", MASTER_KEY),
        ("GRANTD_FAILURES__CLIENT_FAILURES", "100000"),
        ("GRANTD_FAILURES__SOURCE_FAILURES", "100000"),
    ];
    let arguments = [&["--issuer", ISSUER, "--allow-demo-clients"], more].concat();
    Program::start_with(home, &arguments, &[&own[..], variables].concat())
}

/// Starts three servers at the same time.
pub(crate) fn three(url: &str) -> [Program; 3] {
    thread::scope(|scope| {
        let starts = [(); 3].map(|()| scope.spawn(|| start(url, &[], &[])));
        starts.map(|start| start.join().unwrap())
    })
}

pub(crate) fn ask(address: SocketAddr, client: &str, secret: &str) -> Response {
    Request::token(Encoding::Urlencoded, &request_of(client, secret, &[])).send(address)
}

pub(crate) fn readiness(program: &Program) -> (u16, String) {
    let response = Request::get("/readyz").send(program.admin);
    (response.status, response.text().to_owned())
}

pub(crate) fn wait_until_ready(program: &Program) {
    wait_until(|| readiness(program) == (200, "ok\n".to_owned()));
}

/// Changes clients and revokes a token, and waits until every server of `nodes` acts on it.
fn assert_changes_reach_all(cluster: &Postgres, nodes: &[Program], name: &str) {
    let secret = secret_of(name);
    let status = |secret: &str| {
        let answers = nodes.iter().map(|node| ask(node.address, name, secret).status);
        answers.collect::<Vec<_>>()
    };
    assert!(status(&secret).iter().all(|status| *status == 400));
    put(cluster, &client_json(name, &json!({})));
    wait_until(|| status(&secret).iter().all(|status| *status == 200));
    for (revoking, node) in nodes.iter().enumerate() {
        let token = token_of(node.address, name);
        assert!(nodes.iter().all(|node| is_active(node.address, name, &token)));
        assert_revoked(&revoke(node.address, name, &token));
        assert!(!is_active(node.address, name, &token), "{revoking}");
        wait_until(|| nodes.iter().all(|node| !is_active(node.address, name, &token)));
    }
    let new = format!("{secret}.new");
    put(cluster, &client_with_hash(name, &hash_of(&new)));
    wait_until(|| status(&new).iter().all(|status| *status == 200));
    assert!(status(&secret).iter().all(|status| *status == 400));
    put(cluster, &client_json(name, &json!({ "enabled": false })));
    wait_until(|| status(&secret).iter().all(|status| *status == 400));
    cluster.psql(&format!("delete from grantd.client where client_id = '{name}'"));
}

/// Begins a transaction that has written a client and stays open.
pub(super) fn begin(cluster: &Postgres, client: &Value) -> Session {
    let mut session = Session::open(cluster);
    let id = client["client_id"].as_str().unwrap();
    session.run(&format!(
        "begin; savepoint s; insert into grantd.client (client_id, entry)
         values ('{id}', $entry${client}$entry$)"
    ));
    session
}

#[test]
fn what_changes_is_in_force_on_every_server() {
    let cluster = cluster_with(&[]);
    let nodes = three(&cluster.url(Role::Node));
    let key_set = |node: &Program| Request::get("/.well-known/jwks.json").send(node.address).json();
    let first = key_set(&nodes[0]);
    assert_eq!(first["keys"].as_array().unwrap().len(), 1, "{first}");
    assert!(nodes.iter().all(|node| key_set(node) == first), "one of them made the first key");

    assert_changes_reach_all(&cluster, &nodes, "direct");
    let late = client_json("late", &json!({}));
    let mut open = begin(&cluster, &late);
    assert_changes_reach_all(&cluster, &nodes, "beside");
    let secret = secret_of("late");
    let are = |status| nodes.iter().all(|node| ask(node.address, "late", &secret).status == status);
    assert!(are(400));
    open.run("commit");
    wait_until(|| are(200));
    // After the crash of a process of the database, transaction ids repeat.
    cluster.kill_one_process();
    assert_changes_reach_all(&cluster, &nodes, "after");
    nodes.iter().for_each(wait_until_ready);
    cluster.psql("truncate grantd.client");
    wait_until(|| are(400));
}

#[test]
fn what_changes_passes_through_pgbouncer() {
    let cluster = cluster_with(&[]);
    let bouncer = PgBouncer::before(&cluster);
    let nodes = three(&bouncer.url(Role::Node));
    let mut open = begin(&cluster, &client_json("late", &json!({})));
    assert_changes_reach_all(&cluster, &nodes, "bounced");
    open.run("commit");
    let secret = secret_of("late");
    wait_until(|| nodes.iter().all(|node| ask(node.address, "late", &secret).status == 200));
}

pub(crate) fn assertion(signer: &Signer, id: &str) -> String {
    let now = Clock::unix_micros() / 1_000_000;
    let claims = json!({
        "iss": "asserting", "sub": "asserting", "aud": ISSUER, "jti": id, "iat": now, "exp": now + 60,
    });
    signer.sign(&json!({ "alg": signer.algorithm, "typ": "JWT" }), &claims)
}

pub(crate) fn present(address: SocketAddr, assertion: &str) -> Response {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    Request::token(Encoding::Urlencoded, &form).send(address)
}

pub(crate) fn asserting(signer: &Signer) -> Value {
    let more = json!({ "auth_methods": ["private_key_jwt"], "jwks": signer.jwks() });
    client_without_secret("asserting", &more)
}

/// Waits until assertions that are signed now are accepted: what was signed up to 10 s after the
/// birth of the record is refused.
pub(crate) fn wait_until_accepted(node: &Program, signer: &Signer) {
    let next = AtomicU64::new(0);
    wait_until(|| {
        let id = format!("first-{}-{}", node.id(), next.fetch_add(1, Ordering::Relaxed));
        let response = present(node.address, &assertion(signer, &id));
        thread::sleep(std::time::Duration::from_millis(200));
        response.status == 200
    });
}

#[test]
fn an_assertion_is_accepted_once_by_all_servers_together() {
    let signer = Signer::es256();
    let cluster = cluster_with(&[asserting(&signer)]);
    let nodes = three(&cluster.url(Role::Node));
    let early = present(nodes[0].address, &assertion(&signer, "early"));
    early.assert_refused(400, "invalid_client");
    wait_until_accepted(&nodes[0], &signer);
    for round in 0..20 {
        let assertion = assertion(&signer, &format!("once-{round}"));
        let answers: Vec<_> = thread::scope(|scope| {
            let asks = nodes.iter().chain(&nodes).map(|node| {
                let assertion = &assertion;
                scope.spawn(move || present(node.address, assertion).status)
            });
            asks.collect::<Vec<_>>().into_iter().map(|ask| ask.join().unwrap()).collect()
        });
        let accepted = answers.iter().filter(|status| **status == 200).count();
        let refused = answers.iter().filter(|status| **status == 400).count();
        assert_eq!((accepted, refused), (1, 5), "{answers:?}");
    }
    // A crash empties the record: what was signed before is refused.
    let before = assertion(&signer, "before");
    assert_eq!(present(nodes[0].address, &before).status, 200);
    cluster.kill_one_process();
    wait_until(|| present(nodes[1].address, &before).status == 400);
    wait_until_accepted(&nodes[2], &signer);
}

#[test]
fn while_the_database_is_away_secrets_are_accepted_and_the_rest_is_asked_to_try_again() {
    let signer = Signer::es256();
    let mut cluster = cluster_with(&[asserting(&signer), client_json("c", &json!({}))]);
    let url = cluster.url(Role::Node);
    let nodes = three(&url);
    wait_until_accepted(&nodes[0], &signer);
    let token = token_of(nodes[0].address, "c");
    let (is_over, granted) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let response = ask(node.address, "c", &secret_of("c"));
                    assert_eq!(response.status, 200, "{}", response.text());
                    granted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        cluster.stop(Stop::Immediate);
        let before = granted.load(Ordering::Relaxed);
        for node in &nodes {
            wait_until(|| node.metric("grantd_store_up ") == 0);
            let (status, text) = readiness(node);
            assert!(status == 200 && text.starts_with("degraded: postgres://"), "{text}");
            assert!(!text.contains(Role::Node.password()), "{text}");
        }
        // More than 200 grants for each second of the age that is waited for.
        let number = AtomicU64::new(0);
        wait_until(|| {
            for node in &nodes {
                let id = format!("away-{}", number.fetch_add(1, Ordering::Relaxed));
                let assertion = assertion(&signer, &id);
                for refused in
                    [revoke(node.address, "c", &token), present(node.address, &assertion)]
                {
                    refused.assert_refused(503, "temporarily_unavailable");
                    assert!(refused.header("retry-after").is_some());
                }
                assert!(is_active(node.address, "c", &token));
            }
            granted.load(Ordering::Relaxed) > before + 800
                && nodes.iter().all(|node| node.metric("grantd_store_age_seconds ") >= 3)
        });
        assert!(number.load(Ordering::Relaxed) >= 15);
        cluster.start_again();
        wait_until(|| revoke(nodes[0].address, "c", &token).status == 200);
        for node in &nodes {
            wait_until(|| !is_active(node.address, "c", &token));
            wait_until_accepted(node, &signer);
            wait_until_ready(node);
            assert_eq!(node.metric("grantd_store_up "), 1);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let epochs = nodes.each_ref().map(|node| node.metric("grantd_store_epoch "));
    assert!(epochs[0] > 0 && epochs == [epochs[0]; 3], "{epochs:?}");
    assert!(nodes.iter().all(|node| node.metric("grantd_store_changes_total ") > 0));
}

#[test]
fn a_database_that_hangs_costs_no_secret_grant() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let token = token_of(node.address, "c");
    cluster.freeze();
    wait_until(|| node.metric("grantd_store_up ") == 0);
    for _ in 0..3 {
        let refused = revoke(node.address, "c", &token);
        refused.assert_refused(503, "temporarily_unavailable");
    }
    assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
    cluster.go_on();
    wait_until(|| revoke(node.address, "c", &token).status == 200);
    wait_until_ready(&node);
}

#[test]
fn a_server_that_is_cut_off_for_long_vouches_for_no_token() {
    let mut cluster = cluster_with(&[client_json("c", &json!({}))]);
    let url = cluster.url(Role::Node);
    let node = start(&url, &[], &[("GRANTD_STORE__MAX_STALENESS", "2")]);
    let token = token_of(node.address, "c");
    assert!(is_active(node.address, "c", &token));
    assert_eq!(validate(node.address, &token).status, 204);
    cluster.stop(Stop::Fast);
    wait_until(|| readiness(&node).0 == 503);
    assert!(readiness(&node).1.contains("store.max_staleness"), "{:?}", readiness(&node));
    introspect(node.address, "c", &token).assert_refused(503, "temporarily_unavailable");
    assert_eq!(validate(node.address, &token).status, 503);
    assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
    let live = Request::get("/livez").send(node.admin);
    assert_eq!(live.status, 200);
    cluster.start_again();
    wait_until_ready(&node);
    assert!(is_active(node.address, "c", &token));
    assert_eq!(validate(node.address, &token).status, 204);
}

#[test]
fn what_cannot_be_used_leaves_the_previous_version_in_force() {
    let cluster = cluster_with(&[client_json("c", &json!({})), client_json("d", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let is_granted = |client: &str| ask(node.address, client, &secret_of(client)).status == 200;
    let bad = [
        "",
        "{",
        "[]",
        "{\"client_id\": \"c\", \"hunter\": 2}",
        "{\"client_id\": \"d\"}",
        "{\"client_id\": \"c\", \"secrets\": \"hunter2\"}",
        "{\"client_id\": \"c\", \"jwks\": \"/etc/passwd\"}",
    ];
    for entry in bad {
        put_text(&cluster, "c", entry);
        wait_until(|| readiness(&node).1.starts_with("degraded: "));
        let (status, text) = readiness(&node);
        assert!(
            status == 200 && text.contains("client c: ") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(is_granted("c") && is_granted("d"), "{entry}");
        // Other changes are in force all the same.
        let name = format!("new{}", entry.len());
        put(&cluster, &client_json(&name, &json!({})));
        wait_until(|| is_granted(&name));
        put(&cluster, &client_json("c", &json!({})));
        wait_until_ready(&node);
    }
    // A server that starts meanwhile serves the other clients.
    put_text(&cluster, "c", "{");
    let later = start(&cluster.url(Role::Node), &[], &[]);
    assert_eq!(ask(later.address, "d", &secret_of("d")).status, 200);
    assert_eq!(ask(later.address, "c", &secret_of("c")).status, 400);
    assert!(readiness(&later).1.contains("client c: "));
    put(&cluster, &client_json("c", &json!({})));
    wait_until(|| ask(later.address, "c", &secret_of("c")).status == 200);
    wait_until_ready(&later);

    let key = cluster.psql("select encode(document, 'hex') from grantd.signing_key");
    let set = |document: &str| {
        cluster.psql(&format!("update grantd.signing_key set document = '\\x{document}'"));
    };
    for document in ["", "00", &key[..key.len() - 2], &key.replacen("0", "1", 30)] {
        set(document);
        wait_until(|| readiness(&node).1.contains("the previous version of this one, if any"));
        assert!(is_granted("c"));
        set(&key);
        wait_until_ready(&node);
    }
    let row = "insert into grantd.changes (kind, name) values";
    cluster.psql(&format!("{row} ('r', 'zz'), ('o', '0'), ('', ''), ('later', 'x'), ('k', '')"));
    put(&cluster, &client_json("last", &json!({})));
    wait_until(|| is_granted("last"));
    wait_until_ready(&node);
}

/// Something else listens where the database was.
#[test]
fn a_server_survives_what_only_claims_to_be_the_database() {
    let mut cluster = cluster_with(&[client_json("c", &json!({}))]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    let answers: [&[u8]; 6] = [
        b"",
        b"N",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IT\0\0\0\x06\xff\xff",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05ID\x7f\xff\xff\xff",
        &[0; 5000],
    ];
    for answer in answers {
        cluster.stop(Stop::Fast);
        let impostor = TcpListener::bind(("127.0.0.1", cluster.port)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..4 {
                    let (mut connection, _) = impostor.accept().unwrap();
                    let _ = connection.read(&mut [0; 1000]);
                    let _ = connection.write_all(answer);
                }
            });
        });
        drop(impostor);
        let (status, text) = readiness(&node);
        assert!(status == 200 && text.starts_with("degraded: "), "{text}");
        assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
        cluster.start_again();
        wait_until_ready(&node);
    }
}

/// A server does not start with a key that does not open what is sealed.
#[test]
fn a_wrong_master_key_or_none_is_refused_with_what_to_do() {
    let cluster = cluster_with(&[]);
    let url = cluster.url(Role::Node);
    drop(start(&url, &[], &[]));
    let home = Home::without_key();
    let run = |key: Option<&str>| {
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0"]).env("GRANTD_STORE_URL", &url);
        crate::support::command::run(command.envs(key.map(|key| ("GRANTD_MASTER_KEY", key))))
    };
    let other = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    run(Some(other)).assert_error(1, &["is sealed with the master key", "store.master_key_file"]);
    run(None).assert_error(1, &["store.master_key_file", "GRANTD_MASTER_KEY"]);
    let file = home.write("master.key", MASTER_KEY);
    set_mode(&file, 0o600);
    let of_file = [("GRANTD_STORE__MASTER_KEY_FILE", file.to_str().unwrap())];
    let own = [("GRANTD_STORE_URL", &*url)];
    let arguments = ["--issuer", ISSUER, "--keys", "keys"];
    let server = Program::start_with(home, &arguments, &[&own[..], &of_file].concat());
    let is_warning = |text: &str| text.starts_with("--keys: no effect");
    server.log.wait_for(|line| line["message"].as_str().is_some_and(is_warning));
}

/// A name in the database may be anything.
#[test]
fn a_name_in_a_fault_controls_no_terminal() {
    let cluster = cluster_with(&[]);
    let node = start(&cluster.url(Role::Node), &[], &[]);
    cluster.psql(
        "insert into grantd.client (client_id, entry) values (E'a\\n\\x1b[31m', '{');
         insert into grantd.signing_key (key_id, document) values (E'k\\n\\x1b[31m', '')",
    );
    let text = || readiness(&node).1;
    wait_until(|| text().contains("client a  [31m: ") && text().contains("k  [31m: is not sealed"));
    assert!(!text().trim_end().contains(char::is_control));
}
