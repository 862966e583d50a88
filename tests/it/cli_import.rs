//! `grantd client import`.

use std::fs;

use crate::support::command::{run, run_with_input};
use crate::support::home::hash_of;
use crate::support::{ENCODINGS, Home, Program, Request, request_of};

const LONG_SECRET: &str = "a secret of more than 32 characters: %&+";

#[test]
fn an_import_registers_every_line_or_none() {
    let home = Home::new();
    let lines = [
        r#"{"client_id":"plain","client_secret":"a-secret-of-32-characters-or-more","scopes":["read"],"default_scopes":["read"]}"#.to_owned(),
        String::new(),
        r#"{"client_secret":"short","client_id":"short","scopes":["read"],"default_scopes":["read"]}"#.to_owned(),
        format!(r#"  {{"client_id":"hashed", "secrets":[{{"label":"a","hash":"{}"}}],"scopes":["read"],"default_scopes":["read"]}} "#, hash_of(LONG_SECRET)),
    ];
    let before = fs::read_to_string(home.clients()).unwrap();
    home.write("clients.jsonl", &lines.join("\n"));
    assert_eq!(
        run(&mut home.command(&["client", "import", "clients.jsonl"])).assert_fine(),
        "{\"imported\":3}\n"
    );
    let after = fs::read_to_string(home.clients()).unwrap();
    let kept = before.trim_end().trim_end_matches(['}', ']', ' ', '\n']);
    assert!(after.starts_with(kept), "the rest stays");
    assert!(after.contains(&format!("    {}\n", lines[3].trim())), "a line is written as it is");
    for secret in ["a-secret-of-32-characters-or-more", "\"short\"}", "client_secret\""] {
        assert!(
            !after.contains(&format!("\"client_secret\":{secret}"))
                && !after.contains("client_secret\":"),
            "{secret}"
        );
    }
    assert!(after.contains("$argon2id$v=19$m=19456,t=2,p=1$"));

    let input = format!("{{\"client_id\":\"new\"}}\n{}", lines.join("\n"));
    let again = run_with_input(home.command(&["client", "import", "-"]), &input);
    let says =
        "client_id: is registered in clients.json already; `grantd client update` changes it";
    let expected = [2, 4, 5].map(|line| format!("grantd: standard input:{line}: {says}\n"));
    again.assert_error(1, &[]);
    assert_eq!(again.stderr, expected.concat());
    assert_eq!(fs::read_to_string(home.clients()).unwrap(), after);

    let server = Program::start(home, &[]);
    for (id, secret) in [
        ("plain", "a-secret-of-32-characters-or-more"),
        ("short", "short"),
        ("hashed", LONG_SECRET),
    ] {
        let answer = server.ask(&Request::token(ENCODINGS[0], &request_of(id, secret, &[])));
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    }
}

#[test]
fn an_import_with_faults_names_their_lines_and_changes_nothing() {
    let home = Home::new();
    let before = fs::read(home.clients()).unwrap();
    let lines = [
        r#"{"client_id":"a"}"#,
        r#"{"client_id":"b","scopes":["x y"],"client_secret":"hunter2"}"#,
        r#"{"client_id":"a"}"#,
        r#"{"client_id":"c","hunter":2}"#,
        r#"{"client_id":"d","client_secret":"hünter2"}"#,
        r#"{"client_id":"e","client_secret":["hunter2"]}"#,
        r#"{"client_id":"f","#,
        r#"["hunter2"]"#,
        r#"{"client_id":"g","claims":{"a":{"b":1,"b":"hunter2"}}}"#,
        r#"{"client_id":"h","jwks":{"keys":[{"kty":"RSA","x5c":1,"x5c":"hunter2"}]}}"#,
    ];
    let ended = run_with_input(home.command(&["client", "import", "-"]), &lines.join("\n"));
    ended.assert_error(
        1,
        &[
            "standard input:2:27: scopes: must hold scope tokens",
            "standard input:3: client_id: is registered on line 1 too",
            "standard input:4:25: unknown field `hunter`",
            "standard input:5: client_secret: must be printable ASCII",
            "standard input:6:1: must be an object whose client_secret",
            "standard input:7:17: is not valid JSON here: EOF while parsing",
            "standard input:8:1: must be an object",
            "standard input:9:27: claims: repeats the name \"b\" in one object",
            "standard input:10:25: jwks: repeats the name \"x5c\" in one object",
        ],
    );
    assert_eq!(ended.stderr.lines().count(), 10, "{}", ended.stderr);
    assert!(!ended.stderr.contains("unter2"), "{}", ended.stderr);
    assert_eq!(fs::read(home.clients()).unwrap(), before);
}
