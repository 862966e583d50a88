//! `grantd key`: making keys, and the state of each key.

use std::fs;

use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::{DEMO, ENCODINGS, Home, Program, Request, Token};

fn generate(home: &Home) -> Value {
    run(home.command(&["key", "generate"])).json()
}

fn list(home: &Home) -> Vec<Value> {
    run(home.command(&["key", "list"])).json_lines()
}

#[test]
fn the_first_key_signs_at_once_and_the_next_one_is_published_first() {
    let home = Home::without_key();
    let first = generate(&home);
    assert_eq!(first["bits"], 2048);
    assert_eq!(first["published_at"], first["signs_from"]);
    let second = generate(&home);
    assert_ne!(first["kid"], second["kid"]);
    let seconds = |key: &Value, name: &str| key[name].as_u64().unwrap();
    // The new key starts to sign 600 s after its publication, which is twice the max-age of the key
    // set. If an HTTP cache gets the key set from another cache, a client may see a key set that is
    // older than one max-age.
    assert_eq!(seconds(&second, "signs_from"), seconds(&second, "published_at") + 600);

    for key in list(&home) {
        let (made, state) =
            if key["kid"] == first["kid"] { (&first, "signing") } else { (&second, "published") };
        assert_eq!(key["state"], state);
        for name in ["kid", "bits", "published_at", "signs_from"] {
            assert_eq!(key[name], made[name], "{name}");
        }
    }

    let server = Program::start(home, &[]);
    let key_set = server.ask(&Request::get("/.well-known/jwks.json")).json();
    let published = key_set["keys"].as_array().unwrap();
    assert_eq!(published.len(), 2);
    for made in [&first, &second] {
        assert!(published.iter().any(|key| key["kid"] == made["kid"]));
    }
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        assert_eq!(Token::verified(&answer, server.address).header["kid"], first["kid"]);
    }
}

#[test]
fn a_key_file_has_mode_600() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::without_key();
    fs::remove_dir(home.keys()).unwrap();
    let made = generate(&home);
    let file = home.keys().join(format!("{}.pem", made["kid"].as_str().unwrap()));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&home.keys())), (0o600, 0o700));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("-----BEGIN PRIVATE KEY-----"));
}

#[test]
fn no_key_material_is_ever_printed() {
    let home = Home::new();
    let made = run(home.command(&["key", "generate"]));
    let listed = run(home.command(&["key", "list"]));
    let mut lines = 0;
    for entry in home.keys().read_dir().unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.len() == 64) {
            lines += 1;
            for output in [made.assert_fine(), listed.assert_fine()] {
                assert!(!output.contains(line) && !output.contains("PRIVATE"));
            }
        }
    }
    assert!(lines > 20, "the lines of two keys");
}

#[test]
fn jwks_max_age_sets_how_long_a_key_is_published_before_it_signs() {
    let home = Home::new();
    home.write("a.toml", "jwks_max_age = 60\n");
    let made = run(home.command(&["key", "generate", "--config", "a.toml"])).json();
    let seconds = |name: &str| made[name].as_u64().unwrap();
    assert_eq!(seconds("signs_from") - seconds("published_at"), 120);
}

#[test]
fn keys_of_3072_and_4096_bits_sign_and_other_sizes_are_refused() {
    let home = Home::without_key();
    let made = run(home.command(&["key", "generate", "--bits", "3072"])).json();
    assert_eq!(made["bits"], json!(3072));
    for bits in ["1024", "0", "2047", "8192"] {
        let refused = run(home.command(&["key", "generate", "--bits", bits]));
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("2048") && refused.stdout.is_empty(), "{refused:?}");
    }
    assert_eq!(list(&home).len(), 1);
    let server = Program::start(home, &[]);
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        assert_eq!(Token::verified(&answer, server.address).header["kid"], made["kid"]);
    }
}

#[test]
fn generate_refuses_a_directory_with_a_broken_key() {
    let home = Home::new();
    home.write_key("bad.pem", "text");
    let refused = run(home.command(&["key", "generate"]));
    refused.assert_error(1, &["grantd: keys/bad.pem: is not an unencrypted PKCS#8 private key"]);
    let files = home.keys().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let shown = files.filter(|name| !name.as_encoded_bytes().starts_with(b".")).count();
    assert_eq!(shown, 2, "no file is left behind");
    run(home.command(&["key", "list"])).assert_error(1, &["grantd: keys/bad.pem: "]);
}

#[test]
fn times_of_keys_are_printed_and_read_as_rfc_3339_too() {
    let home = Home::without_key();
    let (name, pem) = crate::support::home::signing_key();
    let times = "Published-At: 2026-09-21T14:13:20Z\nSigns-From: 2026-09-21T16:23:20+02:00\n";
    home.write_key(name, &format!("{times}{pem}"));
    let (published_at, signs_from) = (1_790_000_000, 1_790_000_600);
    let [first] = &list(&home)[..] else { panic!("one key") };
    assert_eq!(
        (&first["published_at"], &first["signs_from"]),
        (&json!(published_at), &json!(signs_from))
    );
    let dates =
        json!({ "published_at": "2026-09-21T14:13:20Z", "signs_from": "2026-09-21T14:23:20Z" });
    assert_eq!(first["dates"], dates);

    // A time that RFC 3339 cannot express is left out of `dates`.
    home.write_key(name, &format!("Published-At: 5\nSigns-From: {}\n{pem}", u64::MAX));
    assert_eq!(list(&home)[0]["dates"], json!({ "published_at": "1970-01-01T00:00:05Z" }));
    home.write_key(name, pem);

    let rotated = run(home.command(&["key", "rotate"])).json();
    let names = |dates: &Value| -> Vec<String> {
        dates.as_object().unwrap().keys().map(ToOwned::to_owned).collect()
    };
    assert_eq!(names(&rotated["dates"]), ["published_at", "signs_from"]);
    assert_eq!(names(&rotated["retires"]["dates"]), ["retires_at", "gone_at"]);
    let says = format!(
        "signs from {} ({}), in ",
        rotated["signs_from"],
        rotated["dates"]["signs_from"].as_str().unwrap()
    );
    run(home.command(&["key", "rotate"])).assert_error(1, &[&says]);
}
