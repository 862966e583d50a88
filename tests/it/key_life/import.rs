//! `grantd key import`: keys that were made elsewhere, and retired keys that are imported again.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{JWKS, files, first_kid, key, kids, now, one, put_key, seconds};
use crate::support::command::{Ended, run_with_input};
use crate::support::home::{set_mode, signing_key};
use crate::support::{DEMO, Encoding, Home, Program, Request, Token};

#[test]
fn a_key_made_elsewhere_can_be_imported() {
    let home = Home::without_key();
    fs::remove_dir(home.keys()).unwrap();
    // Headers in front of the imported key are dropped.
    let text = format!("Signs-From: 5\n{}", signing_key().1);
    set_mode(&home.write("elsewhere.pem", &text), 0o600);
    let first = one(&key(&home, &["import", "elsewhere.pem"]));
    assert_eq!((&first["kid"], &first["bits"]), (&json!(first_kid()), &json!(2048)));
    assert_eq!(first["published_at"], first["signs_from"]);
    assert!(now().abs_diff(seconds(&first, "signs_from")) < 600, "{first}");
    assert_eq!(fs::read_to_string(home.path("elsewhere.pem")).unwrap(), text);
    let kept = home.keys().join(&signing_key().0);
    let kept_text = fs::read_to_string(&kept).unwrap();
    assert!(kept_text.ends_with(&signing_key().1));
    assert_eq!(mode(&kept), 0o600);
    assert_eq!(mode(&home.keys()), 0o700);

    // The second key is read from standard input. It is published before it signs.
    let other = Home::without_key();
    let made = one(&key(&other, &["generate", "--bits", "3072"]));
    let name = format!("{}.pem", made["kid"].as_str().unwrap());
    let text = fs::read_to_string(other.keys().join(name)).unwrap();
    let second = one(&run_with_input(home.command(&["key", "import", "-"]), &text));
    assert_eq!((&second["kid"], &second["bits"]), (&made["kid"], &json!(3072)));
    assert_eq!(seconds(&second, "signs_from"), seconds(&second, "published_at") + 600);
    let server = Program::start(home, &[]);
    assert_eq!(kids(&server.ask(&Request::get(JWKS))).len(), 2);
    let token = server.ask(&Request::token(Encoding::Multipart, &DEMO));
    assert_eq!(Token::verified(&token, server.address).header["kid"], first_kid());
}

#[test]
fn import_refuses_what_the_server_would_not_load() {
    let home = Home::new();
    let (name, pem) = signing_key();
    let refused = |ended: &Ended, says: &str| {
        ended.assert_error(1, &[says]);
        // The error contains no line of the key file.
        assert!(!pem.lines().any(|line| line.len() == 64 && ended.stderr.contains(line)));
        assert_eq!(files(&home), [&**name]);
    };
    for (text, says) in [
        (pem.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "is not an unencrypted PKCS#8 private key"),
        (pem[..pem.len() / 2].to_owned(), "is not an unencrypted PKCS#8 private key"),
        ("hunter2\n".to_owned(), "is not an unencrypted PKCS#8 private key in PEM"),
        (crate::cli_faults::SHORT_KEY.to_owned(), "is not a usable RSA key of 2048 to 4096 bits"),
        (
            crate::cli_faults::EXPONENT_KEY.to_owned(),
            "is not a usable RSA key of 2048 to 4096 bits: its public exponent is less than 65537",
        ),
        (crate::cli_faults::CURVE_KEY.to_owned(), "is not a usable RSA key of 2048 to 4096 bits"),
        (pem.clone(), "already"),
    ] {
        set_mode(&home.write("a.pem", &text), 0o600);
        let there = format!("grantd: keys/{name}: already holds the key {}", first_kid());
        let is_there = says == "already";
        let by_file = if is_there { there.clone() } else { format!("grantd: a.pem: {says}") };
        refused(&key(&home, &["import", "a.pem"]), &by_file);
        let by_pipe = if is_there { there } else { format!("grantd: standard input: {says}") };
        refused(&run_with_input(home.command(&["key", "import", "-"]), &text), &by_pipe);
    }
    set_mode(&home.path("a.pem"), 0o644);
    let open = "grantd: a.pem: can be read by everyone on this machine";
    refused(&key(&home, &["import", "a.pem"]), open);
    refused(&key(&home, &["import", "none.pem"]), "grantd: none.pem: cannot be read: ");
    assert_eq!(key(&home, &["import"]).code, Some(2));
    // A failed import creates no directory.
    key(&home, &["import", "--keys", "new", "none.pem"]).assert_error(1, &["none.pem"]);
    set_mode(&home.write("a.pem", "text"), 0o600);
    key(&home, &["import", "--keys", "new", "a.pem"]).assert_error(1, &["a.pem"]);
    assert!(!home.path("new").exists());
}

#[test]
fn a_retired_key_can_be_imported_again() {
    let home = Home::new();
    let at = now();
    put_key(&home, 0, at - 1000);
    let retired = one(&key(&home, &["retire", first_kid()]));
    assert_eq!(retired["state"], "retiring");
    let file = retired["file"].as_str().unwrap();
    let back = one(&key(&home, &["import", file]));
    assert_eq!(back["kid"], first_kid());
    assert!(seconds(&back, "signs_from") > at);
    // If a key is retired twice, both retirements move it to the same file.
    assert_eq!(one(&key(&home, &["retire", first_kid()]))["file"], file);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
