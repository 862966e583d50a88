//! Files that are reloaded while requests are answered.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::command::{run, run_with_input};
use crate::support::home::{hash_of, secret_of, set_mode};
use crate::support::registry::{client_json, client_without_secret, registry_of};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, Signer, StopOnDrop, Token,
    request_of, wait_until,
};

fn client(id: &str, more: impl Into<Value>) -> Value {
    client_json(id, &more.into())
}

fn register(home: &Home, clients: &[Value]) {
    // Replaces the file atomically, as good editors do.
    let written = home.write("clients.json.new", &registry_of(clients));
    fs::rename(written, home.clients()).unwrap();
}

fn start(clients: &[Value]) -> Program {
    let home = Home::new();
    register(&home, clients);
    Program::start(home, &[])
}

/// Waits until the log reports the reload with this generation number. Returns the logged changes.
fn changes(server: &Program, generation: u64) -> String {
    let is_it =
        |line: &Value| line["message"] == "reloaded" && line["generation"] == json!(generation);
    server.log.wait_for(is_it)["changes"].as_str().unwrap().to_owned()
}

fn reload(server: &Program, generation: u64) -> String {
    server.hang_up();
    changes(server, generation)
}

/// Makes the server reload. Returns the fault that the log reports.
fn refusal(server: &Program) -> String {
    server.hang_up();
    let line = server.log.wait_for(|line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("not reloaded"))
    });
    line["fault"].as_str().unwrap().to_owned()
}

fn status(server: &Program, id: &str) -> [u16; 2] {
    ENCODINGS.map(|encoding| {
        server.ask(&Request::token(encoding, &request_of(id, &secret_of(id), &[]))).status
    })
}

#[test]
fn a_changed_registry_is_reloaded_and_its_changes_logged() {
    let server = start(&[client("stays", json!({})), client("goes", json!({}))]);
    assert_eq!(server.metric("grantd_snapshot_generation"), 1);
    let add = [
        "client",
        "add",
        "--clients",
        "clients.json",
        "--id",
        "comes",
        "--secret-stdin",
        "--no-scope",
    ];
    let mut command = server.home.command(&add);
    let added = run_with_input(&mut command, &secret_of("comes"));
    added.assert_fine();
    assert_eq!(changes(&server, 2), "clients added: comes");
    assert_eq!(server.metric("grantd_snapshot_generation"), 2);

    let secrets = json!({ "secrets": [
        { "label": "a", "hash": hash_of(&secret_of("other")) },
        { "label": "b", "hash": hash_of(&secret_of("stays")) },
    ] });
    register(&server.home, &[client("stays", secrets)]);
    let different = "clients removed: comes, goes; clients changed: stays (~a +b)";
    assert_eq!(changes(&server, 3), different);
    assert_eq!(status(&server, "stays"), [200; 2]);
    assert_eq!(status(&server, "goes"), [400; 2]);
    register(&server.home, &[client("stays", json!({ "token_lifetime": 60 }))]);
    assert_eq!(reload(&server, 4), "clients changed: stays (~a -b)");
    register(&server.home, &[client("stays", json!({ "token_lifetime": 61 }))]);
    assert_eq!(reload(&server, 5), "clients changed: stays");
    assert_eq!(server.metric(r#"grantd_reloads_total{outcome="applied"}"#), 4);
}

#[test]
fn a_fault_in_a_file_changes_nothing_and_is_logged_with_its_place() {
    let server = start(&[client("known", json!({}))]);
    let good = fs::read_to_string(server.home.clients()).unwrap();
    for (text, fault) in [
        (&good[..good.len() / 2], "clients.json:1:83: is not valid JSON here: EOF"),
        (
            "{\"clients\":[\n{\"client_id\":\"x\",\"scopes\":3}]}",
            "clients.json:2:27: clients[0].scopes: ",
        ),
        (
            "{\"clients\":[\n{\"client_id\":\"x\",\"hush\":3}]}",
            "clients.json:2:23: clients[0]: unknown field `hush`",
        ),
    ] {
        server.home.write("clients.json", text);
        let said = refusal(&server);
        assert!(said.contains("clients.json"), "{said}");
        server
            .log
            .wait_for(|line| line["fault"].as_str().is_some_and(|said| said.starts_with(fault)));
        assert_eq!(server.metric("grantd_reload_refused"), 1);
        assert_eq!(status(&server, "known"), [200; 2]);
    }
    assert_eq!(server.metric("grantd_snapshot_generation"), 1);
    register(&server.home, &[client("known", json!({})), client("next", json!({}))]);
    assert_eq!(reload(&server, 2), "clients added: next");
    // The server writes the log line before it resets the metric, so the test waits for the metric.
    wait_until(|| server.metric("grantd_reload_refused") == 0);
}

#[test]
fn a_fault_in_a_key_leaves_the_old_keys_in_force() {
    let server = start(&[client("known", json!({}))]);
    let file = fs::read_dir(server.home.keys()).unwrap().next().unwrap().unwrap().path();
    let said = |says: &str| {
        server.hang_up();
        server.log.wait_for(|line| line["fault"].as_str().is_some_and(|it| it.contains(says)));
        assert_eq!(status(&server, "known"), [200; 2]);
    };
    set_mode(&file, 0o644);
    said("can be read by everyone");
    set_mode(&file, 0o600);
    let pem = fs::read(&file).unwrap();
    fs::write(&file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    said("is not an unencrypted PKCS#8");
    fs::remove_file(&file).unwrap();
    said("holds no signing key");
    let keys = Request::get("/.well-known/jwks.json").send(server.address);
    assert_eq!(keys.json()["keys"].as_array().unwrap().len(), 1);
    fs::write(&file, pem).unwrap();
    set_mode(&file, 0o600);
    run(server.home.command(&["key", "generate"])).assert_fine();
    assert!(changes(&server, 2).starts_with("keys added: "));
    let keys = Request::get("/.well-known/jwks.json").send(server.address);
    assert_eq!(keys.json()["keys"].as_array().unwrap().len(), 2);
    assert_eq!(status(&server, "known"), [200; 2]);
}

#[test]
fn settings_are_reloaded_except_those_that_need_a_restart() {
    let server = Program::configured("jwks_max_age = 60\n");
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let elsewhere = request.with_target("/elsewhere");
    assert_eq!(server.ask(&elsewhere).status, 404);
    let toml = "jwks_max_age = 61\nissuer = \"http://localhost:8\"\n\
                [[route]]\npath = \"/elsewhere\"\ndialect = \"connect\"\n\
                [limits]\nbody_bytes = 200\nsigning_queue = 3\nidle_seconds = 70\n";
    server.home.write("grantd.toml", toml);
    assert_eq!(reload(&server, 2), "settings");
    server.log.wait_for(|line| line["settings"] == "limits.idle_seconds, limits.signing_queue");
    let token = server.ask(&elsewhere);
    assert_eq!(token.status, 200);
    assert_eq!(Token::verified(&token, server.address).claims["iss"], "http://localhost:8");
    let long = Request::token(Encoding::Urlencoded, &[("client_id", "x".repeat(200))]);
    server.ask(&long).assert_refused(413, "invalid_request");
    let keys = Request::get("/.well-known/jwks.json").send(server.address);
    assert_eq!(keys.header("cache-control"), Some("public, max-age=61"));

    server.home.write("grantd.toml", "jwks_max_age = never\n");
    assert!(refusal(&server).starts_with("grantd.toml:1:16: "));
    assert_eq!(server.ask(&elsewhere).status, 200);
}

#[test]
fn a_reload_in_public_refuses_the_demo_clients() {
    let home = Home::new();
    let shipped = fs::read_to_string(home.clients()).unwrap();
    register(&home, &[client("known", json!({}))]);
    let server = Program::start(home, &["--issuer", "https://auth.example"]);
    server.home.write("clients.json", &shipped);
    assert!(refusal(&server).starts_with("the demo clients"));
    assert_eq!(status(&server, "known"), [200; 2]);
}

#[test]
fn a_reload_keeps_budgets_reusable_tokens_and_counts_of_unchanged_clients() {
    let limit = json!({ "rate_limit": { "requests": 2, "seconds": 3600 } });
    let reuse = json!({ "token_reuse": 600 });
    let clients = [client("limited", limit), client("reuser", reuse)];
    let server = start(&clients);
    let token = || {
        let secret = secret_of("reuser");
        let request = request_of("reuser", &secret, &[]);
        let answer = server.ask(&Request::token(Encoding::Multipart, &request));
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(&server, "limited"), [200; 2]);
    let first = token();
    register(&server.home, &[&clients[..], &[client("new", json!({}))]].concat());
    assert_eq!(reload(&server, 2), "clients added: new");
    assert_eq!(status(&server, "limited"), [429; 2]);
    assert_eq!(token(), first);
    let uses = r#"grantd_secret_uses_total{client="reuser",label="a"}"#;
    assert_eq!(server.metric(uses), 2);

    let limit = json!({ "rate_limit": { "requests": 3, "seconds": 3600 } });
    let reuse = json!({ "token_reuse": 600, "not_before": 2 });
    register(&server.home, &[client("limited", limit), client("reuser", reuse)]);
    assert_eq!(reload(&server, 3), "clients removed: new; clients changed: limited, reuser");
    assert_eq!(status(&server, "limited"), [200; 2]);
    assert_ne!(token(), first);
}

#[test]
fn a_thousand_signals_under_load_fail_no_request() {
    let server = start(&[client("known", json!({}))]);
    let is_over = AtomicBool::new(false);
    let request =
        Request::token(Encoding::Urlencoded, &request_of("known", &secret_of("known"), &[]));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut connection = Connection::open(server.address);
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(connection.ask(&request).status, 200);
                asked += 1;
            }
            asked
        });
        let stop = StopOnDrop(&is_over);
        for round in 0..10 {
            let lifetime = json!({ "token_lifetime": 100 + round });
            register(&server.home, &[client("known", lifetime)]);
            // Signals that arrive while the server is stopped are merged into one.
            server.stop();
            (0..100).for_each(|_| server.hang_up());
            server.go_on();
        }
        // Waits for the reload that follows the last change of the registry.
        wait_until(|| server.ask(&request).json()["expires_in"] == 109);
        drop(stop);
        assert!(asking.join().unwrap() > 0);
    });
    let reloads = || {
        let outcomes = ["applied", "unchanged"];
        let count = |it| server.metric(&format!("grantd_reloads_total{{outcome=\"{it}\"}}"));
        outcomes.map(count).iter().sum::<u64>()
    };
    // A reload is counted after it has taken effect, and all signals may be merged into one.
    wait_until(|| reloads() > 0);
    assert!(reloads() <= 40, "{}", reloads());
    assert_eq!(server.metric("grantd_reload_refused"), 0, "a file was read half-written");
}

#[test]
fn reloads_leak_no_memory() {
    let clients: Vec<_> = (0..2000).map(|id| client(&format!("c{id}"), json!({}))).collect();
    let server = start(&clients);
    let mut generation = 1;
    let mut reload_many = |times: u64| {
        for _ in 0..times {
            generation += 1;
            let lifetime = json!({ "token_lifetime": generation });
            register(&server.home, &[&clients[..], &[client("last", lifetime)]].concat());
            reload(&server, generation);
        }
        server.resident_kib()
    };
    let before = reload_many(10);
    let after = reload_many(60);
    // A registry of this size takes about 1.5 MB. If the server never freed replaced registries, 60
    // reloads would take 90 MB.
    assert!(after < before + 20_000, "{before} KiB have become {after}");
}

/// The server reloads a client's key file when the file changes, as it reloads the registry. While
/// the key file has a fault, the old keys stay in force.
#[test]
fn a_changed_client_key_file_is_reloaded() {
    let [old, new] = [Signer::es256(), Signer::eddsa()];
    let home = Home::new();
    let by_key = |id: &str| {
        let members = json!({ "auth_methods": ["private_key_jwt"], "jwks": "keys/../c.json" });
        client_without_secret(id, &members)
    };
    // Two clients may name the same file.
    register(&home, &[by_key("c"), by_key("d"), client("a", json!({}))]);
    home.write("c.json", &old.jwks().to_string());
    let server = Program::start(home, &[]);
    let status = |signer: &Signer, id: &str| {
        let now = Clock::unix_micros() / 1_000_000;
        let claims = json!({ "iss": id, "sub": id, "aud": server.issuer, "iat": now,
                             "exp": now + 60, "jti": format!("{:?}", Clock::system().instant()) });
        let header = json!({ "alg": signer.algorithm, "typ": "JWT" });
        let assertion = signer.sign(&header, &claims);
        let jwt_bearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", jwt_bearer),
            ("client_assertion", &assertion),
        ];
        server.ask(&Request::token(Encoding::Urlencoded, &form)).status
    };
    // The server refuses an assertion that was signed before the start or in the same second as the
    // start, so the test waits.
    wait_until(|| status(&old, "c") == 200);
    assert_eq!(status(&new, "c"), 400);

    server.home.write("c.json", &new.jwks().to_string());
    let changed = changes(&server, 2);
    assert!(changed.contains('c') && changed.contains('d'), "{changed}");
    assert_eq!([status(&new, "c"), status(&new, "d"), status(&old, "c")], [200, 200, 400]);

    server.home.write("c.json", "{");
    let line = server.log.wait_for(|line| line["fault"].is_string());
    assert!(line["fault"].as_str().unwrap().contains("c.json:1"), "{line}");
    assert_eq!(status(&new, "c"), 200);
    server.home.write("c.json", &old.jwks().to_string());
    changes(&server, 3);
    assert_eq!([status(&old, "c"), status(&new, "c")], [200, 400]);
    // A key file is watched as soon as the registry names it.
    let mut moved = by_key("c");
    moved["jwks"] = "other.json".into();
    server.home.write("other.json", &old.jwks().to_string());
    register(&server.home, &[moved, client("a", json!({}))]);
    changes(&server, 4);
    server.home.write("other.json", &new.jwks().to_string());
    changes(&server, 5);
    assert_eq!([status(&new, "c"), status(&old, "c")], [200, 400]);
    // The log has one line for each of the five changes.
    assert_eq!(server.log.count(|line| line["reason"] == "a file has changed"), 5);
}
