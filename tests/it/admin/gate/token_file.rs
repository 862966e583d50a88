//! The file of the admin token, its setting, and the commands that use it.

use std::fs;

use serde_json::{Value, json};

use super::{FILE, TOKEN, bearer, home_with_token, public, with_hosts, write_token};
use crate::support::command::run;
use crate::support::home::{set_mode, signing_key};
use crate::support::registry::client_json;
use crate::support::{Home, Program, Request};

/// Asserts that `check` and `serve`, which both load every file, fail with these errors.
#[track_caller]
fn assert_refused(home: &Home, says: &[&str]) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for command in [&["check"][..], &serve] {
        let ended = run(home.command(command).args(["--admin-token-file", FILE]));
        ended.assert_error(1, says);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn an_unusable_token_file_is_refused_with_the_remedy() {
    let home = Home::new();
    assert_refused(&home, &["grantd: --admin-token-file: admin.token: cannot be read: "]);
    for mode in [0o604, 0o644, 0o601, 0o606] {
        write_token(&home, TOKEN);
        set_mode(&home.path(FILE), mode);
        assert_refused(
            &home,
            &["-file: admin.token: can be read by everyone", "chmod 600", "defaultMode: 0440"],
        );
    }
    let long = "hunter2-".repeat(129);
    for text in
        ["", "\n", "hunter2-hunter2-hunter2-hunter2", "hunter2-hunter2-hunter2-hunter2\r\n", &long]
    {
        write_token(&home, text);
        assert_refused(&home, &["admin.token: must hold one line of 32 to 1024 printable ASCII"]);
    }
    for bad in ["é", " ", "\t", "\n", "\u{7f}", "\0"] {
        write_token(&home, &format!("hunter2-hunter2-{bad}-hunter2-hunter2-hunter2"));
        assert_refused(&home, &["admin.token: must hold one line of 32", "openssl rand -hex 32"]);
    }
    fs::write(home.path(FILE), b"hunter2-hunter2-hunter2-\xff-hunter2-hunter2").unwrap();
    assert_refused(&home, &["admin.token: must hold one line of 32 to 1024 printable ASCII"]);
    // A fault of another file is reported together with the fault of the token file.
    home.write("clients.json", "[]");
    assert_refused(&home, &["grantd: clients.json:1:", "-file: admin.token: must hold one line"]);
}

#[test]
fn admin_token_file_can_be_set_by_flag_variable_and_file() {
    for (ends, mode) in [("", 0o600), ("\n", 0o400), ("\r\n", 0o440)] {
        let home = home_with_token(&format!("\u{feff}{TOKEN}{ends}"));
        set_mode(&home.path(FILE), mode);
        home.write("grantd.toml", &format!("admin_token_file = \"{FILE}\"\n"));
        let mut home = home;
        for (arguments, variables) in [
            (&["--admin-token-file", FILE][..], &[][..]),
            (&[], &[("GRANTD_ADMIN_TOKEN_FILE", FILE)]),
            (&["--config", "grantd.toml"], &[]),
        ] {
            let server = Program::start_with(home, arguments, variables);
            let evil = |request| with_hosts(&request, &[b"evil.example"]).send(server.admin);
            assert_eq!(evil(Request::get("/metrics")).status, 421);
            assert_eq!(evil(bearer(Request::get("/metrics"), TOKEN)).status, 200);
            home = server.into_home();
        }
    }
}

const NEXT: &str = "the-next-admin-token.aB3dE5fG7hJ9";

#[test]
fn a_changed_token_is_noticed_and_a_bad_one_changes_nothing() {
    let server = Program::start(home_with_token(TOKEN), &["--admin-token-file", FILE]);
    let is_right = |token: &str| {
        let request = with_hosts(&bearer(Request::get("/keys"), token), &[b"evil.example"]);
        request.send(server.admin).status == 200
    };
    let reloaded = |generation: u64| {
        let is_it =
            |line: &Value| line["message"] == "reloaded" && line["generation"] == json!(generation);
        server.log.wait_for(is_it)["changes"].clone()
    };
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (true, false));
    // The server notices the changed token file without a signal.
    write_token(&server.home, NEXT);
    assert_eq!(reloaded(2), "admin token");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (false, true));

    write_token(&server.home, "short");
    server.hang_up();
    let refused = |says: &str| {
        let is_it = |line: &Value| line["fault"].as_str().is_some_and(|it| it.contains(says));
        server.log.wait_for(is_it);
    };
    refused("admin.token: must hold one line");
    assert!(is_right(NEXT));
    assert_eq!(server.metric("grantd_reload_refused"), 1);
    write_token(&server.home, TOKEN);
    set_mode(&server.home.path(FILE), 0o644);
    server.hang_up();
    refused("admin.token: can be read by everyone");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (false, true));

    set_mode(&server.home.path(FILE), 0o600);
    server.hang_up();
    assert_eq!(reloaded(3), "admin token");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (true, false));
    let log = std::sync::Arc::clone(&server.log);
    server.terminate();
    let log = log.to_the_end();
    assert!(!log.contains(TOKEN) && !log.contains(NEXT), "{log}");
}

#[test]
fn a_reload_applies_and_removes_the_setting() {
    let home = home_with_token(TOKEN);
    home.write("grantd.toml", "");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let status = || {
        let request = bearer(Request::get("/keys"), TOKEN);
        with_hosts(&request, &[b"evil.example"]).send(server.admin).status
    };
    assert_eq!(status(), 421);
    for (generation, toml, expected) in
        [(2, "admin_token_file = \"admin.token\"\n", 200), (3, "", 421)]
    {
        server.home.write("grantd.toml", toml);
        server.hang_up();
        let is_it =
            |line: &Value| line["message"] == "reloaded" && line["generation"] == json!(generation);
        assert_eq!(server.log.wait_for(is_it)["changes"], "settings; admin token");
        assert_eq!(status(), expected);
    }
}

#[test]
fn every_command_that_asks_a_server_sends_the_token() {
    let Some((server, admin)) = public(home_with_token(TOKEN), &["--admin-token-file", FILE])
    else {
        return;
    };
    let admin = admin.to_string();
    let local = server.admin.to_string();
    let home = &server.home;
    for command in [&["client", "show", "--id", "demo-client"][..], &["key", "list"]] {
        let with = |more: &[&str]| {
            let mut made = home.command(command);
            made.args(more);
            made
        };
        let without = run(with(&["--admin", &admin]));
        without.assert_error(1, &[&format!("grantd: {admin}: answered 401"), "--admin-token-file"]);
        let flag = ["--admin", &admin, "--admin-token-file", FILE];
        let shown = run(with(&flag)).assert_fine().to_owned();
        assert!(shown.contains("\"uses\"") || shown.contains("\"fetches\""), "{shown}");
        let mut by_variable = with(&["--admin", &admin]);
        let by_variable = run(by_variable.env("GRANTD_ADMIN_TOKEN_FILE", FILE));
        assert_eq!(by_variable.assert_fine(), shown);
        // The first command connects to no server, so it does not read the token file, which does
        // not exist. The second command connects through the loopback address, where the server
        // requires no token.
        let none = with(&["--admin-token-file", "none"]);
        run(none).assert_fine();
        run(with(&["--admin", &local])).assert_fine();

        home.write("wrong.token", &"x".repeat(40));
        set_mode(&home.path("wrong.token"), 0o604);
        let wrong = ["--admin", &admin, "--admin-token-file", "wrong.token"];
        let shared = run(with(&wrong));
        shared.assert_error(1, &["_FILE): wrong.token: can be read by everyone"]);
        set_mode(&home.path("wrong.token"), 0o600);
        run(with(&wrong)).assert_error(1, &["answered 401: wrong.token does not hold its admin"]);
    }
}

#[test]
fn check_warns_of_a_public_admin_listener_without_a_token() {
    let home = home_with_token(TOKEN);
    home.register(&[client_json("a", &json!({}))]);
    let (name, pem) = signing_key();
    home.write_key(name, pem);
    let check =
        |arguments: &[&str]| run(home.command(&["check"]).args(arguments)).assert_fine().to_owned();
    let says = "warning: admin_listen: 0.0.0.0:8081: other machines, such as Prometheus, get 401 \
                except from /livez and /readyz; set admin_token_file, or listen on 127.0.0.1\n";
    let public = ["--admin-listen", "0.0.0.0:8081"];
    assert!(check(&public).contains(says));
    for address in ["[::]:8081", "0.0.0.0:8082"] {
        let warned = check(&["--admin-listen", address]);
        assert!(warned.starts_with(&format!("warning: admin_listen: {address}: ")), "{warned}");
    }
    for arguments in [
        &[][..],
        &["--admin-listen", "127.0.0.1:9"],
        &["--admin-listen", "[::1]:9"],
        &["--admin-listen", "localhost:9"],
        &["--admin-listen", "unix:admin.sock"],
        &["--admin-listen", "0.0.0.0:8081", "--admin-token-file", FILE],
    ] {
        assert_eq!(check(arguments), "ok: clients: 1, keys: 1\n", "{arguments:?}");
    }
}
