//! A client's id, a label or an audience must not begin or end with a space. Otherwise two
//! different names could look the same.

use std::fs;

use serde_json::{Value, json};

use crate::support::command::{run, run_with_input};
use crate::support::home::{hash_of, secret_of};
use crate::support::{DEMO, ENCODINGS, Encoding, Home, Program, Request, request_of};

/// The error about a client's id in the registry. The next constants are the errors about the other
/// fields.
const ID: &str = "client_id: must not begin or end with a space";
const LABEL: &str = "secrets: has a label that begins or ends with a space";
const AUDIENCE: &str = "audience: must not hold a string that begins or ends with a space";
const INTROSPECTS: &str = "introspects: must not hold a string that begins or ends with a space";

/// Returns registry entries with a name that begins or ends with a space, each with the expected
/// error.
fn look_alikes() -> Vec<(Value, &'static str)> {
    let label = |label: &str| json!([{ "label": label, "hash": hash_of(&secret_of("a")) }]);
    vec![
        (json!({ "client_id": "admin " }), ID),
        (json!({ "client_id": " admin" }), ID),
        (json!({ "client_id": " " }), ID),
        (json!({ "client_id": "other", "secrets": label("first ") }), LABEL),
        (json!({ "client_id": "other", "secrets": label("  first") }), LABEL),
        (json!({ "client_id": "other", "audience": ["https://api.example "] }), AUDIENCE),
        (json!({ "client_id": "other", "audience": ["a", " b"] }), AUDIENCE),
        (json!({ "client_id": "other", "introspects": [" https://api.example"] }), INTROSPECTS),
    ]
}

#[test]
fn a_name_with_outer_spaces_is_refused_in_the_registry() {
    let home = Home::new();
    let admin = json!({ "client_id": "admin" });
    for (entry, says) in look_alikes() {
        home.register(&[admin.clone(), entry]);
        let says = ["grantd: clients.json:1:", &format!(": clients[1].{says}")];
        run(home.command(&["check"])).assert_error(1, &says);
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        run(home.command(&serve)).assert_error(1, &says);
    }
    // A space inside a name is allowed, because it is visible.
    home.register(&[admin, json!({ "client_id": "ad min", "audience": ["a b"] })]);
    run(home.command(&["check"])).assert_fine();
}

#[test]
fn a_name_with_outer_spaces_is_refused_by_every_command() {
    let home = Home::new();
    home.register(&[json!({ "client_id": "admin" })]);
    let before = fs::read(home.clients()).unwrap();
    for (arguments, says) in [
        (&["add", "--id", "admin "][..], "--id: must not begin or end with a space"),
        (&["add", "--id", " admin"], "--id: must not begin or end with a space"),
        (
            &["add", "--id", "other", "--audience", "https://api.example "],
            "--audience: must not hold a string that begins or ends with a space",
        ),
        (
            &["update", "--id", "admin", "--introspects", " a"],
            "--introspects: must not hold a string that begins or ends with a space",
        ),
        (
            &["rotate-secret", "--id", "admin", "--label", "first "],
            "--label: begins or ends with a space",
        ),
        (&["rotate-secret", "--id", "admin", "--label", ""], "--label: is empty; leave it out"),
    ] {
        let ended = run(home.command(&["client"]).args(arguments));
        ended.assert_error(1, &[&format!("grantd: {says}")]);
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{arguments:?}");
    }
    for (entry, says) in look_alikes() {
        let ended = run_with_input(home.command(&["client", "import", "-"]), &entry.to_string());
        ended.assert_error(1, &["grantd: standard input:1:", says]);
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{entry}");
    }
}

#[test]
fn an_id_with_outer_spaces_is_refused_by_reload_and_unknown_in_requests() {
    let server = Program::start(Home::new(), &[]);
    for id in ["demo-client ", " demo-client"] {
        for encoding in ENCODINGS {
            let answer = server.ask(&Request::token(encoding, &request_of(id, DEMO[1].1, &[])));
            answer.assert_refused(400, "invalid_client");
            let line = server.log.of_request(answer.header("x-request-id").unwrap());
            assert_eq!((&line["cause"], &line["client"]), (&json!("unknown_client"), &json!("")));
        }
        let basic = Request::token(Encoding::Urlencoded, &[DEMO[2]]);
        let answer = server.ask(&basic.basic(&format!("{id}:{}", DEMO[1].1)));
        answer.assert_refused(401, "invalid_client");
    }
    let registry = fs::read_to_string(server.home.clients()).unwrap();
    let twin =
        registry.replacen("\"client_id\": \"no-scope\"", "\"client_id\": \"demo-client \"", 1);
    assert_ne!(registry, twin);
    server.home.write("clients.json", &twin);
    server.hang_up();
    let is_it = |line: &Value| line["fault"].as_str().is_some_and(|fault| fault.contains(ID));
    server.log.wait_for(is_it);
    let good = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    assert_eq!(good.status, 200, "{}", good.text());
}
