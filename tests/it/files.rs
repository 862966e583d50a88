//! Byte order marks, encodings, PEM layouts and mounts, and the errors about files that cannot be
//! used.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::command::{run, run_with_input};
use crate::support::home::{grantd, set_mode, signing_key};
use crate::support::{Home, Program, Signer};

const BOM: &str = "\u{feff}";

#[test]
fn a_byte_order_mark_is_accepted_in_every_text_file() {
    let home = Home::new();
    let client = json!({
        "client_id": "a", "scopes": ["read"], "jwks": "jwks.json",
        "auth_methods": ["private_key_jwt"],
    });
    home.write("clients.json", &format!("{BOM}{}", json!({ "clients": [client] })));
    home.write("jwks.json", &format!("{BOM}{}", Signer::es256().jwks()));
    home.write("g.toml", &format!("{BOM}admin_token_file = \"token\"\n"));
    set_mode(&home.write("token", &format!("{BOM}{}\r\n", "x".repeat(40))), 0o600);
    let (name, pem) = signing_key();
    home.write_key(name, &format!("{BOM}Published-At: 5\nSigns-From: 6\n{pem}"));
    let listed = run(home.command(&["key", "list"]));
    assert!(listed.assert_fine().contains("\"published_at\":5,"), "{listed:?}");
    run(home.command(&["check", "--config", "g.toml"])).assert_fine();
    run(home.command(&["client", "disable", "--id", "a"])).assert_fine();
    let add = ["client", "add", "--id", "b", "--scope", "r", "--jwks", "jwks.json"];
    run(home.command(&add).args(["--method", "private_key_jwt"])).assert_fine();
    for id in ["c", "d"] {
        let line =
            format!("{BOM}{}", json!({ "client_id": id, "scopes": ["r"], "client_secret": "s" }));
        home.write("lines", &line);
        match id {
            "c" => run(home.command(&["client", "import", "lines"])).assert_fine().to_owned(),
            _ => run_with_input(home.command(&["client", "import", "-"]), &line)
                .assert_fine()
                .to_owned(),
        };
    }
    assert_eq!(run(home.command(&["client", "list"])).assert_fine().lines().count(), 4);
    fs::remove_file(home.path("token")).unwrap();
    let server = Program::start(home, &[]);
    drop(server);
}

#[test]
fn a_file_in_another_encoding_is_refused_as_such() {
    let home = Home::new();
    let utf16: Vec<u8> =
        b"\xff\xfe".iter().copied().chain("{}".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    fs::write(home.clients(), &utf16).unwrap();
    fs::write(home.path("g.toml"), &utf16).unwrap();
    run(home.command(&["check"]))
        .assert_error(1, &["clients.json: is in UTF-16: save it in UTF-8"]);
    run(home.command(&["client", "list"])).assert_error(1, &["clients.json: is in UTF-16"]);
    run(home.command(&["check", "--config", "g.toml"])).assert_error(1, &["g.toml: is in UTF-16"]);
    fs::write(home.clients(), b"{\"clients\": [\xe9]}").unwrap();
    run(home.command(&["check"]))
        .assert_error(1, &["clients.json: is not in UTF-8 from byte 14 on"]);
}

#[test]
fn a_key_is_read_in_every_pem_layout() {
    let (name, pem) = signing_key();
    let kid = name.trim_end_matches(".pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let begin = "-----BEGIN PRIVATE KEY-----";
    let end = "-----END PRIVATE KEY-----";
    let wide: Vec<_> =
        body.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for text in [
        format!("{begin}\n{body}\n{end}\n"),
        format!("{begin}\n{}\n{end}", wide.join("\n")),
        pem.replace('\n', "\n\n"),
        pem.replace('\n', "\r\n"),
        format!("{certificate}{pem}"),
        format!("subject=CN = a\n{certificate}{certificate}\n{pem}{certificate}"),
    ] {
        let home = Home::without_key();
        home.write_key("laid-out.pem", &text);
        let listed = run(home.command(&["key", "list"]));
        assert!(listed.assert_fine().contains(kid), "{listed:?}");
        let home = Home::without_key();
        let imported = run_with_input(home.command(&["key", "import", "-"]), &text);
        assert!(imported.assert_fine().contains(kid), "{imported:?}");
    }
    for (label, says) in [
        ("RSA PRIVATE KEY", "a PKCS#1 one (RSA PRIVATE KEY): convert it with `openssl pkcs8"),
        ("ENCRYPTED PRIVATE KEY", "an encrypted one: decrypt it"),
        ("EC PRIVATE KEY", "a key on an elliptic curve"),
        ("CERTIFICATE", "a certificate: its private key is needed"),
        ("PUBLIC KEY", "a public key: its private half"),
    ] {
        let home = Home::without_key();
        home.write_key("other.pem", &pem.replace("PRIVATE KEY", label));
        for command in [&["check"][..], &["key", "list"], &["key", "import", "keys/other.pem"]] {
            run(home.command(command)).assert_error(1, &["keys/other.pem: ", says]);
        }
    }
}

#[test]
fn a_mode_set_by_a_mount_is_refused_with_the_remedy() {
    let home = Home::without_key();
    let (name, pem) = signing_key();
    set_mode(&home.write_key(name, pem), 0o644);
    let says = ["chmod 600", "defaultMode: 0440", "fsGroup"];
    run(home.command(&["check"])).assert_error(1, &says);
    run(home.command(&["key", "import", &format!("keys/{name}")])).assert_error(1, &says);
    // The mode that the error advises (0440) is accepted.
    set_mode(&home.keys().join(name), 0o440);
    run(home.command(&["check"])).assert_fine();
}

#[test]
fn errors_of_the_operating_system_come_with_advice() {
    let home = Home::new();
    let relative = "a relative path is resolved against the working directory";
    for arguments in [
        &["check", "--config", "none.toml"][..],
        &["check", "--clients", "none.json"],
        &["client", "list", "--clients", "none.json"],
        &["client", "import", "none"],
        &["client", "add", "--id", "a", "--method", "private_key_jwt", "--jwks", "none"],
        &["key", "import", "none"],
        &["check", "--admin-token-file", "none"],
    ] {
        run(home.command(arguments)).assert_error(1, &["cannot be read: ", relative]);
    }
    run(home
        .command(&["token", "--url", "http://nonsense.invalid", "--client-id", "a"])
        .env("GRANTD_CLIENT_SECRET", "s"))
    .assert_error(1, &["the name nonsense.invalid has no address", "check its spelling"]);
    let says = "another process listens there: stop it, or choose another with --listen";
    let server = Program::shared();
    let taken = server.address.to_string();
    run(home.command(&["serve", "--listen", &taken, "--admin-listen", "127.0.0.1:0"]))
        .assert_error(1, &[says]);
}

/// The registry file itself is the mount point. Docker mounts a single file in this way.
#[test]
fn a_registry_that_is_a_mount_point_is_refused_for_edits() {
    let home = Home::new();
    let program = grantd(home.clients().parent().unwrap());
    let script = "mount --bind clients.json clients.json && exec \"$@\"";
    let within = |script: &str, arguments: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["-Urm", "sh", "-c", script, "sh"]);
        unshare.arg(program.get_program()).args(arguments);
        run(unshare.current_dir(home.clients().parent().unwrap()))
    };
    if within("mount --bind clients.json clients.json && exit 0 || exit 77", &[]).code != Some(0) {
        // The test is skipped, because this environment does not allow mounting.
        return;
    }
    let before = fs::read(home.clients()).unwrap();
    for arguments in [
        &["client", "disable", "--id", "demo-client"][..],
        &["client", "update", "--id", "demo-client", "--lifetime", "15m"],
        &["client", "remove", "--id", "demo-client"],
        // These commands print no new secret, because they could not write it to the registry.
        &["client", "add", "--id", "new", "--scope", "read"],
        &["client", "rotate-secret", "--id", "demo-client"],
    ] {
        let ended = within(script, arguments);
        ended.assert_error(1, &["clients.json: cannot be written: ", "mount the directory"]);
    }
    assert_eq!(fs::read(home.clients()).unwrap(), before);
}
