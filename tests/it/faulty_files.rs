//! A reload judges each file by itself: a file with a fault keeps its previous version in force, and
//! the other files take effect.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::command::{Ended, run};
use crate::support::home::{hash_of, secret_of, set_mode, signing_key};
use crate::support::registry::{client_json, client_without_secret, registry_of};
use crate::support::{
    DEMO, Encoding, Home, Program, Request, Signer, StopOnDrop, Token, request_of, wait_until,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn client(id: &str, more: impl Into<Value>) -> Value {
    client_json(id, &more.into())
}

fn by_key(id: &str) -> Value {
    let members = json!({ "auth_methods": ["private_key_jwt"], "jwks": "jwks.json" });
    client_without_secret(id, &members)
}

fn clients() -> Vec<Value> {
    let named = ["known", "disabled", "removed", "rotated"].map(|id| client(id, json!({})));
    let two = json!({ "secrets": [
        { "label": "a", "hash": hash_of(&secret_of("expired")) },
        { "label": "b", "hash": hash_of(&secret_of("other")) },
    ] });
    [&named[..], &[client("expired", two), by_key("by-key")]].concat()
}

fn register(home: &Home, clients: &[Value]) {
    let written = home.write("clients.json.new", &registry_of(clients));
    fs::rename(written, home.clients()).unwrap();
}

/// A server with one file of each kind.
fn start() -> Program {
    let home = Home::new();
    register(&home, &clients());
    home.write("jwks.json", &Signer::es256().jwks().to_string());
    home.write("grantd.toml", "admin_token_file = \"token\"\n");
    set_mode(&home.write("token", TOKEN), 0o600);
    Program::start(home, &["--config", "grantd.toml"])
}

/// Returns the text of `/readyz`, of a server that is ready.
pub(crate) fn readiness(server: &Program) -> String {
    let (status, text) = server.readiness();
    assert_eq!(status, 200);
    text
}

/// Waits until `/readyz` names the file.
fn wait_for_fault(server: &Program, file: &str) {
    wait_until(|| readiness(server).starts_with(&format!("degraded: {file}")));
    assert_eq!(server.metric("grantd_reload_refused"), 1);
}

fn wait_until_mended(server: &Program) {
    wait_until(|| readiness(server) == "ok\n");
    wait_until(|| server.metric("grantd_reload_refused") == 0);
}

fn status(server: &Program, id: &str) -> u16 {
    let secret = secret_of(id);
    server.ask(&Request::token(Encoding::Urlencoded, &request_of(id, &secret, &[]))).status
}

fn key_ids(server: &Program) -> Vec<String> {
    let keys = Request::get("/.well-known/jwks.json").send(server.address).json();
    let mut ids: Vec<_> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

fn key_file(home: &Home) -> PathBuf {
    home.keys().join(&signing_key().0)
}

/// Each kind of file, its name in `/readyz`, and a text that is a fault in it.
fn kinds(home: &Home) -> [(PathBuf, String, &'static str); 4] {
    [
        (key_file(home), format!("keys/{}", signing_key().0), "no key"),
        (home.path("grantd.toml"), "grantd.toml:1:".to_owned(), "jwks_max_age = never\n"),
        (home.path("token"), "admin_token_file: token: must hold one line".to_owned(), "short"),
        (home.path("jwks.json"), "jwks.json:1:".to_owned(), "{"),
    ]
}

#[test]
fn a_fault_in_one_file_does_not_hold_up_the_registry() {
    let server = start();
    for (number, (file, name, fault)) in kinds(&server.home).into_iter().enumerate() {
        let good = fs::read(&file).unwrap();
        let generation = server.metric("grantd_snapshot_generation");
        fs::write(&file, fault).unwrap();
        wait_for_fault(&server, &name);
        assert_eq!(server.metric("grantd_snapshot_generation"), generation, "{name}");
        // The server notices the change of the registry without a signal.
        let id = format!("new-{number}");
        register(&server.home, &[clients(), vec![client(&id, json!({}))]].concat());
        wait_until(|| status(&server, &id) == 200);
        wait_for_fault(&server, &name);
        assert_eq!(status(&server, "known"), 200, "{name}");
        assert_eq!(key_ids(&server).len(), 1, "{name}");
        let generation = server.metric("grantd_snapshot_generation");
        // The file is mended to the very version in force: the fault is gone, and nothing changes.
        fs::write(&file, good).unwrap();
        wait_until_mended(&server);
        assert_eq!(server.metric("grantd_snapshot_generation"), generation, "{name}");
    }
}

#[test]
fn a_fault_in_the_registry_does_not_hold_up_the_keys() {
    let server = start();
    fs::write(server.home.clients(), "{\"clients\": [\n{\"client_id\": \"a\", \"b\": 1}]}")
        .unwrap();
    wait_for_fault(&server, "clients.json:2:22: clients[0]: unknown field `b`");
    let made = run(server
        .home
        .command(&["key", "rotate", "--now", "--admin"])
        .arg(server.admin.to_string()))
    .json();
    let token = server
        .ask(&Request::token(Encoding::Urlencoded, &request_of("known", &secret_of("known"), &[])));
    assert_eq!(Token::verified(&token, server.address).header["kid"], made["kid"]);
    wait_for_fault(&server, "clients.json:2:22");
    register(&server.home, &clients());
    wait_until_mended(&server);
}

#[test]
fn a_faulty_key_file_keeps_its_key_and_a_deleted_one_takes_its_key_away() {
    let server = start();
    let first = key_ids(&server);
    run(server.home.command(&["key", "generate"])).assert_fine();
    wait_until(|| key_ids(&server).len() == 2);
    // The second file has a fault. The first one is deleted.
    let both = key_ids(&server);
    let second = both.iter().find(|id| **id != first[0]).unwrap();
    let second_file = server.home.keys().join(format!("{second}.pem"));
    let good = fs::read(&second_file).unwrap();
    set_mode(&second_file, 0o644);
    wait_for_fault(&server, &format!("keys/{second}.pem: can be read by everyone"));
    assert_eq!(key_ids(&server), both);
    fs::remove_file(key_file(&server.home)).unwrap();
    wait_until(|| key_ids(&server) == [second.clone()]);
    wait_for_fault(&server, &format!("keys/{second}.pem"));
    // Without any key file, all keys stay, and the other files take effect.
    fs::remove_file(&second_file).unwrap();
    wait_for_fault(&server, "keys: holds no signing key");
    assert_eq!(key_ids(&server), [&**second]);
    register(&server.home, &[clients(), vec![client("new", json!({}))]].concat());
    wait_until(|| status(&server, "new") == 200);
    // The keys come back, as with a mount that comes late.
    fs::write(&second_file, good).unwrap();
    set_mode(&second_file, 0o600);
    wait_until_mended(&server);
    assert_eq!(key_ids(&server), [&**second]);
}

#[test]
fn what_must_not_stand_together_changes_nothing() {
    let home = Home::new();
    let shipped = fs::read_to_string(home.clients()).unwrap();
    register(&home, &[client("known", json!({}))]);
    home.write("grantd.toml", "issuer = \"https://auth.example\"\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    run(server.home.command(&["key", "generate"])).assert_fine();
    wait_until(|| key_ids(&server).len() == 2);
    let keys = key_ids(&server);
    // The demo clients, which may not be served in public, come together with a deleted key and a
    // changed setting.
    server.stop();
    server.home.write("clients.json", &shipped);
    let toml = "issuer = \"https://auth.example\"\njwks_max_age = 61\n";
    server.home.write("grantd.toml", toml);
    fs::remove_file(key_file(&server.home)).unwrap();
    server.go_on();
    wait_for_fault(&server, "the demo clients");
    assert_eq!(key_ids(&server), keys);
    assert_eq!((status(&server, "known"), status(&server, "demo-client")), (200, 400));
    // Once the registry is mended, all three take effect.
    register(&server.home, &[client("known", json!({})), client("next", json!({}))]);
    wait_until_mended(&server);
    assert_eq!(key_ids(&server).len(), 1);
    assert_eq!(status(&server, "next"), 200);
    let jwks = Request::get("/.well-known/jwks.json").send(server.address);
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=61"));
}

#[test]
fn a_start_and_check_report_the_faults_of_all_files_and_of_their_combination() {
    let server = start();
    let home = Home::new();
    register(&home, &clients());
    for (file, _, fault) in kinds(&server.home) {
        let name = file.strip_prefix(server.home.clients().parent().unwrap()).unwrap();
        home.write(name.to_str().unwrap(), fault);
    }
    home.write("grantd.toml", "admin_token_file = \"token\"\n");
    set_mode(&home.path("token"), 0o600);
    set_mode(&key_file(&home), 0o600);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let name = format!("keys/{}: ", signing_key().0);
    let says = ["jwks.json:1:", &*name, "token: must hold one line"];
    for command in [&serve[..], &["check"]] {
        run(home.command(command).args(["--config", "grantd.toml"])).assert_error(1, &says);
    }
    // Faults that only the combination of settings and clients has.
    let home = Home::new();
    home.write(
        "grantd.toml",
        "issuer = \"https://auth.example\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
    );
    let by_name = json!({ "auth_methods": ["tls_client_auth"], "tls_client_auth_san_dns": "a" });
    let demo: Value = serde_json::from_str(&fs::read_to_string(home.clients()).unwrap()).unwrap();
    let demo = demo["clients"].as_array().unwrap().clone();
    register(&home, &[demo, vec![client_without_secret("named", &by_name)]].concat());
    let says = ["the demo clients (demo-client", "some clients need a certificate (named)"];
    for command in [&serve[..], &["check"]] {
        run(home.command(command).args(["--config", "grantd.toml"])).assert_error(1, &says);
    }
}

/// The commands that wait until their change is in force.
const CHANGES: [&[&str]; 4] = [
    &["client", "disable", "--id", "disabled"],
    &["client", "remove", "--id", "removed"],
    &["client", "expire-secret", "--id", "expired", "--label", "a"],
    &["client", "rotate-secret", "--id", "rotated"],
];

#[test]
fn a_change_is_in_force_in_spite_of_a_fault_in_another_file() {
    std::thread::scope(|scope| {
        for kind in 0..4 {
            scope.spawn(move || {
                let server = start();
                let admin = server.admin.to_string();
                let (file, name, fault) = kinds(&server.home)[kind].clone();
                fs::write(file, fault).unwrap();
                wait_for_fault(&server, &name);
                for change in CHANGES {
                    assert_eq!(status(&server, change[3]), 200, "{change:?}");
                    let clients = ["--clients", "clients.json", "--admin", &admin];
                    let ended = run(server.home.command(change).args(clients));
                    let printed = ended.assert_fine();
                    match change[1] {
                        "rotate-secret" => {
                            let new: Value = serde_json::from_str(printed).unwrap();
                            let secret = new["client_secret"].as_str().unwrap();
                            let request = request_of("rotated", secret, &[]);
                            let request = Request::token(Encoding::Urlencoded, &request);
                            assert_eq!(server.ask(&request).status, 200);
                        }
                        _ => assert_eq!(status(&server, change[3]), 400, "{change:?}"),
                    }
                }
                let rotate = ["key", "rotate", "--now", "--keys", "keys", "--admin", &admin];
                let made = run(server.home.command(&rotate)).json();
                assert_eq!(key_ids(&server), [made["kid"].as_str().unwrap()]);
            });
        }
    });
}

#[test]
fn a_change_is_reported_if_its_own_file_has_a_fault_or_the_result_must_not_stand() {
    std::thread::scope(|scope| {
        for change in CHANGES {
            scope.spawn(move || {
                let server = start();
                let admin = server.admin.to_string();
                // The server reads this registry. The command changes a good copy of it.
                fs::copy(server.home.clients(), server.home.path("copy.json")).unwrap();
                fs::write(server.home.clients(), "{").unwrap();
                wait_for_fault(&server, "clients.json:1:");
                let clients = ["--clients", "copy.json", "--admin", &admin];
                let ended = run(server.home.command(change).args(clients));
                let says = format!("written, not in force: client {}: ", change[3]);
                assert_says(&ended, &[&says, "degraded: clients.json:1:"]);
            });
        }
        for change in CHANGES {
            scope.spawn(move || {
                let home = Home::new();
                home.write("grantd.toml", "issuer = \"https://auth.example\"\n");
                register(&home, &clients());
                home.write("jwks.json", &Signer::es256().jwks().to_string());
                let server = Program::start(home, &["--config", "grantd.toml"]);
                let admin = server.admin.to_string();
                // A client with a demo secret must not be served in public.
                let demo = client(
                    "demo",
                    json!({ "secrets": [
                    { "label": "a", "hash": hash_of(DEMO[1].1) },
                ] }),
                );
                register(&server.home, &[clients(), vec![demo]].concat());
                wait_for_fault(&server, "the demo clients");
                let ended = run(server.home.command(change).args(["--admin", &admin]));
                let says = format!("written, not in force: client {}: ", change[3]);
                assert_says(&ended, &[&says, "degraded: the demo clients"]);
            });
        }
    });
}

#[track_caller]
fn assert_says(ended: &Ended, says: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(says.iter().all(|says| ended.stderr.contains(says)), "{ended:?}");
}

/// Returns the status of a token request of `id` with an assertion by `signer`.
fn assertion_status(server: &Program, id: &str, signer: &Signer) -> u16 {
    let now = Clock::unix_micros() / 1_000_000;
    let claims = json!({ "iss": id, "sub": id, "aud": server.issuer, "iat": now, "exp": now + 60,
                         "jti": format!("{:?}", Clock::system().instant()) });
    let assertion = signer.sign(&json!({ "alg": signer.algorithm, "typ": "JWT" }), &claims);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &*assertion),
    ];
    server.ask(&Request::token(Encoding::Urlencoded, &form)).status
}

#[test]
fn the_key_file_of_a_client_is_judged_apart_from_the_registry() {
    let [leaked, fresh] = [Signer::es256(), Signer::eddsa()];
    let home = Home::new();
    let inline = json!({ "auth_methods": ["private_key_jwt"], "jwks": leaked.jwks() });
    let inline = |id: &str| client_without_secret(id, &inline);
    let all = [&clients()[..], &[inline("inline")]].concat();
    register(&home, &all);
    home.write("jwks.json", &leaked.jwks().to_string());
    let server = Program::start(home, &[]);
    wait_until(|| assertion_status(&server, "by-key", &leaked) == 200);
    assert_eq!(assertion_status(&server, "inline", &leaked), 200);
    // While the registry has a fault, a leaked key is taken out of a client's key file.
    fs::write(server.home.clients(), "{").unwrap();
    wait_for_fault(&server, "clients.json:1:");
    server.home.write("jwks.json", &fresh.jwks().to_string());
    wait_until(|| assertion_status(&server, "by-key", &fresh) == 200);
    assert_eq!(assertion_status(&server, "by-key", &leaked), 400);
    // A client that names another key file, which has a fault, keeps no keys. A new client with
    // such a file has none, and neither holds up the others.
    let elsewhere = |id: &str| {
        let members = json!({ "auth_methods": ["private_key_jwt"], "jwks": "none.json" });
        client_without_secret(id, &members)
    };
    register(&server.home, &[clients(), vec![elsewhere("inline"), elsewhere("new")]].concat());
    wait_for_fault(&server, "clients.json:");
    wait_until(|| assertion_status(&server, "inline", &leaked) == 400);
    assert_eq!(assertion_status(&server, "by-key", &fresh), 200);
    server.home.write("none.json", &fresh.jwks().to_string());
    wait_until_mended(&server);
    assert_eq!(["inline", "new"].map(|id| assertion_status(&server, id, &fresh)), [200; 2]);
}

#[test]
fn a_pipe_in_place_of_a_key_file_is_a_fault_and_blocks_nothing() {
    let server = start();
    for (file, name) in [
        (server.home.path("jwks.json"), "clients.json:".to_owned()),
        (server.home.keys().join("pipe.pem"), "keys/pipe.pem: is not a regular file".to_owned()),
    ] {
        let good = fs::read(&file).ok();
        let _ = fs::remove_file(&file);
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        wait_for_fault(&server, &name);
        register(&server.home, &[clients(), vec![client(&name, json!({}))]].concat());
        wait_until(|| status(&server, &name) == 200);
        fs::remove_file(&file).unwrap();
        good.into_iter().for_each(|good| fs::write(&file, good).unwrap());
        wait_until_mended(&server);
    }
}

#[test]
fn a_file_that_never_rests_does_not_hold_up_the_others() {
    let server = start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                server.home.write("keys/some.log", &"x".repeat(number % 100));
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let _stop = StopOnDrop(&is_over);
        register(&server.home, &[clients(), vec![client("new", json!({}))]].concat());
        wait_until(|| status(&server, "new") == 200);
    });
}

#[test]
fn settings_and_the_files_that_they_name_take_effect_together() {
    let server = start();
    let toml = "admin_token_file = \"token\"\njwks_max_age = 61\nclients = \"other.json\"\n";
    let age = || {
        let jwks = Request::get("/.well-known/jwks.json").send(server.address);
        jwks.header("cache-control").map(str::to_owned)
    };
    let common = "admin_token_file = \"token\"\njwks_max_age = 61\n";
    for toml in [
        toml.to_owned(),
        format!("{common}keys = \"none\"\n"),
        common.replace("\"token\"", "\"none\""),
    ] {
        server.home.write("grantd.toml", &toml);
        wait_until(|| readiness(&server).contains("the settings stay as they are, because a file"));
        assert_eq!(age().as_deref(), Some("public, max-age=300"), "{toml}");
        server.home.write("grantd.toml", "admin_token_file = \"token\"\n");
        wait_until_mended(&server);
    }
    // An editor has truncated the file: the defaults are not meant.
    server.home.write("grantd.toml", "");
    wait_for_fault(&server, "grantd.toml: is empty");
    // Once the file is there, both take effect.
    server.home.write("grantd.toml", toml);
    server.home.write("other.json", &registry_of(&[client("other", json!({}))]));
    wait_until(|| age().as_deref() == Some("public, max-age=61"));
    wait_until_mended(&server);
    assert_eq!((status(&server, "other"), status(&server, "known")), (200, 400));
}
