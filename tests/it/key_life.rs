//! `grantd key rotate|retire|import` while a server runs. During each change of keys, every valid
//! token can be verified.

mod import;
mod retire;

use std::fs;

use grantd::clock::Clock;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::time::UnixTime;
use serde_json::{Value, json};

use crate::support::command::{Ended, run};
use crate::support::home::{set_mode, signing_key};
use crate::support::{
    DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Response, Token, demo_with,
    wait_until,
};

const JWKS: &str = "/.well-known/jwks.json";

/// The times that decide how long a key is kept: the default max-age of the key set, and the
/// longest token lifetime in the test registry (two hours).
const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 7200 };
/// Seconds for which a retired key stays published: the longest token lifetime plus the max-age.
const KEPT_FOR: u64 = 7500;

fn key(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&[&["key"], arguments].concat()))
}

/// Parses the output of a command, which has one JSON object on each line.
#[track_caller]
fn printed(ended: &Ended) -> Vec<Value> {
    ended.assert_fine().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn one(ended: &Ended) -> Value {
    let [line] = <[Value; 1]>::try_from(printed(ended)).expect("one line");
    line
}

fn seconds(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn now() -> u64 {
    Clock::system().unix_seconds()
}

/// The `kid` of the key that [`Home::new`] writes.
fn first_kid() -> &'static str {
    signing_key().0.trim_end_matches(".pem")
}

/// Adds a key with these times to `home` and returns its `kid`.
fn put_key(home: &Home, published_at: u64, signs_from: u64) -> String {
    let elsewhere = Home::without_key();
    let made = one(&key(&elsewhere, &["generate"]));
    let kid = made["kid"].as_str().unwrap().to_owned();
    let name = format!("{kid}.pem");
    let text = fs::read_to_string(elsewhere.keys().join(&name)).unwrap();
    let pem = &text[text.find("-----BEGIN").unwrap()..];
    let times = format!("Published-At: {published_at}\nSigns-From: {signs_from}\n");
    home.write_key(&name, &(times + pem));
    kid
}

/// Returns the names of the files in the key directory, except hidden files.
fn files(home: &Home) -> Vec<String> {
    let names = home.keys().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn kids(key_set: &Response) -> Vec<String> {
    let key_set = key_set.json();
    let kids = key_set["keys"].as_array().unwrap().iter();
    let mut kids: Vec<_> = kids.map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    kids.sort();
    kids
}

fn sorted<const N: usize>(kids: [&str; N]) -> Vec<String> {
    let mut kids = kids.map(str::to_owned).to_vec();
    kids.sort();
    kids
}

/// Waits until the log reports the reload with this generation number, and returns the logged
/// changes. The test sends no signal: the server itself notices that files have changed.
fn reloaded(server: &Program, generation: u64) -> String {
    let line = server
        .log
        .wait_for(|line| line["message"] == "reloaded" && line["generation"] == json!(generation));
    line["changes"].as_str().unwrap().to_owned()
}

#[test]
fn rotate_publishes_a_key_and_prints_when_the_old_one_retires() {
    let home = Home::new();
    let rotated = one(&key(&home, &["rotate", "--bits", "3072"]));
    let names: Vec<_> = rotated.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["kid", "bits", "published_at", "signs_from", "retires", "dates"]);
    assert_eq!(rotated["bits"], 3072);
    let signs_from = seconds(&rotated, "signs_from");
    assert_eq!(signs_from, seconds(&rotated, "published_at") + 600);
    let retires = json!({
        "kid": first_kid(), "retires_at": signs_from, "gone_at": signs_from + KEPT_FOR,
        "dates": rotated["retires"]["dates"],
    });
    assert_eq!(retires["dates"]["retires_at"], rotated["dates"]["signs_from"]);
    assert_eq!(rotated["retires"], retires);

    let listed = printed(&key(&home, &["list"]));
    for key in &listed {
        let is_first = key["kid"] == first_kid();
        assert_eq!(key["state"], if is_first { "signing" } else { "published" });
        for end in ["retires_at", "gone_at"] {
            let expected = if is_first { Some(&retires[end]) } else { None };
            assert_eq!(key.get(end), expected, "{key}");
        }
    }
    assert_eq!(listed.len(), 2);
}

#[test]
fn rotate_is_refused_while_a_key_waits() {
    let home = Home::new();
    let rotated = one(&key(&home, &["rotate"]));
    let before = files(&home);
    let (kid, from) = (rotated["kid"].as_str().unwrap(), seconds(&rotated, "signs_from"));
    let says = format!("grantd: keys: {kid} is already published and signs from {from} (");
    key(&home, &["rotate"]).assert_error(1, &[&says, "rotate after that"]);
    assert_eq!(files(&home), before);
}

/// A published key is not withdrawn, and a key of another size than was asked for is not made to sign.
#[test]
fn a_rotation_to_another_size_than_that_of_the_key_that_waits_says_what_to_do() {
    let home = Home::new();
    let waits = put_key(&home, now(), now() + 90 * 86400);
    let before = files(&home);
    let refused = key(&home, &["rotate", "--bits", "3072"]);
    let says = format!("grantd: keys: {waits} of 2048 bits is already published and signs from");
    let retire = format!("`grantd key retire {waits}` when that key signs");
    refused.assert_error(1, &[&says, "`grantd key generate --bits 3072`, whose", &retire]);
    assert_eq!(files(&home), before);

    // The advice leads to a key of the size.
    let short = |arguments: &[&str]| {
        run(home.command(&[&["key"], arguments].concat()).env("GRANTD_JWKS_MAX_AGE", "1"))
    };
    let made = one(&short(&["generate", "--bits", "3072"]));
    assert_eq!(made["bits"], 3072);
    let state = || {
        let listed = printed(&short(&["list"]));
        listed.iter().find(|key| key["kid"] == made["kid"]).unwrap()["state"].clone()
    };
    wait_until(|| state() == "signing");
    short(&["retire", &waits]).assert_fine();
    assert_eq!(state(), "signing");

    // Without a size, or with its own, the key that waits is the next one.
    let soon = Home::new();
    key(&soon, &["rotate"]).assert_fine();
    let refused = key(&soon, &["rotate", "--bits", "4096"]);
    refused.assert_error(1, &["of 2048 bits is already published", "run this again when it signs"]);
    let old = Home::new();
    let ready = put_key(&old, now() - 1000, now() + 90 * 86400);
    let rotated = one(&key(&old, &["rotate", "--bits", "2048"]));
    assert!(rotated["kid"] == *ready && rotated["instead_of"].is_u64(), "{rotated}");
}

#[test]
fn of_concurrent_rotations_one_succeeds() {
    let home = Home::new();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running = [(); 4].map(|()| scope.spawn(|| key(&home, &["rotate"])));
        running.map(|running| running.join().unwrap()).into()
    });
    assert_eq!(ended.iter().filter(|ended| ended.code == Some(0)).count(), 1, "{ended:?}");
    assert_eq!(files(&home).len(), 2);
}

#[test]
fn rotate_needs_a_key_that_signs() {
    let home = Home::without_key();
    let says = "holds no key to succeed: `grantd key generate` generates the first one";
    key(&home, &["rotate"]).assert_error(1, &[&format!("grantd: keys: {says}")]);
    key(&home, &["rotate", "--keys", "mistyped"])
        .assert_error(1, &[&format!("grantd: mistyped: {says}")]);
    assert!(!home.path("mistyped").exists());
    assert_eq!(key(&home, &["rotate", "--bits", "1024"]).code, Some(2));
}

#[test]
fn a_running_server_publishes_both_keys_and_counts_fetches_of_each() {
    let server = Program::start(Home::new(), &[]);
    let keys = || -> Vec<Value> {
        let answer = Request::get("/keys").send(server.admin);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        answer.json().as_array().unwrap().clone()
    };
    let find = |keys: &[Value], kid: &str| -> Value {
        keys.iter().find(|key| key["kid"] == kid).expect("the key").clone()
    };
    assert_eq!(
        keys(),
        [json!({
            "kid": first_kid(), "bits": 2048, "state": "signing", "published_at": 0,
            "signs_from": 0, "fetches": 0, "last_fetch": null,
        })]
    );
    let jwks = server.ask(&Request::get(JWKS));
    let etag = jwks.header("etag").unwrap();
    let known = Request::get(JWKS).header("If-None-Match", etag);
    assert_eq!(server.ask(&known).status, 304);
    let other = "/.well-known/openid-configuration/jwks";
    assert_eq!(server.ask(&Request::get(other)).status, 200);
    // These two answers contain no key, so they are not counted as fetches.
    assert_eq!(server.ask(&Request::new("POST", JWKS)).status, 405);
    assert_eq!(server.ask(&Request::get("/.well-known/openid-configuration")).status, 200);
    let first = find(&keys(), first_kid());
    assert_eq!(first["fetches"], 3);
    let last = seconds(&first, "last_fetch");
    assert!(now().abs_diff(last) < 600, "{first}");

    let rotated = one(&key(&server.home, &["rotate"]));
    let second_kid = rotated["kid"].as_str().unwrap();
    assert_eq!(reloaded(&server, 2), format!("keys added: {second_kid}"));
    // The old key keeps its number of fetches; the new key has not been fetched yet.
    let both = keys();
    let (first, second) = (find(&both, first_kid()), find(&both, second_kid));
    assert_eq!((&first["fetches"], &second["fetches"]), (&json!(3), &json!(0)));
    assert_eq!((&second["state"], &second["last_fetch"]), (&json!("published"), &Value::Null));
    for end in ["retires_at", "gone_at"] {
        assert_eq!((&first[end], second.get(end)), (&rotated["retires"][end], None));
    }
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([first_kid(), second_kid]));
    assert_eq!(server.ask(&known).status, 200, "it is another key set");
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    // `Token::verified` fetches the key set once more, which increases the counters below by one.
    assert_eq!(Token::verified(&token, server.address).header["kid"], first_kid());

    let fetches =
        |kid: &str| server.metric(&format!("grantd_key_set_fetches_total{{kid=\"{kid}\"}}"));
    assert_eq!((fetches(first_kid()), fetches(second_kid)), (6, 3));
    let age = |kid: &str, state: &str| {
        server.metric(&format!("grantd_key_age_seconds{{kid=\"{kid}\",state=\"{state}\"}}"))
    };
    assert!(age(second_kid, "published") < 600);
    assert!(age(first_kid(), "signing") > 1_760_000_000, "its file names no time");

    // `key list` shows the fetches of each key only with `--admin`.
    let admin = server.admin.to_string();
    let mut listed = printed(&key(&server.home, &["list", "--admin", &admin]));
    for line in &mut listed {
        let dates = line.as_object_mut().unwrap().remove("dates").unwrap();
        assert_eq!(dates["last_fetch"].is_string(), line["last_fetch"].is_u64(), "{dates}");
    }
    assert_eq!(listed, keys());
    assert_eq!(find(&listed, second_kid)["fetches"], 3);
    for line in printed(&key(&server.home, &["list"])) {
        assert!(line.get("fetches").is_none() && line.get("last_fetch").is_none());
    }
    let public = server.address.to_string();
    key(&server.home, &["list", "--admin", &public])
        .assert_error(1, &[&format!("grantd: {public}: answered 404"), "admin listener"]);
}

#[test]
fn a_key_unknown_to_the_server_has_no_figures() {
    let server = Program::start(Home::new(), &[]);
    let other = Home::without_key();
    let kid = one(&key(&other, &["generate"]))["kid"].clone();
    let admin = server.admin.to_string();
    let listed = one(&key(&other, &["list", "--admin", &admin]));
    assert_eq!((&listed["kid"], &listed["fetches"]), (&kid, &Value::Null));
    assert!(listed["last_fetch"].is_null() && listed.as_object().unwrap().contains_key("fetches"));
}

#[test]
fn during_a_rotation_every_token_can_be_verified() {
    const START: UnixTime = UnixTime(1_790_000_000);
    let home = Home::new();
    let rotated =
        change::rotate(&mut KeyDirectory::new(&home.keys()), None, &RETENTION, START).unwrap();
    let second_kid = rotated.made.key_id().to_owned();
    let (takes_over, gone) = (rotated.retirement.retires_at, rotated.retirement.gone_at);
    assert_eq!((takes_over, gone), (START + 600, START + 600 + KEPT_FOR));
    let server = Library::start(home, "https://auth.example", START.0);
    let jwks = || kids(&Request::get(JWKS).send(server.address));
    let signed_by = |encoding| {
        let answer = Request::token(encoding, &DEMO).send(server.address);
        Token::verified(&answer, server.address).header["kid"].as_str().unwrap().to_owned()
    };
    let is_active = |answer: &Response| {
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let request = Request::new("POST", "/connect/introspect")
            .form(Encoding::Urlencoded, &demo_with(&[("token", &token)]));
        request.send(server.address).json()["active"] == true
    };
    let both = sorted([first_kid(), &second_kid]);
    for now in [START, takes_over - 1] {
        server.clock.set(now.0);
        assert_eq!(jwks(), both, "{now}");
        assert_eq!(ENCODINGS.map(signed_by), [first_kid(), first_kid()], "{now}");
    }
    let last_of_the_first = Request::token(Encoding::Multipart, &DEMO).send(server.address);
    for now in [takes_over, gone - 1] {
        server.clock.set(now.0);
        assert_eq!(jwks(), both, "{now}");
        assert_eq!(ENCODINGS.map(signed_by), [&*second_kid, &*second_kid], "{now}");
    }
    server.clock.set((takes_over - 1 + 3599).0);
    assert!(is_active(&last_of_the_first), "to its last second");
    server.clock.set(gone.0);
    assert_eq!(jwks(), sorted([&*second_kid]));
    assert_eq!(ENCODINGS.map(signed_by), [&*second_kid, &*second_kid]);
    assert!(!is_active(&last_of_the_first));
    // The old key can be retired now, and the next rotation is possible.
    let retired =
        change::retire(&mut KeyDirectory::new(&server.home.keys()), None, &RETENTION, gone)
            .unwrap();
    assert_eq!(retired.iter().map(|retired| &*retired.key_id).collect::<Vec<_>>(), [first_kid()]);
    change::rotate(&mut KeyDirectory::new(&server.home.keys()), None, &RETENTION, gone).unwrap();
}

#[test]
fn no_command_prints_key_material() {
    let home = Home::new();
    set_mode(&home.write("a.pem", &signing_key().1), 0o600);
    let imports = Home::without_key();
    let file = home.path("a.pem").display().to_string();
    let mut output = key(&imports, &["import", &file]).assert_fine().to_owned();
    output += key(&home, &["rotate"]).assert_fine();
    let signing = put_key(&home, 0, now() - 100_000);
    output += key(&home, &["list"]).assert_fine();
    output += key(&home, &["retire"]).assert_fine();
    assert!(output.contains(&signing) && !output.contains("PRIVATE"));
    let mut lines = 0;
    for entry in home.keys().read_dir().unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.len() == 64) {
            lines += 1;
            assert!(!output.contains(line));
        }
    }
    assert!(lines > 60, "the lines of three keys");
}

#[test]
fn rotate_and_retire_need_the_registry() {
    let home = Home::new();
    fs::remove_file(home.clients()).unwrap();
    for command in ["rotate", "retire"] {
        key(&home, &[command]).assert_error(1, &["clients.json: there is no client registry"]);
    }
    // The first key may be made before the first client.
    key(&home, &["generate"]).assert_fine();
}
