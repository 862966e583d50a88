//! No secret and no token is in logs, metrics or other output for operators.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::canary::{CANARY, parts_of_token, refused};
use crate::support::home::{hash_of, secret_of};
use crate::support::http::exchange_cut_off;
use crate::support::registry::client_with_hash;
use crate::support::sibling::USER;
use crate::support::{DEMO, ENCODINGS, Home, Program, Request, demo_with, request_of};

#[test]
fn no_secret_and_no_token_is_logged_or_counted() {
    let mut server = Program::configured("audit = \"audit.jsonl\"\n[log]\nlevel = \"debug\"\n");
    let mut explained = String::new();
    let mut hidden: Vec<String> = vec![CANARY.to_owned()];
    hidden.extend([CANARY, &format!("demo-client:{CANARY}")].map(|text| STANDARD.encode(text)));
    for (index, (request, cause)) in refused().into_iter().enumerate() {
        let id = format!("refused-{index}");
        let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
        assert!(answer.status >= 400, "{cause}");
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
        let line = server.log.of_request(&id);
        assert_eq!((&line["outcome"], &line["cause"]), (&"refused".into(), &cause.into()));
        assert_eq!(line["status"], answer.status);
        let explanation = Request::get(&format!("/explain/{id}")).send(server.admin);
        assert_eq!(explanation.json()["refusals"][0]["cause"], cause);
        explained.push_str(explanation.text());
    }
    for (index, encoding) in ENCODINGS.into_iter().enumerate() {
        let by_header = Request::token(encoding, &[("grant_type", "client_credentials")])
            .basic("demo-client:demo-secret-for-local-use-only-0001");
        for (way, request) in [("post", Request::token(encoding, &DEMO)), ("basic", by_header)] {
            let id = format!("granted-{way}-{index}");
            let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
            hidden.extend(parts_of_token(&answer));
            let line = server.log.of_request(&id);
            assert_eq!(
                (&line["outcome"], &line["client"]),
                (&"issued".into(), &"demo-client".into())
            );
        }
        let bytes = Request::token(encoding, &demo_with(&[("x", CANARY)])).to_bytes();
        exchange_cut_off(server.address, &bytes[..bytes.len() - 1]);
        exchange_cut_off(server.address, &[b"\0", CANARY.as_bytes(), b"\r\n\r\n"].concat());
    }
    hidden.extend(["demo-secret-for-local-use-only-0001".to_owned(), STANDARD.encode(DEMO[1].1)]);
    hidden.extend(["expired", "disabled"].map(secret_of));

    let metrics = server.metrics();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log.to_the_end();
    let audit = std::fs::read_to_string(server.home.path("audit.jsonl")).unwrap();
    for text in [&log, &metrics, &audit, &explained] {
        assert!(text.contains("demo-client"), "{text}");
        for secret in &hidden {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

#[test]
fn the_request_id_of_an_answer_finds_its_cause_in_the_log() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let unknown = request_of("unknown", "x", &[]);
        let known = request_of("one-audience", "x", &[]);
        let ask = |parameters: &[(&str, &str)]| {
            let answer = server.ask(&Request::token(encoding, parameters));
            answer.assert_refused(400, "invalid_client");
            server.log.of_request(answer.header("x-request-id").unwrap())
        };
        let (unknown, known) = (ask(&unknown), ask(&known));
        // The client gets the same answer for both faults; the log distinguishes them.
        assert_eq!((&unknown["cause"], &unknown["client"]), (&"unknown_client".into(), &"".into()));
        let expected = (&"wrong_secret".into(), &"one-audience".into());
        assert_eq!((&known["cause"], &known["client"]), expected);
        for line in [unknown, known] {
            assert_eq!(line["level"], "WARN");
            assert_eq!((&line["route"], &line["method"]), (&"token".into(), &"POST".into()));
            assert_eq!(line["status"], 400);
            assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        }
    }
}

/// A hash of one of the two demo secrets, made by argon2-cffi.
const ARGON2ID_OF_A_DEMO_SECRET: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$WlgTyfM0yd2r4AqxcM7JFBPa0f5wyzzM+09iDZh1Pts";
/// A hash of the other demo secret, made by Python's bcrypt.
const BCRYPT_OF_A_DEMO_SECRET: &str =
    "$2b$04$TnE0l4bsgWyWTvjvvWPBke6KZ2NVrdtsTO4UyIBFZ8pVlY/1pwPxO";

/// The demo secrets are public. The server refuses them, whichever kind of hash the registry has.
#[test]
fn a_demo_secret_is_refused_where_demo_clients_are_not_allowed() {
    let clients = [
        ("fast", hash_of("abcdefghizklmnopponommnshfghzxxs")),
        ("argon", ARGON2ID_OF_A_DEMO_SECRET.to_owned()),
        ("bcrypt", BCRYPT_OF_A_DEMO_SECRET.to_owned()),
        ("other", hash_of(&secret_of("other"))),
    ];
    let secret = |id: &str| match id {
        "argon" => DEMO[1].1.to_owned(),
        "other" => secret_of("other"),
        _ => USER.1.to_owned(),
    };
    // Starts a server that has only the clients in `ids`. The client `fast` has the SHA-256 hash of
    // a demo secret. With such a hash, the server refuses to start unless demo clients are allowed,
    // so some registries do not contain `fast`.
    let start = |ids: &[&str], toml: &str, arguments: &[&str]| {
        let home = Home::new();
        let stored = clients
            .iter()
            .filter(|(id, _)| ids.contains(id))
            .map(|(id, hash)| client_with_hash(id, hash));
        let stored: Vec<_> = stored.collect();
        home.register(&stored);
        home.write("grantd.toml", toml);
        Program::start(home, &[&["--config", "grantd.toml"], arguments].concat())
    };
    let statuses = |server: &Program, id: &str| -> Vec<(u16, Vec<u8>)> {
        let asked = crate::throttle::questions(id, &secret(id)).into_iter();
        asked.map(|question| server.ask(&question)).map(|it| (it.status, it.body)).collect()
    };
    let is_public = "issuer = \"https://auth.example\"\n";
    let slow = ["argon", "bcrypt", "other"];
    let server = start(&slow, is_public, &[]);
    for id in ["argon", "bcrypt"] {
        let refused = statuses(&server, id);
        let wrong = crate::throttle::questions(id, "wrong").into_iter();
        let wrong: Vec<_> =
            wrong.map(|it| server.ask(&it)).map(|it| (it.status, it.body)).collect();
        assert_eq!(refused, wrong, "{id}");
        let counted =
            r#"grantd_requests_total{cause="demo_secret",outcome="refused",route="token"}"#;
        assert!(server.metric(counted) >= 4, "{id}");
    }
    assert_eq!(statuses(&server, "other")[0].0, 200);
    // If demo clients are allowed, the server accepts a demo secret from every client that is
    // registered with a hash of this secret.
    for (toml, arguments) in [("", &[][..]), (is_public, &["--allow-demo-clients"])] {
        let server = start(&["fast", "argon", "bcrypt"], toml, arguments);
        for id in ["fast", "argon", "bcrypt"] {
            assert_eq!(statuses(&server, id)[0].0, 200, "{id}");
        }
    }
}
