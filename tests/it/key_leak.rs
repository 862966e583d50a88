//! `grantd key rotate --now`, for a leaked key: the command makes a new key, which signs at once.
//! It removes all other keys.

use std::fs;

use grantd::clock::Clock;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::time::UnixTime;
use serde_json::{Value, json};

use crate::support::command::{Ended, run};
use crate::support::home::{secret_of, set_mode, signing_key};
use crate::support::{
    DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Token, demo_with, request_of,
};

fn key(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&[&["key"], arguments].concat()))
}

#[track_caller]
fn one(ended: &Ended) -> Value {
    let mut lines = ended.assert_fine().lines();
    let line = lines.next().expect("a line");
    assert_eq!(lines.next(), None);
    serde_json::from_str(line).unwrap()
}

fn first_kid() -> &'static str {
    signing_key().0.trim_end_matches(".pem")
}

fn files(home: &Home) -> Vec<String> {
    let names = home.keys().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn pem(value: &Value) -> String {
    format!("{}.pem", value["kid"].as_str().unwrap())
}

#[test]
fn rotate_now_writes_a_new_key_and_removes_all_others() {
    let home = Home::new();
    let waiting = one(&key(&home, &["rotate"]));
    // Other commands refuse a key file that everyone can read. This command removes the file,
    // because such a file may be the cause of the leak.
    home.write_key("open.pem", &signing_key().1);
    set_mode(&home.keys().join("open.pem"), 0o644);
    home.write_key("broken.pem", "text");
    let made = one(&key(&home, &["rotate", "--now", "--bits", "3072"]));
    let names: Vec<_> = made.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["kid", "bits", "published_at", "signs_from", "retired", "verifiers", "dates"];
    assert_eq!(names, expected);
    assert_eq!((&made["bits"], &made["signs_from"]), (&json!(3072), &made["published_at"]));
    let verifiers = made["verifiers"].as_str().unwrap();
    assert!(verifiers.contains("refuse tokens of the new key") && verifiers.contains("300 s"));

    let (first, second) = (format!("{}.pem", first_kid()), pem(&waiting));
    let retired = |name: &str| format!("{name}.retired");
    let mut out = [&first, &second, "open.pem", "broken.pem"].map(retired).to_vec();
    let mut printed: Vec<_> =
        made["retired"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    printed.sort_unstable();
    out.sort();
    assert_eq!(printed, out.iter().map(|name| format!("keys/{name}")).collect::<Vec<_>>());
    let mut all = [out, vec![pem(&made)]].concat();
    all.sort();
    assert_eq!(files(&home), all);
    let text = fs::read_to_string(home.keys().join(pem(&made))).unwrap();
    assert_eq!(text.lines().nth(2), Some("Immediate: yes"));
    let listed = one(&key(&home, &["list"]));
    assert_eq!((&listed["kid"], &listed["state"]), (&made["kid"], &json!("signing")));
}

#[test]
fn rotate_now_can_keep_one_key() {
    let home = Home::new();
    let waiting = one(&key(&home, &["rotate"]));
    let waiting_kid = waiting["kid"].as_str().unwrap();
    for kept in [first_kid(), waiting_kid] {
        let made = one(&key(&home, &["rotate", "--now", "--keep", kept]));
        let left: Vec<_> = files(&home).into_iter().filter(|name| name.ends_with(".pem")).collect();
        let mut expected = vec![format!("{kept}.pem"), pem(&made)];
        expected.sort();
        assert_eq!(left, expected);
        let listed = key(&home, &["list"]);
        let signing = listed.assert_fine().lines().find(|line| line.contains("\"signing\""));
        assert!(signing.unwrap().contains(made["kid"].as_str().unwrap()), "{listed:?}");
        // Puts the waiting key back for the next iteration.
        let back = home.keys().join(format!("{waiting_kid}.pem"));
        let _ = fs::rename(home.keys().join(format!("{waiting_kid}.pem.retired")), back);
    }
    let before = files(&home);
    let unknown = "a".repeat(43);
    let says = format!("holds no readable key {unknown}");
    key(&home, &["rotate", "--now", "--keep", &unknown]).assert_error(1, &[&says]);
    assert_eq!(key(&home, &["rotate", "--keep", first_kid()]).code, Some(2));
    assert_eq!(files(&home), before);
}

#[test]
fn rotate_now_needs_a_key_to_replace() {
    let says = "holds no key to replace: `grantd key generate` generates one";
    key(&Home::without_key(), &["rotate", "--now"]).assert_error(1, &[says]);
    let home = Home::new();
    key(&home, &["rotate", "--now", "--keys", "mistyped"]).assert_error(1, &[says]);
    assert!(!home.path("mistyped").exists());
}

#[test]
fn rotate_now_works_with_a_broken_registry() {
    let home = Home::new();
    home.write("clients.json", "{");
    one(&key(&home, &["rotate", "--now"]));
}

#[test]
fn of_concurrent_rotations_the_last_key_is_left() {
    let home = Home::new();
    std::thread::scope(|scope| {
        let running = [(); 3].map(|()| scope.spawn(|| one(&key(&home, &["rotate", "--now"]))));
        running.into_iter().for_each(|running| drop(running.join().unwrap()));
    });
    assert_eq!(files(&home).iter().filter(|name| name.ends_with(".pem")).count(), 1);
    assert_eq!(files(&home).len(), 4);
}

#[test]
fn a_running_server_signs_with_the_new_key_at_once_and_rejects_tokens_of_the_others() {
    let server = Program::start(Home::new(), &[]);
    let secret = secret_of("reuser");
    let reused = request_of("reuser", &secret, &[]);
    let (request, reuse) =
        (Request::token(Encoding::Urlencoded, &DEMO), Request::token(Encoding::Multipart, &reused));
    let old = [&request, &reuse].map(|request| server.ask(request));
    assert_eq!(server.ask(&reuse).header("x-token-reuse"), Some("reused"));
    let token = |answer: &crate::support::Response| {
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    let validate = |token: &str| {
        let bearer = format!("Bearer {token}");
        server.ask(&Request::get("/connect/validate").header("Authorization", bearer)).status
    };
    for answer in &old {
        // The first validation verifies the signature and caches the verdict. The second validation
        // uses the cached verdict.
        assert_eq!([validate(&token(answer)), validate(&token(answer))], [204, 204]);
    }

    let admin = server.admin.to_string();
    let made = one(&key(&server.home, &["rotate", "--now", "--admin", &admin]));
    // The command has waited for the reload, so the test need not wait.
    for request in [&request, &reuse] {
        let answer = server.ask(request);
        assert_eq!(Token::verified(&answer, server.address).header["kid"], made["kid"]);
        assert_eq!(validate(&token(&answer)), 204);
    }
    let jwks = server.ask(&Request::get("/.well-known/jwks.json")).json();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    for answer in &old {
        assert_eq!(validate(&token(answer)), 401);
        let introspect = Request::new("POST", "/connect/introspect")
            .form(Encoding::Urlencoded, &demo_with(&[("token", &token(answer))]));
        assert_eq!(server.ask(&introspect).text(), "{\"active\":false}");
    }
}

#[test]
fn the_new_key_signs_at_once_beside_a_kept_key() {
    let server = Program::start(Home::new(), &[]);
    let old = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    let admin = server.admin.to_string();
    let arguments = ["rotate", "--now", "--keep", first_kid(), "--admin", &admin];
    let made = one(&key(&server.home, &arguments));
    let answer = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    assert_eq!(Token::verified(&answer, server.address).header["kid"], made["kid"]);
    // Tokens signed with the kept key are still valid.
    assert_eq!(Token::verified(&old, server.address).header["kid"], first_kid());
}

#[test]
fn a_change_that_is_written_but_not_in_force_is_an_error() {
    let home = Home::new();
    let other = Program::start(Home::new(), &[]);
    let admin = other.admin.to_string();
    let ended = key(&home, &["rotate", "--now", "--admin", &admin]);
    assert_eq!(ended.code, Some(1));
    let made: Value = serde_json::from_str(&ended.stdout).unwrap();
    let says = format!("grantd: written, not in force: key {}: ", made["kid"].as_str().unwrap());
    assert!(ended.stderr.starts_with(&says), "{ended:?}");
    assert!(files(&home).contains(&pem(&made)), "the file is there");
}

#[test]
fn the_immediate_header_accepts_yes_only() {
    let home = Home::without_key();
    let (name, pem) = signing_key();
    for (value, is_right) in [("yes", true), ("no", false), ("Yes", false), ("", false)] {
        home.write_key(name, &format!("Immediate: {value}\n{pem}"));
        let ended = key(&home, &["list"]);
        if is_right {
            one(&ended);
        } else {
            ended.assert_error(1, &[&format!("keys/{name}:1:"), "Immediate: must be yes"]);
        }
    }
}

#[test]
fn a_clock_set_back_after_the_first_start_fails_no_request() {
    const START: u64 = 1_790_000_000;
    let server = Library::start(Home::without_key(), "https://auth.example", START);
    let kid_at = |now: u64| {
        server.clock.set(now);
        let kids = ENCODINGS.map(|encoding| {
            let answer = Request::token(encoding, &DEMO).send(server.address);
            Token::verified(&answer, server.address).header["kid"].clone()
        });
        assert_eq!(kids[0], kids[1]);
        kids[0].clone()
    };
    let first = kid_at(START);
    for now in [START - 1, START - 3600, START - 7 * 86_400, START, START - 3600] {
        assert_eq!(kid_at(now), first, "{now}");
    }
    // A server that starts while the clock is set back finds the same key and makes no new key.
    let server = server.restart("https://auth.example", START - 3600);
    let answer = Request::token(Encoding::Multipart, &DEMO).send(server.address);
    assert_eq!(Token::verified(&answer, server.address).header["kid"], first);
    assert_eq!(files(&server.home).len(), 1);
}

#[test]
fn a_key_made_on_a_clock_set_back_waits_for_verifiers() {
    const START: u64 = 1_790_000_000;
    let home = Home::without_key();
    let retention =
        grantd::internal::keys::life::Retention { jwks_max_age: 300, token_lifetime: 7200 };
    let mut keys = KeyDirectory::new(&home.keys());
    let first = change::generate(&mut keys, 2048, &retention, UnixTime(START)).unwrap();
    let back = START - 3600;
    let second = change::rotate(&mut keys, None, &retention, UnixTime(back)).unwrap();
    assert_eq!(second.signing, first.key_id());
    assert_eq!(second.made.times().signs_from, UnixTime(START + 1));
    let server = Library::start(home, "https://auth.example", back);
    for (now, kid) in [
        (back, first.key_id()),
        (back + 600, first.key_id()),
        (START, first.key_id()),
        (START + 1, second.made.key_id()),
    ] {
        server.clock.set(now);
        let answer = Request::token(Encoding::Urlencoded, &DEMO).send(server.address);
        assert_eq!(Token::verified(&answer, server.address).header["kid"], kid, "{now}");
    }
}

#[test]
fn servers_started_concurrently_make_and_use_one_first_key() {
    let home = Home::without_key();
    fs::remove_dir(home.keys()).unwrap();
    let keys = home.keys().display().to_string();
    let servers: Vec<_> = std::thread::scope(|scope| {
        let starting = [(); 4]
            .map(|()| scope.spawn(|| Program::start(Home::without_key(), &["--keys", &keys])));
        starting.map(|starting| starting.join().unwrap()).into()
    });
    let [name] = <[String; 1]>::try_from(files(&home)).expect("one key");
    let kid = name.trim_end_matches(".pem");
    let made = "made the first signing key";
    let made = servers.iter().map(|server| server.log.count(|line| line["message"] == made));
    assert_eq!(made.sum::<usize>(), 1);
    for server in &servers {
        for encoding in ENCODINGS {
            let answer = server.ask(&Request::token(encoding, &DEMO));
            assert_eq!(Token::verified(&answer, server.address).header["kid"], kid);
        }
        assert_eq!(Request::get("/readyz").send(server.admin).text(), "ok\n");
    }
    // The first key signs at once, so its `Signs-From` is not in the future.
    let text = fs::read_to_string(home.keys().join(&name)).unwrap();
    let from = text.lines().find_map(|line| line.strip_prefix("Signs-From: ")).unwrap();
    assert!(Clock::system().unix_seconds() >= from.parse().unwrap());
}
