//! Single changes of clients and keys, put in force in a running server.

use std::fs;
use std::path::Path;

use grantd::config::Config;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_store::StoredKeys;
use grantd::internal::keys::signing_key::SigningKey;
use grantd::internal::registry::client_file;
use grantd::internal::registry::clients::Update;
use grantd::internal::time::UnixTime;
use grantd::random::Random;
use grantd::server::{News, Reloaded};
use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::registry::{client_json, client_with_hash};
use crate::support::{Encoding, Home, Library, Request, Response, Token, request_of};

const NOW: u64 = 1_790_000_000;

/// Starts a server with these clients that serves them in public and writes an audit.
fn start(clients: &[Value], configure: impl FnOnce(&mut Config)) -> Library {
    let home = Home::new();
    home.register(clients);
    let mut config = Library::config(&home);
    config.live.issuer = Some("https://auth.example".parse().unwrap());
    config.live.allow_demo_clients = false;
    config.startup.audit = Some(home.path("audit.log"));
    configure(&mut config);
    Library::start_configured(home, &config, NOW, Random::counting(1))
}

/// Returns the configuration in force.
fn in_force(server: &Library) -> Config {
    let mut config = Library::config(&server.home);
    config.live = server.reloader.settings();
    config
}

fn client(id: &str, changes: impl Into<Value>) -> Value {
    client_json(id, &changes.into())
}

fn put(entry: &Value) -> Update {
    let client = client_file::check_entry(Path::new("registry"), 1, &entry.to_string()).unwrap();
    Update::Put(Box::new(client))
}

fn remove(id: &str) -> Update {
    Update::Remove(id.into())
}

fn apply(server: &Library, clients: Vec<Update>) -> Reloaded {
    server.reloader.apply(News { clients, ..News::default() })
}

fn apply_keys(server: &Library, keys: Vec<SigningKey>) -> Reloaded {
    server.reloader.apply(News { keys: Some(keys), ..News::default() })
}

fn ask(server: &Library, id: &str) -> Response {
    let request = Request::token(Encoding::Urlencoded, &request_of(id, &secret_of(id), &[]));
    request.send(server.address)
}

fn statuses<const N: usize>(server: &Library, ids: [&str; N]) -> [u16; N] {
    ids.map(|id| ask(server, id).status)
}

/// Returns the member `field` of each audit line about `event`.
fn audited(server: &Library, event: &str, field: &str) -> Vec<Value> {
    let text = fs::read_to_string(server.home.path("audit.log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).map(|line| line[field].clone()).collect()
}

/// Waits until the audit has a line about `event` for each of `expected`, in this order.
fn assert_audited(server: &Library, event: &str, field: &str, expected: &[&str]) {
    crate::support::wait_until(|| audited(server, event, field).len() >= expected.len());
    assert_eq!(audited(server, event, field), expected);
}

#[test]
fn changed_clients_are_in_force_at_once_and_the_others_keep_their_state() {
    let limit = json!({ "rate_limit": { "requests": 1, "seconds": 3600 } });
    let limited = client("limited", limit);
    let clients = [client("a", json!({})), client("b", json!({})), limited.clone()];
    let server = start(&clients, |_| {});
    assert_eq!(statuses(&server, ["a", "b", "limited", "new"]), [200, 200, 200, 400]);
    let news = || {
        let off = client("a", json!({ "enabled": false }));
        vec![put(&off), remove("b"), put(&client("new", json!({}))), put(&limited)]
    };
    let reloaded = apply(&server, news());
    assert!(reloaded.is_applied && reloaded.faults.is_empty(), "{reloaded:?}");
    assert_eq!(statuses(&server, ["a", "b", "limited", "new"]), [400, 400, 429, 200]);
    assert_eq!(server.metric("grantd_clients"), Some(3));

    // The same news once more changes nothing.
    let again = apply(&server, news());
    assert!(!again.is_applied && again.faults.is_empty(), "{again:?}");
    assert_eq!(server.metric("grantd_snapshot_generation"), Some(2));
    assert_eq!(server.metric("grantd_reloads_total{outcome=\"applied\"}"), Some(1));
    assert_eq!(server.metric("grantd_reloads_total{outcome=\"unchanged\"}"), None);
    assert!(apply(&server, vec![remove("new")]).is_applied);
    let changes =
        ["clients added: new; clients removed: b; clients changed: a", "clients removed: new"];
    assert_audited(&server, "reloaded", "changes", &changes);
}

#[test]
fn a_client_that_the_settings_bar_is_left_out_alone_until_they_allow_it() {
    let server = start(&[client("demo", json!({}))], |config| {
        config.live.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    // The hash of a secret that everyone knows.
    let hash = "$sha256$mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc";
    let barred = [
        client_with_hash("demo", hash),
        client_with_hash("demo-2", hash),
        client("bound", json!({ "tls_client_certificate_bound_access_tokens": true })),
    ];
    let news = barred.iter().chain(&[client("new", json!({}))]).map(put).collect();
    let reloaded = apply(&server, news);
    assert!(reloaded.is_applied);
    // The previous version of `demo` stays in force.
    assert_eq!(statuses(&server, ["demo", "bound", "new"]), [200, 400, 200]);
    assert_eq!(
        ["grantd_clients", "grantd_reload_refused"].map(|it| server.metric(it)),
        [Some(2), Some(1)]
    );
    let [demo, bound] = &reloaded.faults[..] else { panic!("{reloaded:?}") };
    assert!(demo.contains("the demo clients (demo, demo-2) have") && bound.contains("(bound)"));

    // The fault is reported once, and stays in the meantime.
    let faults = format!("{demo}\n{bound}");
    let again = apply(&server, Vec::new());
    assert_eq!((again.is_applied, &again.faults), (false, &reloaded.faults));
    assert!(apply(&server, vec![remove("new")]).is_applied);
    assert_eq!(server.metric("grantd_reload_refused"), Some(1));
    assert_audited(&server, "reload_refused", "fault", &[&faults]);

    // The next version of a client takes the place of the barred one.
    apply(&server, vec![remove("demo-2"), put(&client("demo", json!({ "token_lifetime": 60 })))]);
    assert_eq!(ask(&server, "demo").json()["expires_in"], 60);

    let mut config = in_force(&server);
    config.live.trusted_proxies.clear();
    server.home.register(&[client("demo", json!({ "token_lifetime": 60 }))]);
    assert!(server.reloader.reload(Ok(config)).faults.is_empty());
    let allowed = apply(&server, Vec::new());
    assert!(allowed.is_applied && allowed.faults.is_empty(), "{allowed:?}");
    assert_eq!(
        ["grantd_clients", "grantd_reload_refused"].map(|it| server.metric(it)),
        [Some(2), Some(0)]
    );
}

#[test]
fn a_fault_of_the_files_stays_reported_while_news_is_applied() {
    let server = start(&[client("a", json!({}))], |_| {});
    assert_eq!(server.reloader.reload(Err("a fault".to_owned())).faults, ["a fault"]);
    assert!(apply(&server, vec![remove("a")]).faults.is_empty());
    assert_eq!(server.metric("grantd_reload_refused"), Some(1));
    assert!(server.reloader.reload(Ok(in_force(&server))).faults.is_empty());
    assert_eq!(server.metric("grantd_reload_refused"), Some(0));
}

#[test]
fn keys_follow_each_other_as_in_a_reload() {
    let server = start(&[client("a", json!({}))], |_| {});
    let directory = |name: &str| KeyDirectory::new(&server.home.path(name));
    let read = |name: &str| -> Vec<_> {
        let keys = StoredKeys::read(&mut directory(name)).all().unwrap();
        keys.into_iter().map(|(_, key)| key).collect()
    };
    let known = || read("keys");
    change::first(&mut directory("other"), 2048, UnixTime(NOW)).unwrap();
    let new = || read("other");
    let [first, second] = [known(), new()].map(|keys| keys[0].key_id().to_owned());
    let signs = || Token::verified(&ask(&server, "a"), server.address).header["kid"].clone();
    let published = || {
        let jwks = Request::get("/.well-known/openid-configuration/jwks").send(server.address);
        let keys = jwks.json()["keys"].as_array().unwrap().clone();
        keys.into_iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    // Every cached key set must contain a key before it signs.
    let both = apply_keys(&server, known().into_iter().chain(new()).collect());
    assert!(both.is_applied && both.faults.is_empty(), "{both:?}");
    assert_eq!((signs(), published().len()), (json!(first), 2));
    assert!(!apply_keys(&server, known().into_iter().chain(new()).collect()).is_applied);
    // Changed clients leave the keys alone.
    assert!(apply(&server, vec![put(&client("b", json!({})))]).is_applied);
    assert_eq!((signs(), published().len()), (json!(first), 2));

    let none = apply_keys(&server, Vec::new());
    assert!(!none.is_applied && none.faults[0].contains("no signing key"), "{none:?}");
    assert_eq!(published().len(), 2);
    // The fault lasts until there are keys again.
    assert_eq!(apply(&server, Vec::new()).faults, none.faults);

    let last = apply_keys(&server, new());
    assert!(last.is_applied && last.faults.is_empty(), "{last:?}");
    assert_eq!((signs(), published()), (json!(second.clone()), vec![second.clone()]));
    let names = [
        format!("keys added: {second}"),
        "clients added: b".to_owned(),
        format!("keys removed: {first}"),
    ];
    assert_audited(&server, "reloaded", "changes", &names.each_ref().map(|name| &**name));
}

#[test]
fn lifetimes_are_written_if_they_have_changed() {
    let clients = ["a", "b", "c"].map(|id| client(id, json!({})));
    let server = start(&clients, |_| {});
    let file = server.home.path("state").join("lifetimes");
    fs::remove_file(&file).unwrap();
    assert!(apply(&server, vec![put(&client("a", json!({ "enabled": false })))]).is_applied);
    assert!(!file.exists());
    for (update, expected) in [
        (put(&client("a", json!({ "token_lifetime": 60 }))), json!({ "a": 60 })),
        (put(&client("d", json!({ "token_lifetime": 7200 }))), json!({ "a": 60, "d": 7200 })),
        (remove("d"), json!({ "a": 60 })),
    ] {
        assert!(apply(&server, vec![update]).is_applied);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["others"], expected);
        fs::remove_file(&file).unwrap();
    }
    // If they cannot be written, it is tried again.
    fs::create_dir(&file).unwrap();
    let unwritten = apply(&server, vec![put(&client("b", json!({ "token_lifetime": 60 })))]);
    assert!(unwritten.is_applied && unwritten.faults[0].contains("lifetimes: "), "{unwritten:?}");
    fs::remove_dir(&file).unwrap();
    assert!(apply(&server, Vec::new()).faults.is_empty() && file.is_file());
}
