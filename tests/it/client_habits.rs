//! Requests as client libraries send them by default. The server accepts some of them. For the
//! others, the tests check the error text.

use serde_json::{Value, json};

use crate::support::registry::client_with_hash;
use crate::support::sibling::{self, USER};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, Response, TOKEN, Token,
    demo_with, form, request_of, wait_until,
};

/// Labels of charsets in which ASCII text has the same bytes as in UTF-8. The server accepts these
/// labels for ASCII text.
const ASCII_LABELS: [&str; 6] =
    ["ISO-8859-1", "iso-8859-1", "\"windows-1252\"", "US-ASCII", "latin1", "cp1252"];
const OTHER_LABELS: [&str; 5] = ["utf-16", "utf-7", "iso-8859-15", "shift_jis", "\"\""];

const VISION: &str = "/v1/api/oauth/token";
const FIRSTVISION: &str = "/v1/getAccessToken";

fn vision_body(secret: &str, scope: &str) -> String {
    json!({
        "grant_type": "client_credentials",
        "scope": scope,
        "client_id": USER.0,
        "client_secret": secret,
    })
    .to_string()
}

fn vision(content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", VISION).typed_body(content_type, body)
}

fn firstvision(target: &str, content_type: &str) -> Request {
    let (user, secret) = USER;
    Request::get(target).header("Content-Type", content_type).basic(&format!("{user}:{secret}"))
}

fn description(answer: &Response) -> String {
    answer.json()["error_description"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_charset_that_includes_ascii_is_accepted_for_ascii() {
    let server = Program::start(sibling::home(), &[]);
    for label in ASCII_LABELS.into_iter().chain(["utf-8", "UTF8"]) {
        for encoding in ENCODINGS {
            let content_type = format!("{}; charset={label}", encoding.content_type());
            let body = form::encode(encoding, &DEMO);
            let answer = server.ask(&Request::new("POST", TOKEN).typed_body(&content_type, body));
            assert_eq!(answer.status, 200, "{label}: {}", answer.text());
        }
        let json = format!("application/json; charset={label}");
        let answer = server.ask(&vision(&json, vision_body(USER.1, "all")));
        assert_eq!(answer.status, 200, "{label}: {}", answer.text());
        // The scope is in the query, in the path or (below the loop) in the body.
        for target in [format!("{FIRSTVISION}?scope=all"), format!("{FIRSTVISION}/all")] {
            assert_eq!(server.ask(&firstvision(&target, &json)).status, 200, "{label}");
        }
        let with_body = firstvision(FIRSTVISION, &json).body(r#"{scope: ["all"]}"#);
        assert_eq!(server.ask(&with_body).status, 200, "{label}");
    }
}

#[test]
fn another_charset_is_refused() {
    let server = Program::start(sibling::home(), &[]);
    for label in OTHER_LABELS {
        for encoding in ENCODINGS {
            let content_type = format!("{}; charset={label}", encoding.content_type());
            let body = form::encode(encoding, &DEMO);
            let request = Request::new("POST", TOKEN).typed_body(&content_type, body);
            server.ask(&request).assert_refused(415, "invalid_request");
        }
        let json = format!("application/json; charset={label}");
        let answer = server.ask(&vision(&json, vision_body(USER.1, "all")));
        assert_eq!(answer.json()[0]["errorCode"], "241501", "{label}");
        for request in [
            firstvision(&format!("{FIRSTVISION}?scope=all"), &json),
            firstvision(FIRSTVISION, &json).body(r#"{scope: ["all"]}"#),
        ] {
            let answer = server.ask(&request);
            assert_eq!(answer.json()["errorCode"], "AGT415UMT", "{label}: {}", answer.text());
        }
    }
}

/// Text beyond ASCII is ambiguous if its label is one of [`ASCII_LABELS`]: its bytes may be in that
/// charset or in UTF-8.
#[test]
fn text_beyond_ascii_under_such_a_charset_is_refused() {
    let server = Program::start(sibling::home(), &[]);
    for label in ASCII_LABELS {
        for (encoding, value) in [
            (Encoding::Urlencoded, &b"%E9"[..]),
            (Encoding::Urlencoded, b"%C3%A9"),
            (Encoding::Urlencoded, b"\xC3\xA9"),
            (Encoding::Urlencoded, b"\xE9"),
            (Encoding::Multipart, b"\xC3\xA9"),
            (Encoding::Multipart, b"\xE9"),
        ] {
            let marked = form::encode(encoding, &demo_with(&[("note", "MARK")]));
            let at = crate::support::http::find(&marked, b"MARK").unwrap();
            let body = [&marked[..at], value, &marked[at + 4..]].concat();
            let content_type = format!("{}; charset={label}", encoding.content_type());
            let request = Request::new("POST", TOKEN).typed_body(&content_type, body);
            server.ask(&request).assert_refused(415, "invalid_request");
        }
        let json = format!("application/json; charset={label}");
        for scope in ["all \u{e9}", "all"] {
            let note = if scope == "all" { "\\u00e9" } else { "" };
            let body =
                vision_body(USER.1, scope).replacen('{', &format!("{{\"note\":\"{note}\","), 1);
            assert_eq!(
                server.ask(&vision(&json, body)).json()[0]["errorCode"],
                "241501",
                "{label}"
            );
        }
        let body = "{scope: [\"all\"], \"note\": \"\u{e9}\"}";
        let answer = server.ask(&firstvision(FIRSTVISION, &json).body(body));
        assert_eq!(answer.json()["errorCode"], "AGT415UMT", "{label}: {}", answer.text());
    }
}

/// Returns the demo client's multipart form with one more part, which has these headers and this
/// value.
fn with_part(headers: &str, value: &[u8]) -> Request {
    let mut body = b"--X\r\n".to_vec();
    for (name, value) in DEMO {
        let part =
            format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--X\r\n");
        body.extend(part.bytes());
    }
    body.extend([headers.as_bytes(), b"\r\n\r\n", value, b"\r\n--X--\r\n"].concat());
    Request::new("POST", TOKEN).typed_body("multipart/form-data; boundary=X", body)
}

const NOTE: &str = "Content-Disposition: form-data; name=\"note\"";

#[test]
fn parts_may_have_charsets_empty_types_and_a_trailing_semicolon() {
    let server = Program::shared();
    let mut heads: Vec<_> = ASCII_LABELS
        .into_iter()
        .map(|label| format!("{NOTE}\r\nContent-Type: text/plain; charset={label}"))
        .collect();
    heads.extend([
        format!("{NOTE};"),
        format!("{NOTE} ; "),
        "Content-Disposition: form-data; ; name=note".to_owned(),
        format!("{NOTE}\r\nContent-Type:"),
        format!("{NOTE}\r\nContent-Type:  "),
        format!("Content-Type: \r\n{NOTE};"),
    ]);
    for head in heads {
        let answer = server.ask(&with_part(&head, b"x"));
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    }
    for label in ASCII_LABELS {
        let head = format!("{NOTE}\r\nContent-Type: text/plain; charset={label}");
        for value in [&b"\xE9"[..], b"\xC3\xA9"] {
            let answer = server.ask(&with_part(&head, value));
            answer.assert_refused(400, "invalid_request");
            assert!(description(&answer).contains("charset of every part"), "{}", answer.text());
        }
    }
    for label in OTHER_LABELS {
        let head = format!("{NOTE}\r\nContent-Type: text/plain; charset={label}");
        server.ask(&with_part(&head, b"x")).assert_refused(400, "invalid_request");
    }
    for head in ["Content-Disposition: form-data;;", "Content-Disposition: form-data; name=a; =b"] {
        server.ask(&with_part(head, b"x")).assert_refused(400, "invalid_request");
    }
}

#[test]
fn a_boundary_that_needs_quotes_is_refused_with_the_remedy() {
    let server = Program::shared();
    for boundary in ["----=_Part_1", "a/b", "x?y; charset=utf-8", "(x)"] {
        let name = boundary.split(';').next().unwrap();
        let body = format!("--{name}\r\n{NOTE}\r\n\r\nx\r\n--{name}--\r\n");
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let request = Request::new("POST", TOKEN).typed_body(&content_type, body);
        let answer = server.ask(&request);
        answer.assert_refused(400, "invalid_request");
        assert!(description(&answer).contains("boundary"), "{}", answer.text());
        assert!(description(&answer).contains("quotes"), "{}", answer.text());
    }
    let body = String::from_utf8(form::encode(Encoding::Multipart, &DEMO)).unwrap();
    let body = body.replace("----grantd-7MA4YWxkTrZu0gW", "----=_Part_1");
    let quoted = "multipart/form-data; boundary=\"----=_Part_1\"";
    let answer = server.ask(&Request::new("POST", TOKEN).typed_body(quoted, body));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn json_sent_as_a_form_is_refused_as_json() {
    let server = Program::shared();
    let json = serde_json::to_string(&std::collections::BTreeMap::from(DEMO)).unwrap();
    let pretty = format!(" \r\n{}\n", json.replace(',', ",\n  "));
    for path in [TOKEN, "/connect/introspect", "/connect/revocation"] {
        for encoding in ENCODINGS {
            for body in [&json, &pretty, "{}"] {
                let request = Request::new("POST", path).typed_body(encoding.content_type(), body);
                let answer = server.ask(&request);
                answer.assert_refused(400, "invalid_request");
                assert!(description(&answer).contains("The body is JSON"), "{}", answer.text());
            }
        }
    }
    // The server does not mistake a form for JSON if a value in the form contains braces.
    let form = [form::encode(Encoding::Urlencoded, &DEMO), b"&note={}".to_vec()].concat();
    let request = Request::new("POST", TOKEN).typed_body(Encoding::Urlencoded.content_type(), form);
    assert_eq!(server.ask(&request).status, 200);
}

#[test]
fn a_file_part_is_refused_with_the_remedy() {
    let server = Program::shared();
    for head in [
        format!("{NOTE}; filename=\"note\""),
        format!("{NOTE}; filename=note\r\nContent-Type: application/octet-stream"),
        format!("{NOTE}; filename*=UTF-8''note"),
    ] {
        let answer = server.ask(&with_part(&head, b"x"));
        answer.assert_refused(400, "invalid_request");
        assert!(description(&answer).contains("(None, 'value')"), "{}", answer.text());
    }
}

#[test]
fn extra_spaces_in_a_scope_are_ignored() {
    let server = Program::start(sibling::home(), &[]);
    let granted = |answer: &Response| {
        let token = Token::verified(answer, server.address);
        token.claims["scope"].as_str().unwrap().to_owned()
    };
    for scope in [" all edit", "all edit ", "  all   edit  "] {
        for encoding in ENCODINGS {
            let (client, secret) = USER;
            let parameters = [
                ("grant_type", "client_credentials"),
                ("client_id", client),
                ("client_secret", secret),
                ("scope", scope),
            ];
            let answer = server.ask(&Request::token(encoding, &parameters));
            assert_eq!(answer.json()["scope"], "all edit", "{scope:?}: {}", answer.text());
            assert_eq!(granted(&answer), "all edit");
        }
        let json = "application/json";
        assert_eq!(granted(&server.ask(&vision(json, vision_body(USER.1, scope)))), "all edit");
        let encoded = scope.replace(' ', "%20");
        for request in [
            firstvision(&format!("{FIRSTVISION}?scope={encoded}"), json),
            firstvision(&format!("{FIRSTVISION}/{encoded}"), json),
            firstvision(FIRSTVISION, json).body(r#"{"scope": [" all", "edit "]}"#),
        ] {
            assert_eq!(granted(&server.ask(&request)), "all edit", "{scope:?}");
        }
    }
    // A scope that consists of spaces counts as empty, so the default scope applies.
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &demo_with(&[("scope", "  ")])));
        assert_eq!(answer.json()["scope"], "external-api", "{}", answer.text());
    }
    for scope in ["external-api\t", "\u{a0}external-api", "external-api\r\n"] {
        let request = Request::token(Encoding::Urlencoded, &demo_with(&[("scope", scope)]));
        server.ask(&request).assert_refused(400, "invalid_scope");
    }
}

#[test]
fn vision_names_a_field_that_is_missing_or_too_long() {
    let server = Program::start(sibling::home(), &[]);
    let told = |answer: &Response, code: &str| {
        let error = answer.json()[0].clone();
        assert_eq!(error["errorCode"], code, "{error}");
        error["invalid-params"][0].as_str().unwrap().to_owned()
    };
    let whole: Value = serde_json::from_str(&vision_body(USER.1, "all")).unwrap();
    for field in ["grant_type", "scope", "client_id", "client_secret"] {
        let (mut missing, mut long) = (whole.clone(), whole.clone());
        missing[field] = "".into();
        long[field] = "x".repeat(101).into();
        for (body, code) in [(missing, "240009"), (long, "240010")] {
            let answer = server.ask(&vision("application/json", body.to_string()));
            assert!(told(&answer, code).ends_with(&format!(": {field}")), "{}", answer.text());
        }
    }
    let body = vision_body(USER.1, "all");
    let no_context =
        Request::new("POST", "/v2/api/oauth/token").typed_body("application/json", body);
    assert!(told(&server.ask(&no_context), "240009").ends_with(": appContext"));
    let no_token = Request::new("POST", "/v1/api/oauth/validateToken")
        .typed_body("application/json", r#"{"client_id":"a","client_secret":"b"}"#);
    assert!(told(&server.ask(&no_token), "240009").ends_with(": token"));
}

#[test]
fn a_path_that_is_not_found_is_answered_with_the_token_paths() {
    let server = Program::shared();
    for path in ["/connect/token/", "/oauth/token", "/oauth2/token", "/token", "/oauth"] {
        for request in
            [Request::get(path), Request::token(Encoding::Urlencoded, &DEMO).with_target(path)]
        {
            let answer = server.ask(&request);
            answer.assert_refused(404, "invalid_request");
            for documented in [TOKEN, VISION, FIRSTVISION] {
                assert!(description(&answer).contains(documented), "{path}: {}", answer.text());
            }
        }
    }
    for path in
        ["/v1/api/oauth/tokens", "/v2/api/token", "/v1/getAccessToken/", "/v1/getAccessToken/a/b"]
    {
        let answer = server.ask(&Request::get(path));
        assert_eq!(answer.status, 404);
        for documented in [TOKEN, VISION, FIRSTVISION] {
            assert!(answer.text().contains(documented), "{path}: {}", answer.text());
        }
    }
}

/// Complete requests: one for each encoding and dialect, and one for the metadata.
fn whole_requests() -> Vec<Request> {
    let mut requests: Vec<_> = ENCODINGS.map(|encoding| Request::token(encoding, &DEMO)).into();
    requests.extend([
        vision("application/json", vision_body(USER.1, "all")),
        firstvision(&format!("{FIRSTVISION}?scope=all"), "application/json"),
        Request::get("/.well-known/openid-configuration"),
    ]);
    requests
}

#[test]
fn a_client_that_half_closes_its_connection_gets_its_answer() {
    let server = Program::start(sibling::home(), &[]);
    for request in whole_requests() {
        let chunked = request.to_chunked_bytes(7);
        let kinds =
            [Some(request.to_bytes()), (!request.body_bytes().is_empty()).then_some(chunked)];
        for bytes in kinds.into_iter().flatten() {
            // The server may receive the end of the stream together with the request, or after the
            // request. The test sends the request 20 times, so that both cases are likely to occur.
            for _ in 0..20 {
                let mut connection = Connection::open(server.address);
                connection.send(&bytes);
                connection.finish_sending();
                let answer = connection.read_if_answered().expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                connection.assert_closes();
            }
        }
    }
    // Each of several pipelined requests is answered.
    let one = Request::token(Encoding::Urlencoded, &DEMO).to_bytes();
    let mut connection = Connection::open(server.address);
    connection.send(&one.repeat(3));
    connection.finish_sending();
    for _ in 0..3 {
        assert_eq!(connection.read_answer().status, 200);
    }
    connection.assert_closes();
}

/// A bcrypt hash that takes about a second to compute.
const SLOW: &str = "$2b$14$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m";

#[test]
fn a_reset_connection_loses_its_place_in_the_hash_queue() {
    let home = Home::new();
    home.register(
        &["first", "second", "left", "ended", "piped"].map(|id| client_with_hash(id, SLOW)),
    );
    home.write("grantd.toml", "[limits]\npassword_threads = 1\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let ask = |id: &str| {
        let request = Request::token(Encoding::Urlencoded, &request_of(id, "x", &[]));
        request.header("X-Request-Id", id).to_bytes()
    };
    let waiting = || server.metric("grantd_password_queue ");
    let [mut first, mut second] = [(); 2].map(|()| Connection::open(server.address));
    first.send(&ask("first"));
    second.send(&ask("second"));
    // Waits until the server computes the hash for one request and the other request is in the
    // queue.
    wait_until(|| waiting() == 1 && waiting() == 1);
    for id in ["left", "ended", "piped"] {
        // Sends two or three requests on one connection and does not read the first answer. Because
        // of the unread answer, the kernel resets the connection when the test closes it.
        let mut connection = Connection::open(server.address);
        let keys = Request::get("/.well-known/jwks.json").to_bytes();
        let third = if id == "piped" { &keys[..] } else { &[] };
        connection.send(&[&keys, &ask(id), third].concat());
        connection.wait_for_bytes();
        wait_until(|| waiting() == 2);
        if id == "ended" {
            connection.finish_sending();
        }
        drop(connection);
        assert_eq!(server.log.of_request(id)["outcome"], "abandoned");
        wait_until(|| waiting() <= 1);
    }
    for mut connection in [first, second] {
        connection.read_answer().assert_refused(400, "invalid_client");
    }
    assert_eq!(server.metric("grantd_password_hashes_total "), 2);
}

#[test]
fn a_refusal_before_the_body_announces_the_close() {
    let server = Program::start(sibling::home(), &[]);
    let demo = Request::token(Encoding::Urlencoded, &DEMO);
    let vision = vision("application/json", vision_body(USER.1, "all"));
    let padded = |request: &Request| request.clone().body(vec![b'x'; 20_000]);
    for (request, status) in [
        (demo.clone().with_target("/oauth/token"), 404),
        (vision.clone().with_target("/v1/api/nothing"), 404),
        (demo.clone().with_target("/v1/getAccessToken/"), 404),
        (demo.clone().with_target("/v1/getAccessToken"), 405),
        (demo.clone().with_target("/.well-known/openid-configuration"), 405),
        (demo.clone().header("Content-Encoding", "gzip"), 415),
        (vision.clone().header("Content-Encoding", "br"), 415),
        (padded(&demo), 413),
        (padded(&vision), 413),
        (demo.clone().header("X-Long", "x".repeat(17_000)), 431),
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(&request.header("Expect", "100-continue").head());
        let answer = connection.read_answer();
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{}", answer.text());
        connection.assert_closes();
    }
    // If the whole body has arrived, the refusal leaves the connection open.
    let mut connection = Connection::open(server.address);
    for _ in 0..2 {
        let answer = connection.ask(&demo.clone().with_target("/oauth/token"));
        assert_eq!((answer.status, answer.header("connection")), (404, None));
    }
    // If a body is too long to be discarded, the refusal announces that the connection closes.
    let mut connection = Connection::open(server.address);
    let long = demo.with_target("/oauth/token").body(vec![b'x'; 3 << 20]);
    connection.send_if_open(&long.to_bytes());
    if let Some(answer) = connection.read_if_answered() {
        assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    }
}
