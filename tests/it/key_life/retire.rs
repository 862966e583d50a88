//! `grantd key retire`: removes keys in the state `gone`, and leaked keys.

use std::fs;

use serde_json::json;

use super::{
    JWKS, KEPT_FOR, files, first_kid, key, kids, now, one, printed, put_key, reloaded, sorted,
};
use crate::support::command::run;
use crate::support::home::signing_key;
use crate::support::{Connection, DEMO, Encoding, Home, Program, Request, Token, demo_with};

#[test]
fn retire_moves_keys_that_are_gone_aside() {
    let home = Home::new();
    let at = now();
    let retiring = put_key(&home, 5, at - KEPT_FOR - 1000);
    let signing = put_key(&home, 6, at - 1000);
    let text = fs::read(home.keys().join(&signing_key().0)).unwrap();
    let server = Program::start(home, &[]);
    let home = &server.home;
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([&*retiring, &*signing]));
    assert!(!server.metrics().contains(first_kid()), "a key that is gone");
    assert_eq!(printed(&key(home, &["list"])).len(), 3);

    let file = format!("keys/{}.pem.retired", first_kid());
    let expected = json!({ "kid": first_kid(), "state": "gone", "file": file });
    assert_eq!(one(&key(home, &["retire"])), expected);
    assert_eq!(reloaded(&server, 2), format!("keys removed: {}", first_kid()));
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([&*retiring, &*signing]));
    assert_eq!(fs::read(home.path(&file)).unwrap(), text, "nothing is lost");
    assert_eq!(files(home).len(), 3);
    let states: Vec<_> =
        printed(&key(home, &["list"])).iter().map(|key| key["state"].clone()).collect();
    assert!(states.contains(&json!("signing")) && states.contains(&json!("retiring")));
    assert_eq!(states.len(), 2);
    // A second run removes nothing.
    assert_eq!(key(home, &["retire"]).assert_fine(), "");
    assert_eq!(run(Home::without_key().command(&["key", "retire"])).assert_fine(), "");
}

#[test]
fn a_fault_names_the_keys_that_were_retired_before_it() {
    let home = Home::new();
    let at = now();
    put_key(&home, 0, at - 50_000);
    let leaked = put_key(&home, 0, at - 1000);
    // The file of the leaked key cannot be renamed to a directory.
    fs::create_dir(home.keys().join(format!("{leaked}.pem.retired"))).unwrap();
    let says = [
        &*format!("keys/{leaked}.pem: cannot be renamed: "),
        &format!("; retired before this: {}", first_kid()),
    ];
    key(&home, &["retire", &leaked]).assert_error(1, &says);
    let kept = home.keys().join(format!("{leaked}.pem"));
    assert!(kept.exists() && !home.keys().join(&signing_key().0).exists());
}

#[test]
fn tokens_of_a_removed_key_are_rejected() {
    let home = Home::new();
    let at = now();
    let gone = put_key(&home, 0, at - 100_000);
    let leaked = put_key(&home, 0, at - 1000);
    // The key `between` signed until the leaked key began to sign. The two older keys, `gone` and
    // the first key of `home`, are in the state `gone`.
    let between = put_key(&home, 0, at - 50_000);
    let server = Program::start(home, &[]);
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let answer = server.ask(&request);
    assert_eq!(Token::verified(&answer, server.address).header["kid"], *leaked);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let validate =
        Request::get("/connect/validate").header("Authorization", format!("Bearer {token}"));
    let introspect = Request::new("POST", "/connect/introspect")
        .form(Encoding::Urlencoded, &demo_with(&[("token", &token)]));
    let mut connection = Connection::open(server.address);
    assert_eq!(connection.ask(&validate).status, 204);
    assert_eq!(server.ask(&introspect).json()["active"], true);

    let out = printed(&key(&server.home, &["retire", &leaked]));
    let states: Vec<_> =
        out.iter().map(|key| (key["kid"].as_str(), key["state"].as_str())).collect();
    // The command removes the leaked key and both keys in the state `gone`.
    assert_eq!(states.len(), 3, "{states:?}");
    assert_eq!(states[2], (Some(&*leaked), Some("signing")));
    for kid in [&*gone, first_kid()] {
        assert!(states[..2].contains(&(Some(kid), Some("gone"))), "{states:?}");
    }
    assert!(reloaded(&server, 2).starts_with("keys removed: "));
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), [&*between]);
    assert_eq!(connection.ask(&validate).status, 401);
    assert_eq!(server.ask(&introspect).text(), "{\"active\":false}");
    // The key before the leaked one is still in every cached key set, so the server signs with that
    // key again.
    let answer = server.ask(&request);
    assert_eq!(Token::verified(&answer, server.address).header["kid"], *between);
}

#[test]
fn retire_refuses_the_last_key_that_signs() {
    let home = Home::new();
    let refused = key(&home, &["retire", first_kid()]);
    refused
        .assert_error(1, &["grantd: keys: no signing key would be left: run `grantd key rotate`"]);
    let rotated = one(&key(&home, &["rotate"]));
    let says = format!("the next one signs from {} (", rotated["signs_from"]);
    key(&home, &["retire", first_kid()])
        .assert_error(1, &["no signing key would be left", &says, "retire this one then"]);
    assert_eq!(files(&home).len(), 2);
    // A key that does not sign yet can be removed.
    let waiting = rotated["kid"].as_str().unwrap();
    assert_eq!(one(&key(&home, &["retire", waiting]))["state"], "published");
    assert_eq!(one(&key(&home, &["list"]))["kid"], first_kid());
}

#[test]
fn retire_refuses_an_unknown_kid() {
    let home = Home::new();
    // A `kid` may begin with a hyphen.
    let unknown = format!("-{}", "a".repeat(42));
    let says = format!("grantd: keys: holds no key {unknown}; `grantd key list` shows");
    key(&home, &["retire", &unknown]).assert_error(1, &[&says]);
    key(&home, &["retire", "--keys", "none", &unknown])
        .assert_error(1, &["grantd: none: does not exist"]);
    for wrong in ["x", "--kyes", &format!("{}/", "a".repeat(42)), &signing_key().0] {
        key(&home, &["retire", wrong]).assert_error(2, &["grantd key list"]);
    }
    home.write_key("bad.pem", "text");
    key(&home, &["retire"]).assert_error(1, &["grantd: keys/bad.pem: "]);
}

#[test]
fn retire_finds_a_key_under_another_file_name() {
    let home = Home::without_key();
    home.write_key("by-hand.pem", &signing_key().1);
    put_key(&home, 0, now() - 100_000);
    let file = format!("{}.pem.retired", first_kid());
    assert_eq!(one(&key(&home, &["retire"]))["file"], format!("keys/{file}"));
    assert!(files(&home).contains(&file) && files(&home).len() == 2);
}
