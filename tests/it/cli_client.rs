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
fn an_added_client_gets_tokens_with_the_printed_secret() {
    let home = Home::new();
    let printed = add(&home, &["--id", "new", "--scope", "read", "--scope", "write"]).json();
    assert_eq!(
        printed.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["client_id", "client_secret"]
    );
    assert_eq!(printed["client_id"], "new");
    let secret = printed["client_secret"].as_str().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32, "256 bits");
    assert!(!fs::read_to_string(home.clients()).unwrap().contains(secret));

    let other = add(&home, &["--id", "newer", "--no-scope"]).json();
    assert_ne!(other["client_secret"], secret);

    let server = Program::start(home, &[]);
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &request_of("new", secret, &[])));
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Without a scope parameter, the client gets all of its scopes.
        assert_eq!(answer.json()["scope"], "read write");
        assert_eq!(answer.json()["expires_in"], 3600);
        let none = other["client_secret"].as_str().unwrap();
        let answer = server.ask(&Request::token(encoding, &request_of("newer", none, &[])));
        answer.assert_refused(400, "unauthorized_client");
    }
}

#[test]
fn every_registered_field_takes_effect() {
    let home = Home::new();
    let arguments = [
        &["--id", "new", "--scope", "read", "--lifetime", "60", "--secret-stdin"][..],
        &["--audience", "https://api.example/one", "--audience", "urn:example:two"],
        &["--claim", "tenant=a=b", "--claim", "empty=", "--method", "client_secret_basic"],
    ]
    .concat();
    let mut command = home.command(&["client", "add"]);
    let added = run_with_input(command.args(arguments), &format!("{LONG_SECRET}\r\n"));
    // A secret from standard input is not printed.
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
fn an_unusable_secret_is_refused_and_not_printed() {
    let home = Home::new();
    let before = fs::read(home.clients()).unwrap();
    for (secret, says) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("hunter2-hunter2\nhunter2-hunter2-hunter2-hunter2", "printable ASCII"),
        ("hünter2-hunter2-hunter2-hunter2-hunter2", "printable ASCII"),
    ] {
        let mut command = home.command(&["client", "add", "--id", "new", "--secret-stdin"]);
        let ended = run_with_input(&mut command, secret);
        ended.assert_error(1, &["grantd: the secret ", says]);
        assert!(!ended.stderr.contains("unter2"), "{}", ended.stderr);
    }
    let mut command = home.command(&["client", "add", "--id", "new", "--secret-stdin"]);
    let short = run_with_input(command.args(["--hash", "sha256"]), "hunter2");
    short.assert_error(1, &["grantd: the secret has fewer than 32 characters"]);
    assert!(!short.stderr.contains("hunter2"), "{}", short.stderr);
    assert_eq!(fs::read(home.clients()).unwrap(), before);
}

#[test]
fn sha256_is_refused_for_a_secret_of_fewer_than_32_characters() {
    let home = Home::new();
    let (long, short) = ("hunter2-".repeat(4), "hunter2-".repeat(4)[1..].to_owned());
    let before = fs::read(home.clients()).unwrap();
    let says = "grantd: the secret has fewer than 32 characters, which sha256 does not protect";
    let commands = [
        &["client", "add", "--id", "new", "--no-scope"][..],
        &["client", "rotate-secret", "--id", "demo-client"],
    ];
    for command in commands {
        let with = |secret: &str| {
            let mut command = home.command(command);
            run_with_input(command.args(["--secret-stdin", "--hash", "sha256"]), secret)
        };
        for secret in [&short[..], "h", &format!("{short}\r\n")] {
            let refused = with(secret);
            refused.assert_error(1, &[says, "omit --hash"]);
            assert!(!refused.stderr.contains("unter2"), "{}", refused.stderr);
            assert_eq!(fs::read(home.clients()).unwrap(), before, "{command:?}");
        }
    }
    for command in commands {
        let mut command = home.command(command);
        run_with_input(command.args(["--secret-stdin", "--hash", "sha256"]), &long).assert_fine();
    }
    // `client import` has no `--hash`: the length of each secret decides which hash is used.
    let line = |id: &str, secret: &str| json!({ "client_id": id, "client_secret": secret, "scopes": ["read"] });
    let lines = format!("{}\n{}", line("is-short", &short), line("is-long", &long));
    let with_hash = ["client", "import", "--hash", "sha256", "-"];
    run_with_input(home.command(&with_hash), &lines).assert_error(2, &["--hash"]);
    run_with_input(home.command(&["client", "import", "-"]), &lines).assert_fine();
    let text = fs::read_to_string(home.clients()).unwrap();
    let registry: Value = serde_json::from_str(&text).unwrap();
    for (id, begins) in [("is-short", "$argon2id$"), ("is-long", "$sha256$"), ("new", "$sha256$")] {
        let mut clients = registry["clients"].as_array().unwrap().iter();
        let client = clients.find(|client| client["client_id"] == id).unwrap();
        let hash = client["secrets"][0]["hash"].as_str().unwrap();
        assert!(hash.starts_with(begins), "{id}: {hash}");
    }
}

#[test]
fn a_secrets_hash_follows_from_its_length_or_from_the_option() {
    let home = Home::new();
    let (long, short) = ("x".repeat(32), "x".repeat(31));
    for (id, secret, arguments, begins) in [
        ("long", &long, &[][..], "$sha256$"),
        ("short", &short, &[], "$argon2id$v=19$m=19456,t=2,p=1$"),
        ("slow", &long, &["--hash", "argon2id"], "$argon2id$v=19$m=19456,t=2,p=1$"),
        ("rounds", &short, &["--hash", "pbkdf2-sha256"], "$pbkdf2-sha256$i=600000,l=32$"),
    ] {
        let mut command = home.command(&["client", "add", "--id", id, "--secret-stdin"]);
        run_with_input(command.args(["--scope", "read"]).args(arguments), secret).assert_fine();
        let registry: Value =
            serde_json::from_str(&fs::read_to_string(home.clients()).unwrap()).unwrap();
        let added = registry["clients"].as_array().unwrap().last().unwrap();
        let hash = added["secrets"][0]["hash"].as_str().unwrap();
        assert!(hash.starts_with(begins), "{id}: {hash}");
    }
    let server = Program::start(home, &[]);
    for (id, secret) in [("long", &long), ("short", &short), ("slow", &long), ("rounds", &short)] {
        let answer = server.ask(&Request::token(ENCODINGS[0], &request_of(id, secret, &[])));
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    }
}

#[test]
fn a_client_that_cannot_be_added_changes_nothing() {
    let home = Home::new();
    let before = fs::read(home.clients()).unwrap();
    for (arguments, says) in [
        (&["--id", "demo-client"][..], "--id: clients.json has a client with this id already"),
        (&["--id", ""], "--id: must be one or more printable ASCII characters"),
        (&["--id", "é"], "--id: must be one or more printable ASCII characters"),
        (&["--id", "new", "--scope", "a\"b"], "--scope: must hold scope tokens"),
        (&["--id", "new", "--scope", "a", "--scope", "a"], "--scope: must hold scope tokens"),
        (&["--id", "new", "--scope", " "], "--scope: is empty"),
        (&["--id", "new", "--default-scope", "a"], "--default-scope: names a scope that is not"),
        (&["--id", "new", "--lifetime", "0"], "--lifetime: must be a number of seconds"),
        (&["--id", "new", "--token-reuse", "2h"], "--token-reuse: must be a number of seconds"),
        (&["--id", "new", "--claim", "sub=admin"], "--claim: must not set a claim of the token"),
        (&["--id", "new", "--claim", "a=1", "--claim", "a:=2"], "--claim: gives a twice"),
        (&["--id", "new", "--audience", ""], "--audience: must not hold an empty string"),
        (&["--id", "new", "--method", "private_key_jwt"], "--method: holds private_key_jwt"),
        (&["--id", "new", "--token-profile", "x"], "--token-profile: must be \"at+jwt\""),
        (&["--id", "new", "--rate-limit", "0/1m"], "--rate-limit: must be {\"requests\""),
        (&["--id", "new", "--tls-client-auth-san-ip", "x"], "--tls-client-auth-san-ip: "),
    ] {
        let ended = add(&home, arguments);
        ended.assert_error(1, &[&format!("grantd: {says}")]);
        // The fault is in an argument, so the error names no line of the registry.
        assert!(!ended.stderr.contains(".json:"), "{}", ended.stderr);
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{arguments:?}");
    }
    home.write("clients.json", "{\"clients\": [");
    add(&home, &["--id", "new"])
        .assert_error(1, &["clients.json:1:13: is not valid JSON here: EOF while parsing a list"]);
    assert_eq!(fs::read_to_string(home.clients()).unwrap(), "{\"clients\": [");
}

#[test]
fn adding_a_client_changes_no_other_byte_of_the_file() {
    let home = Home::new();
    let before = "{ \"clients\" : [\n\t{\"scopes\":[ ],   \"client_id\":\"b\"},\r\n\
                  {\"client_id\":\"a\"}\n\n  ]\n\n}\n\n";
    home.write("clients.json", before);
    crate::support::home::set_mode(&home.clients(), 0o640);
    add(&home, &["--id", "new", "--no-scope"]).assert_fine();
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
fn the_first_client_creates_the_registry_with_mode_600() {
    let home = Home::new();
    fs::remove_file(home.clients()).unwrap();
    add(&home, &["--id", "first", "--scope", "read"]).assert_fine();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(home.clients()).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(home.clients()).unwrap();
    assert!(text.starts_with("{\n  \"clients\": [\n    {\n      \"client_id\": \"first\","));
    assert!(text.ends_with("\n    }\n  ]\n}\n"), "{text}");
    let checked = run(home.command(&["check"]));
    assert_eq!(checked.assert_fine(), "ok: clients: 1, keys: 1\n");
}

#[test]
fn clients_added_concurrently_are_all_registered() {
    let home = Home::new();
    let before = run(home.command(&["client", "list"])).assert_fine().lines().count();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let home = &home;
            scope.spawn(move || {
                add(home, &["--id", &format!("new-{index}"), "--no-scope"]).assert_fine().len()
            });
        }
    });
    let after = run(home.command(&["client", "list"])).assert_fine().lines().count();
    assert_eq!(after, before + 8);
}

#[test]
fn list_and_show_hold_no_secret_and_no_hash() {
    let home = Home::new();
    let list = run(home.command(&["client", "list"]));
    let lines = list.json_lines();
    assert_eq!(lines[0]["client_id"], "demo-client");
    assert_eq!(lines[0]["scopes"], json!(["external-api"]));
    assert_eq!((&lines[0]["enabled"], &lines[0]["token_lifetime"]), (&json!(true), &json!(3600)));
    assert!(lines.iter().all(|line| line.get("secrets").is_none()));

    let show = run(home.command(&["client", "show", "--id", "vision-api-user"]));
    let shown = show.json();
    assert_eq!(shown["claims"], json!({ "firstVisionId": "00000AUNAB" }));
    assert_eq!(shown["secrets"], json!([{ "label": "demo", "state": "valid" }]));
    assert_eq!(shown["token_lifetime"], 7200);

    let registry = fs::read_to_string(home.clients()).unwrap();
    let hash = hash_of("demo-secret-for-local-use-only-0001");
    assert!(registry.contains(&hash), "the hash to look for is the right one");
    for output in [&list.stdout, &show.stdout] {
        assert!(!output.contains("$sha256$") && !output.contains(&hash["$sha256$".len()..]));
    }
    let unknown = run(home.command(&["client", "show", "--id", "unknown"]));
    unknown
        .assert_error(1, &["grantd: clients.json: has no such client; see `grantd client list`"]);
}

fn client(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&["client"]).args(arguments))
}

/// Returns the registry's `text` with the only occurrence of `from` replaced by `to`.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

#[test]
fn edits_change_no_other_byte() {
    let home = Home::new();
    let before = "{ \"clients\" : [\n\t{\"scopes\":[ ],   \"client_id\":\"b\"},\r\n\
                  {\"client_id\":\"a\",  \"enabled\" :true}\n\n  ]\n\n}\n\n";
    home.write("clients.json", before);
    let text = || fs::read_to_string(home.clients()).unwrap();
    assert_eq!(client(&home, &["disable", "--id", "a"]).assert_fine(), "");
    let disabled = replaced(before, "\"enabled\" :true", "\"enabled\" :false");
    assert_eq!(text(), disabled);
    // The client has no secret, so the command warns.
    let enabled = client(&home, &["enable", "--id", "a"]);
    assert_eq!(enabled.code, Some(0));
    assert!(enabled.stderr.contains("client a: it can get no token: it has no secret"));
    assert_eq!(text(), before);
    client(&home, &["disable", "--id", "b"]).assert_fine();
    assert_eq!(text(), replaced(before, "\"b\"}", "\"b\",   \"enabled\": false}"));
    client(&home, &["remove", "--id", "b"]).assert_fine();
    assert_eq!(
        text(),
        "{ \"clients\" : [\n\t{\"client_id\":\"a\",  \"enabled\" :true}\n\n  ]\n\n}\n\n"
    );

    let kept = text();
    for arguments in [
        &["disable", "--id", "unknown"][..],
        &["enable", "--id", "unknown"],
        &["remove", "--id", "unknown"],
        &["rotate-secret", "--id", "unknown"],
        &["expire-secret", "--id", "unknown", "--label", "x"],
    ] {
        let says = "grantd: clients.json: has no such client; see `grantd client list`";
        client(&home, arguments).assert_error(1, &[says]);
    }
    client(&home, &["expire-secret", "--id", "a", "--label", "x"])
        .assert_error(1, &["no secret of this label"]);
    assert_eq!(text(), kept);
}

#[test]
fn a_disabled_client_gets_nothing_until_it_is_enabled() {
    let home = Home::new();
    client(&home, &["disable", "--id", "demo-client"]).assert_fine();
    let ask = |server: &Program| server.ask(&Request::token(ENCODINGS[0], &crate::support::DEMO));
    let server = Program::start(home, &[]);
    ask(&server).assert_refused(400, "invalid_client");
    let home = server.into_home();
    client(&home, &["enable", "--id", "demo-client"]).assert_fine();
    assert_eq!(ask(&Program::start(home, &[])).status, 200);
}

#[test]
fn the_old_secret_stays_valid_until_it_is_expired() {
    let home = Home::new();
    let rotate = |home: &Home, more: &[&str]| {
        let ended =
            run(home.command(&["client", "rotate-secret", "--id", "demo-client"]).args(more));
        let printed = ended.json();
        assert_eq!(printed["client_id"], "demo-client");
        printed["client_secret"].as_str().unwrap().to_owned()
    };
    let labels = |home: &Home| {
        let shown = client(home, &["show", "--id", "demo-client"]).json();
        let secrets = shown["secrets"].as_array().unwrap().clone();
        secrets
            .iter()
            .map(|secret| secret["label"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let second = rotate(&home, &["--label", "second"]);
    let third = rotate(&home, &[]);
    let fourth = rotate(&home, &["--keep-old"]);
    let labels = labels(&home);
    assert_eq!(labels[..2], ["demo", "second"]);
    assert_eq!((labels.len(), labels[2].len()), (4, "2026-01-01".len()));
    assert_ne!(labels[3], labels[2], "a label is there once");
    let before = fs::read(home.clients()).unwrap();
    client(&home, &["rotate-secret", "--id", "demo-client", "--label", "second"])
        .assert_error(1, &["grantd: --label: the client has a secret of this label already"]);
    client(&home, &["rotate-secret", "--id", "a", "--keep-old", "--expire-old", "1"])
        .assert_error(2, &["cannot be used with"]);
    assert_eq!(fs::read(home.clients()).unwrap(), before);

    let status = |server: &Program, secret: &str| {
        let request = Request::token(ENCODINGS[0], &request_of("demo-client", secret, &[]));
        server.ask(&request).status
    };
    let first = "demo-secret-for-local-use-only-0001";
    let server = Program::start(home, &[]);
    for secret in [first, &second, &third, &fourth] {
        assert_eq!(status(&server, secret), 200);
    }
    let home = server.into_home();
    client(&home, &["expire-secret", "--id", "demo-client", "--label", "second"]).assert_fine();
    let server = Program::start(home, &[]);
    for (secret, expected) in [(first, 200), (&second, 400), (&third, 200), (&fourth, 200)] {
        assert_eq!(status(&server, secret), expected);
    }
    let home = server.into_home();
    let fifth = rotate(&home, &["--expire-old", "0"]);
    let server = Program::start(home, &[]);
    for (secret, expected) in [(first, 400), (&second, 400), (&fourth, 400), (&fifth, 200)] {
        assert_eq!(status(&server, secret), expected);
    }
    let home = server.into_home();
    let mut command = home.command(&["client", "rotate-secret", "--id", "demo-client"]);
    let given = run_with_input(command.args(["--secret-stdin", "--expire-old", "3600"]), "short");
    assert_eq!(given.assert_fine(), "{\"client_id\":\"demo-client\"}\n");
    let server = Program::start(home, &[]);
    for (secret, expected) in [(&*fifth, 200), ("short", 200), (&fourth, 400)] {
        assert_eq!(status(&server, secret), expected);
    }
}

#[test]
fn concurrent_edits_are_all_kept() {
    let home = Home::new();
    std::thread::scope(|scope| {
        for index in 0..4 {
            let home = &home;
            scope.spawn(move || {
                let label = format!("label-{index}");
                let id = "demo-client";
                client(home, &["rotate-secret", "--id", id, "--label", &label]).assert_fine();
                add(home, &["--id", &format!("new-{index}"), "--no-scope"]).assert_fine();
            });
        }
    });
    let text = fs::read_to_string(home.clients()).unwrap();
    for index in 0..4 {
        assert!(text.contains(&format!("\"label-{index}\"")), "{index}");
        assert!(text.contains(&format!("\"new-{index}\"")), "{index}");
    }
}
