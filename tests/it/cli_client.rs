//! `grantd client`: registering clients, and showing them without their secrets.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::command::{Ended, run, run_with_input};
use crate::support::home::hash_of;
use crate::support::{ENCODINGS, Home, Program, Request, Token, request_of};

const LONG_SECRET: &str = "a secret of more than 32 characters: %&+";

fn add(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&["client", "add"]).args(arguments))
}

#[test]
fn a_client_that_was_added_gets_tokens_with_the_secret_that_was_printed() {
    let home = Home::new();
    let added = add(&home, &["--id", "new", "--scope", "read", "--scope", "write"]);
    let printed: Value = serde_json::from_str(added.assert_fine()).unwrap();
    assert_eq!(
        printed.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["client_id", "client_secret"]
    );
    assert_eq!(printed["client_id"], "new");
    let secret = printed["client_secret"].as_str().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32, "256 bits");
    assert!(!fs::read_to_string(home.clients()).unwrap().contains(secret));

    let again = add(&home, &["--id", "newer"]);
    let other: Value = serde_json::from_str(again.assert_fine()).unwrap();
    assert_ne!(other["client_secret"], secret);

    let server = Program::start(home, &[]);
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &request_of("new", secret, &[])));
        assert_eq!(answer.status, 200, "{}", answer.text());
        // It gets all of its scopes if it asks for none.
        assert_eq!(answer.json()["scope"], "read write");
        assert_eq!(answer.json()["expires_in"], 3600);
        let none = other["client_secret"].as_str().unwrap();
        let answer = server.ask(&Request::token(encoding, &request_of("newer", none, &[])));
        answer.assert_refused(400, "unauthorized_client");
    }
}

#[test]
fn what_was_registered_is_honoured() {
    let home = Home::new();
    let arguments = [
        &["--id", "new", "--scope", "read", "--lifetime", "60", "--secret-stdin"][..],
        &["--audience", "https://api.example/one", "--audience", "urn:example:two"],
        &["--claim", "tenant=a=b", "--claim", "empty=", "--method", "client_secret_basic"],
    ]
    .concat();
    let mut command = home.command(&["client", "add"]);
    let added = run_with_input(command.args(arguments), &format!("{LONG_SECRET}\r\n"));
    // A secret that was given is not printed.
    assert_eq!(added.assert_fine(), "{\"client_id\":\"new\"}\n");
    assert!(!fs::read_to_string(home.clients()).unwrap().contains(LONG_SECRET));

    let server = Program::start(home, &[]);
    for encoding in ENCODINGS {
        let posted = Request::token(encoding, &request_of("new", LONG_SECRET, &[]));
        server.ask(&posted).assert_refused(400, "invalid_client");
        let secret = crate::support::form::percent_encode(LONG_SECRET.as_bytes());
        let grant = [("grant_type", "client_credentials")];
        let request = Request::token(encoding, &grant).basic(&format!("new:{secret}"));
        let answer = server.ask(&request);
        assert_eq!(answer.json()["expires_in"], 60, "{}", answer.text());
        let token = Token::verified(&answer, server.address);
        assert_eq!(token.claims["aud"], json!(["https://api.example/one", "urn:example:two"]));
        assert_eq!((&token.claims["tenant"], &token.claims["empty"]), (&json!("a=b"), &json!("")));
        let [exp, iat] = ["exp", "iat"].map(|name| token.claims[name].as_u64().unwrap());
        assert_eq!(exp - iat, 60);
    }
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_and_not_repeated() {
    let home = Home::new();
    let before = fs::read(home.clients()).unwrap();
    for (secret, says) in [
        ("hunter2-hunter2-hunter2-hunter2", "fewer than 32 characters"),
        ("", "fewer than 32 characters"),
        ("\n", "fewer than 32 characters"),
        ("hunter2-hunter2\nhunter2-hunter2-hunter2-hunter2", "printable ASCII"),
        ("hünter2-hunter2-hunter2-hunter2-hunter2", "printable ASCII"),
    ] {
        let mut command = home.command(&["client", "add", "--id", "new", "--secret-stdin"]);
        let ended = run_with_input(&mut command, secret);
        ended.assert_error(1, &["grantd: the secret ", says]);
        assert!(!ended.stderr.contains("unter2"), "{}", ended.stderr);
    }
    let mut command = home.command(&["client", "add", "--id", "new", "--secret-stdin"]);
    run_with_input(&mut command, &"x".repeat(32)).assert_fine();
    assert_ne!(fs::read(home.clients()).unwrap(), before);
}

#[test]
fn a_client_that_cannot_be_added_changes_nothing() {
    let home = Home::new();
    let before = fs::read(home.clients()).unwrap();
    for (arguments, says) in [
        (&["--id", "demo-client"][..], "client_id: is registered twice"),
        (&["--id", ""], "client_id: must be one or more printable ASCII characters"),
        (&["--id", "é"], "client_id: must be one or more printable ASCII characters"),
        (&["--id", "new", "--scope", "a b"], "scopes: must hold scope tokens"),
        (&["--id", "new", "--scope", "a", "--scope", "a"], "scopes: must hold scope tokens"),
        (&["--id", "new", "--lifetime", "0"], "token_lifetime: must be a number of seconds"),
        (&["--id", "new", "--claim", "sub=admin"], "claims: must not set a claim of the token"),
        (&["--id", "new", "--audience", ""], "audience: must not hold an empty string"),
    ] {
        add(&home, arguments).assert_error(1, &["grantd: clients.json:", says]);
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{arguments:?}");
    }
    home.write("clients.json", "{\"clients\": [");
    add(&home, &["--id", "new"]).assert_error(1, &["clients.json:1: is not valid JSON here"]);
    assert_eq!(fs::read_to_string(home.clients()).unwrap(), "{\"clients\": [");
}

#[test]
fn the_rest_of_the_file_stays_as_its_author_wrote_it() {
    let home = Home::new();
    let before = "{ \"clients\" : [\n\t{\"scopes\":[ ],   \"client_id\":\"b\"},\r\n\
                  {\"client_id\":\"a\"}\n\n  ]\n\n}\n\n";
    home.write("clients.json", before);
    crate::support::home::set_mode(&home.clients(), 0o640);
    add(&home, &["--id", "new"]).assert_fine();
    let after = fs::read_to_string(home.clients()).unwrap();
    let kept = before.find("\n\n  ]").unwrap();
    assert_eq!(after[..kept], before[..kept]);
    assert!(after.ends_with("]\n\n}\n\n"), "{after}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(home.clients()).unwrap().permissions().mode() & 0o777, 0o640);

    let ids: Value = serde_json::from_str(&after).unwrap();
    let ids: Vec<_> =
        ids["clients"].as_array().unwrap().iter().map(|client| &client["client_id"]).collect();
    assert_eq!(ids, ["b", "a", "new"]);
}

#[test]
fn the_first_client_makes_the_file_for_its_owner_alone() {
    let home = Home::new();
    fs::remove_file(home.clients()).unwrap();
    add(&home, &["--id", "first", "--scope", "read"]).assert_fine();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(home.clients()).unwrap().permissions().mode() & 0o777, 0o600);
    let checked = run(home.command(&["check"]));
    assert_eq!(checked.assert_fine(), "ok: clients: 1, keys: 1\n");
}

#[test]
fn clients_that_are_added_at_the_same_time_are_all_there() {
    let home = Home::new();
    let before = run(home.command(&["client", "list"])).assert_fine().lines().count();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let home = &home;
            scope.spawn(move || add(home, &["--id", &format!("new-{index}")]).assert_fine().len());
        }
    });
    let after = run(home.command(&["client", "list"])).assert_fine().lines().count();
    assert_eq!(after, before + 8);
}

#[test]
fn list_and_show_hold_no_secret_and_no_hash() {
    let home = Home::new();
    let list = run(home.command(&["client", "list"]));
    let lines: Vec<Value> =
        list.assert_fine().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["client_id"], "demo-client");
    assert_eq!(lines[0]["scopes"], json!(["external-api"]));
    assert_eq!((&lines[0]["enabled"], &lines[0]["token_lifetime"]), (&json!(true), &json!(3600)));
    assert!(lines.iter().all(|line| line.get("secrets").is_none()));

    let show = run(home.command(&["client", "show", "--id", "vision-api-user"]));
    let shown: Value = serde_json::from_str(show.assert_fine()).unwrap();
    assert_eq!(shown["claims"], json!({ "firstVisionId": "00000AUNAB" }));
    assert_eq!(shown["secrets"], json!([{ "label": "demo" }]));
    assert_eq!(shown["token_lifetime"], 7200);

    let registry = fs::read_to_string(home.clients()).unwrap();
    let hash = hash_of("demo-secret-for-local-use-only-0001");
    assert!(registry.contains(&hash), "the hash to look for is the right one");
    for output in [&list.stdout, &show.stdout] {
        assert!(!output.contains("$sha256$") && !output.contains(&hash["$sha256$".len()..]));
    }
    let unknown = run(home.command(&["client", "show", "--id", "nobody"]));
    unknown
        .assert_error(1, &["grantd: clients.json: has no such client; see `grantd client list`"]);
}
