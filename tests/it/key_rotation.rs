//! Keys in files that rotate by themselves (`keys.rotate_every`).

use std::collections::BTreeSet;
use std::fs;

use grantd::random::Random;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::registry::client_json;
use crate::support::status::ISSUER;
use crate::support::{
    DEMO, Encoding, Home, Library, Program, Request, Response, Token, request_of, wait_until,
};

const JWKS: &str = "/.well-known/jwks.json";
const MAX_AGE: u64 = 300;
const DAY: u64 = 86_400;

/// A verifier that caches the key set of a server for its max-age.
struct Verifier {
    key_set: Value,
    fetched_at: u64,
}

impl Verifier {
    /// Verifies a token at `now`. Fetches the key set from `server` if the cached one is too old.
    fn verify(&mut self, answer: &Response, server: &Library, now: u64) -> String {
        if now >= self.fetched_at + MAX_AGE {
            self.key_set = Request::get(JWKS).send(server.address).json();
            self.fetched_at = now;
        }
        Token::verified_with(answer, &self.key_set).header["kid"].as_str().unwrap().to_owned()
    }
}

#[test]
fn processes_with_one_directory_rotate_its_keys_together() {
    const START: u64 = 1_790_000_000;
    let homes = [Home::new(), Home::new()];
    let shared = homes[0].keys();
    let servers = homes.map(|home| {
        let mut config = Library::config(&home);
        config.live.issuer = Some(ISSUER.parse().unwrap());
        config.live.keys.clone_from(&shared);
        config.live.rotate_every = Some(DAY);
        (Library::start_configured(home, &config, START, Random::counting(1)), config)
    });
    let mut verifiers = [(); 2].map(|()| Verifier { key_set: Value::Null, fetched_at: 0 });
    let mut signed = BTreeSet::new();
    // Less than a max-age, and no divisor of a day.
    for (step, now) in (START..START + 3 * DAY).step_by(293).enumerate() {
        servers.iter().for_each(|(server, _)| server.clock.set(now));
        let place = step % 2;
        for (server, config) in [&servers[place], &servers[1 - place]] {
            server.reloader.look_at_keys();
            // The program does so when a file has changed.
            if step % 8 == 0 {
                let faults = server.reloader.reload(Ok(config.clone())).faults;
                assert_eq!(faults, [] as [&str; 0]);
            }
        }
        let kids = [0, 1].map(|one| {
            let answer = Request::token(Encoding::Urlencoded, &DEMO).send(servers[one].0.address);
            let [by, other] =
                [one, 1 - one].map(|from| verifiers[from].verify(&answer, &servers[from].0, now));
            assert_eq!(by, other);
            by
        });
        assert_eq!(kids[0], kids[1], "both sign with the same key");
        signed.extend(kids);
    }
    // The first key is from 1970, so a new one signs at once; then one a day.
    assert_eq!(signed.len(), 4, "{signed:?}");
    let (server, _) = &servers[0];
    assert_eq!(server.metric("grantd_key_rotation_held_up"), Some(0));
    assert!(server.metric("grantd_key_signing_seconds").unwrap() <= DAY);
    assert!(server.metric("grantd_key_next_seconds").unwrap() <= DAY);
    let files = fs::read_dir(&shared).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let count = names.filter(|name| name.ends_with(".pem")).count();
    assert_eq!(count, signed.len() + 1, "there is one next key");
}

/// Returns the objects that `grantd key` prints.
fn key(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let mut command = home.command(&[&["key"], arguments].concat());
    let variables = [("GRANTD_KEYS__ROTATE_EVERY", "90d"), ("GRANTD_JWKS_MAX_AGE", "1")];
    run(command.envs(variables)).json_lines()
}

fn published(server: &Program) -> usize {
    let key_set = server.ask(&Request::get(JWKS)).json();
    key_set["keys"].as_array().unwrap().len()
}

fn signs_with(server: &Program) -> String {
    let answer =
        server.ask(&Request::token(Encoding::Urlencoded, &request_of("c", &secret_of("c"), &[])));
    Token::verified(&answer, server.address).header["kid"].as_str().unwrap().to_owned()
}

#[test]
fn a_rotation_by_hand_brings_the_next_key_forward() {
    let homes = [Home::without_key(), Home::without_key()];
    for home in &homes {
        home.register(&[client_json("c", &json!({ "token_lifetime": 60 }))]);
    }
    let keys = homes[0].keys();
    let keys = keys.to_str().unwrap();
    let variables = [("GRANTD_KEYS__ROTATE_EVERY", "90d"), ("GRANTD_JWKS_MAX_AGE", "1")];
    let arguments = ["--keys", keys, "--issuer", ISSUER, "--allow-demo-clients"];
    let [one, other] = homes.map(|home| Program::start_with(home, &arguments, &variables));
    // The first key, and the next one, which a process makes at once.
    wait_until(|| published(&one) == 2 && published(&other) == 2);
    let first = signs_with(&one);
    assert_eq!(signs_with(&other), first);

    let rotated = &key(&one.home, &["rotate", "--keys", keys])[0];
    let next = rotated["kid"].as_str().unwrap();
    assert_ne!(next, first);
    let seconds = |name: &str| rotated[name].as_u64().unwrap();
    let planned = seconds("published_at") + 90 * DAY;
    assert!(seconds("instead_of").abs_diff(planned) < 600, "{rotated}");
    assert!(seconds("signs_from") >= seconds("published_at") + 2);
    assert!(seconds("signs_from") < seconds("published_at") + 600);
    assert!(rotated["dates"]["instead_of"].is_string());
    assert!(rotated["note"].as_str().unwrap().contains("keys.rotate_every makes the next key"));
    assert_eq!(rotated["retires"]["kid"], first);
    wait_until(|| signs_with(&one) == next && signs_with(&other) == next);
    // The old key, the one that signs, and the next.
    wait_until(|| published(&one) == 3 && published(&other) == 3);
    let listed = key(&one.home, &["list", "--keys", keys]);
    let states: BTreeSet<_> = listed.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, BTreeSet::from(["published", "retiring", "signing"]));
    let one_next = |key: &&Value| key["state"] == "published";
    let next = listed.iter().find(one_next).unwrap();
    let is_planned = next["signs_from"].as_u64() >= Some(seconds("signs_from") + 90 * DAY);
    assert!(is_planned, "{next}");
}

#[test]
fn a_directory_that_cannot_be_written_is_reported_and_signs_on() {
    let home = Home::new();
    fs::create_dir(home.keys().join(".lock")).unwrap();
    let variables = [("GRANTD_KEYS__ROTATE_EVERY", "90d")];
    let server = Program::start_with(home, &[], &variables);
    let says = "keys.rotate_every has no effect: no next key can be made: ";
    server.log.wait_for(|line| line["message"].as_str().unwrap_or_default().starts_with(says));
    let readiness = Request::get("/readyz").send(server.admin);
    assert_eq!(readiness.status, 200);
    let text = readiness.text();
    assert!(text.starts_with(&format!("degraded: {says}")), "{text}");
    assert!(text.contains("cannot be locked") && text.contains("the present key signs"), "{text}");
    assert_eq!(server.metric("grantd_key_rotation_held_up "), 1);
    let answer = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    Token::verified(&answer, server.address);
    // When it can be written, the rotation goes on.
    fs::remove_dir(server.home.keys().join(".lock")).unwrap();
    assert_eq!(published(&server), 1);
}

#[test]
fn check_refuses_what_is_too_short_and_serve_counts_the_shortest_time() {
    let home = Home::new();
    let check = |every: &str| {
        let mut command = home.command(&["check", "--admin-listen", "127.0.0.1:0"]);
        run(command.env("GRANTD_KEYS__ROTATE_EVERY", every))
    };
    // Twice the max-age, the longest lifetime in the registry of the tests, and the clocks.
    let shortest = 2 * MAX_AGE + 7200 + 10;
    check(&shortest.to_string()).assert_fine();
    check("2h").assert_error(
        1,
        &["keys.rotate_every: 7200 s are too short", &format!("at least {shortest} s")],
    );
    check("soon").assert_error(1, &["GRANTD_KEYS__ROTATE_EVERY: must be off, seconds, or a"]);
    let server = Program::start_with(home, &[], &[("GRANTD_KEYS__ROTATE_EVERY", "2h")]);
    server.log.wait_for(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("7200 s are too short") && message.ends_with("this shortest time counts")
    });
    wait_until(|| published(&server) == 2);
}
