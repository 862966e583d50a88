//! `POST /v1/api/oauth/token`, its second version and `validateToken`: the documented examples
//! verbatim, and every code of the error tables.

use serde_json::{Value, json};

use crate::support::sibling::{SECRET, USER, exhausted, home, overloaded};
use crate::support::{Connection, Library, Program, Request, Response, Token};

const TOKEN: &str = "/v1/api/oauth/token";
const VALIDATE: &str = "/v1/api/oauth/validateToken";

/// The request in the service's document, byte for byte.
const DOCUMENTED_REQUEST: &str = r#"{
  "grant_type": "client_credentials",
  "scope": "all",
  "client_id": "vision-api-user",
  "client_secret": "abcdefghizklmnopponommnshfghzxxs"
}"#;

/// The error in the service's document.
const DOCUMENTED_ERROR: &str = r#"[
  {
    "detail": "Please refer to invalid-params for error details",
    "errorCode": "240101",
    "instance": "/v1/api/oauth/token",
    "invalid-params": [
      "Invalid client credentials or scope"
    ],
    "source": "AGT",
    "status": 401,
    "title": "Unauthorized"
  }
]"#;

fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", target).typed_body("application/json", body)
}

/// Returns [`DOCUMENTED_REQUEST`] with these members changed; `null` removes a member.
fn body(changes: &Value) -> String {
    let mut body: Value = serde_json::from_str(DOCUMENTED_REQUEST).unwrap();
    let members = body.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    body.to_string()
}

/// Asserts that the error has the documented members with these values. Returns the error's text.
#[track_caller]
fn assert_error(response: &Response, status: u16, code: &str, instance: &str) -> String {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.header("x-request-id").is_some());
    let body = response.json();
    let [error] = body.as_array().expect("an array").as_slice() else {
        panic!("not one object: {body}")
    };
    let names: Vec<&String> = error.as_object().expect("an object").keys().collect();
    let documented: Value = serde_json::from_str(DOCUMENTED_ERROR).unwrap();
    assert_eq!(names, documented[0].as_object().unwrap().keys().collect::<Vec<_>>());
    assert_eq!(error["errorCode"], code, "{error}");
    assert_eq!(error["instance"], instance);
    assert_eq!(error["source"], "AGT");
    assert_eq!(error["status"], status);
    let [text] = error["invalid-params"].as_array().expect("a list").as_slice() else {
        panic!("not one text: {error}")
    };
    text.as_str().expect("text").to_owned()
}

#[test]
fn the_documented_request_gets_the_documented_answer() {
    let library = Library::start(home(), "https://auth.example", 1_750_384_800);
    let response = post(TOKEN, DOCUMENTED_REQUEST).send(library.address);
    let token = Token::verified(&response, library.address);

    let answer = response.json();
    let names: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["access_token", "token_type", "expires_in"]);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], json!(7199));
    assert_eq!(token.header_text, r#"{"alg":"RS256"}"#);
    assert_eq!(
        token.claims_text,
        r#"{"scope":"all","client_id":"vision-api-user","firstVisionId":"00000AUNAB","exp":1750392000}"#
    );
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("pragma"), Some("no-cache"));
}

#[test]
fn a_wrong_secret_gets_the_documented_error() {
    let program = Program::shared();
    let wrong = post(TOKEN, body(&json!({ "client_secret": "wrong" })));
    let documented: Value = serde_json::from_str(DOCUMENTED_ERROR).unwrap();
    assert_eq!(program.ask(&wrong).text(), documented.to_string());
    assert_eq!(program.ask(&wrong).status, 401);

    // An unknown client and a scope that is not registered for the client get the same answer as a
    // wrong secret.
    for changes in [
        json!({ "client_id": "unknown" }),
        json!({ "scope": "All" }),
        json!({ "scope": "external-api" }),
        json!({ "scope": "all\tedit" }),
        json!({ "scope": "all\n" }),
    ] {
        let response = program.ask(&post(TOKEN, body(&changes)));
        assert_eq!(response.text(), documented.to_string(), "{changes}");
    }
}

#[test]
fn token_profile_switches_to_at_jwt() {
    let library = Library::start(home(), "https://auth.example", 1_750_384_800);
    let changes = json!({ "client_id": "profile", "client_secret": SECRET });
    let response = post(TOKEN, body(&changes)).send(library.address);
    let token = Token::verified(&response, library.address);
    assert_eq!(token.header["typ"], "at+jwt");
    assert_eq!(token.claims["iss"], "https://auth.example");
    assert_eq!(response.json()["expires_in"], json!(7199));
}

#[test]
fn every_refusal_of_a_body_has_its_code() {
    let program = Program::shared();
    let long = |length: usize| "x".repeat(length);
    let cases: [(&str, String); 20] = [
        ("240005", "[]".to_owned()),
        ("240005", "\"text\"".to_owned()),
        ("240005", DOCUMENTED_REQUEST.replacen('{', "{\"scope\": \"all\",", 1)),
        ("240005", body(&json!({ "x": {} })).replace("{}", r#"{"a":1,"a":2}"#)),
        ("240005", body(&json!({ "x": {} })).replace("{}", r#"[{"b":{"a":[],"\u0061":1}}]"#)),
        ("240005", body(&json!({ "scope": {} })).replace("{}", r#"{"a":1,"a":2}"#)),
        ("240006", String::new()),
        ("240006", " \r\n".to_owned()),
        ("240007", "{".to_owned()),
        ("240007", DOCUMENTED_REQUEST.replace("\"scope\"", "scope")),
        ("240007", format!("\u{feff}{DOCUMENTED_REQUEST}")),
        ("240008", body(&json!({ "scope": ["all"] }))),
        ("240008", body(&json!({ "client_id": 1 }))),
        ("240008", body(&json!({ "grant_type": "password" }))),
        ("240008", body(&json!({ "client_secret": "umläut" }))),
        ("240009", body(&json!({ "scope": null }))),
        ("240009", body(&json!({ "client_secret": "" }))),
        ("240010", body(&json!({ "scope": long(101) }))),
        ("240010", body(&json!({ "client_id": long(61) }))),
        ("240010", body(&json!({ "client_secret": long(101) }))),
    ];
    for (code, body) in cases {
        let response = program.ask(&post(TOKEN, body.clone()));
        assert_error(&response, 400, code, TOKEN);
        let text = response.text();
        assert!(!text.contains("xxx"), "{text} repeats {body}");
    }
    for missing in ["grant_type", "scope", "client_id", "client_secret"] {
        let mut body: Value = serde_json::from_str(DOCUMENTED_REQUEST).unwrap();
        body.as_object_mut().unwrap().remove(missing);
        let response = program.ask(&post(TOKEN, body.to_string()));
        assert_error(&response, 400, "240009", TOKEN);
    }
    // A value of exactly the maximum length is well-formed. The error therefore says that the value
    // is wrong, and not that it is too long.
    let at_limit = body(&json!({
        "scope": long(100), "client_id": long(60), "client_secret": long(100),
    }));
    assert_error(&program.ask(&post(TOKEN, at_limit)), 401, "240101", TOKEN);
    let grant_type = |length| body(&json!({ "grant_type": long(length) }));
    assert_error(&program.ask(&post(TOKEN, grant_type(50))), 400, "240008", TOKEN);
    assert_error(&program.ask(&post(TOKEN, grant_type(51))), 400, "240010", TOKEN);
}

#[test]
fn every_refusal_of_a_type_has_its_code() {
    let program = Program::start(home(), &[]);
    let typed = |value: &str| Request::new("POST", TOKEN).typed_body(value, DOCUMENTED_REQUEST);
    let untyped = Request::new("POST", TOKEN).body(DOCUMENTED_REQUEST);
    let octet = body(&json!({ "client_id": "octet", "client_secret": SECRET }));
    let as_octet = Request::new("POST", TOKEN).typed_body("application/octet-stream", &*octet);

    for (request, code, text) in [
        (untyped, "241502", "Content type is not provided"),
        (typed(""), "241502", "Content type is not provided"),
        (typed("text/plain"), "241501", "Media type is not supported"),
        (typed("text"), "241501", "Media type is not supported"),
        (typed("application/x-www-form-urlencoded"), "241501", "Media type is not supported"),
        (typed("application/json; charset=utf-16"), "241501", "Media type is not supported"),
        (
            typed("application/json").header("Content-Encoding", "gzip"),
            "241501",
            "Media type is not supported",
        ),
        (
            typed("application/octet-stream"),
            "241503",
            "Allowed content type for this client is application/json",
        ),
        (post(TOKEN, &*octet), "241504", "Allowed content type for this client is octet-stream"),
    ] {
        assert_eq!(assert_error(&program.ask(&request), 415, code, TOKEN), text);
    }
    assert_eq!(program.ask(&as_octet).status, 200);
    assert_eq!(program.ask(&typed("application/JSON; charset=UTF-8")).status, 200);
    // If the secret is wrong, the server does not answer with the error about the content type,
    // because this error would reveal the client's registered type.
    let stranger = body(&json!({ "client_id": "octet", "client_secret": "wrong" }));
    assert_error(&program.ask(&post(TOKEN, stranger)), 401, "240101", TOKEN);
}

#[test]
fn every_refusal_of_a_message_has_its_code() {
    let program = Program::start(home(), &[]);
    let issued = program.issued();
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        let response = program.ask(&Request::new(method, TOKEN));
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("POST"));
        if method != "HEAD" {
            assert_error(&response, 405, "240501", TOKEN);
        }
    }
    for path in ["/v1/api", "/v1/api/oauth", "/v1/api/oauth/token/", "/v2/api/x"] {
        assert_error(&program.ask(&post(path, DOCUMENTED_REQUEST)), 404, "240008", path);
    }
    let large = " ".repeat(16 * 1024 + 1);
    assert_error(&program.ask(&post(TOKEN, large)), 413, "240008", TOKEN);
    let many = (0..65).fold(post(TOKEN, DOCUMENTED_REQUEST), |request, index| {
        request.header(&format!("x-{index}"), "x")
    });
    assert_error(&program.ask(&many), 431, "240008", TOKEN);
    let target = format!("{TOKEN}?client_secret=abcdefghizklmnopponommnshfghzxxs");
    let in_query = post(&target, DOCUMENTED_REQUEST);
    assert_error(&program.ask(&in_query), 400, "240008", TOKEN);
    let twice = post(TOKEN, DOCUMENTED_REQUEST).basic("a:b");
    assert_error(&program.ask(&twice), 400, "240008", TOKEN);
    let no_host = post(TOKEN, DOCUMENTED_REQUEST).without_header("Host");
    assert_error(&program.ask(&no_host), 400, "240005", TOKEN);
    assert_eq!(program.issued(), issued);
}

/// A list in a list in a list takes no more memory than the same values in one list.
#[test]
fn deeply_nested_lists_take_little_memory() {
    let server = Program::start(home(), &["--allow-demo-clients"]);
    let nested = |depth: usize| {
        let (begin, end) = ("[".repeat(depth), "]".repeat(depth));
        let lists = format!("{begin}{}0{end}", "0,".repeat(7900));
        let answer = server
            .ask(&post(TOKEN, body(&json!({})).replacen('{', &format!("{{\"x\":{lists},"), 1)));
        assert_eq!(answer.status, 200, "{}", answer.text());
        server.most_resident_kib()
    };
    let before = nested(1);
    let after = nested(120);
    assert!(after < before + 8_000, "{before} KiB have become {after}");
}

#[test]
fn a_slow_body_gets_408() {
    let program = Program::configured("[limits]\nrequest_seconds = 1\n");
    let mut connection = Connection::open(program.address);
    let request = post(TOKEN, DOCUMENTED_REQUEST);
    connection.send(&request.head());
    assert_error(&connection.read_answer(), 408, "240008", TOKEN);
    connection.assert_closes();
}

#[test]
fn failures_of_the_server_have_their_codes() {
    let response = overloaded(&post(TOKEN, DOCUMENTED_REQUEST));
    assert_error(&response, 503, "250301", TOKEN);
    assert_eq!(response.header("retry-after"), Some("1"));

    let library = exhausted();
    let response = post(TOKEN, DOCUMENTED_REQUEST).send(library.address);
    assert_error(&response, 500, "250001", TOKEN);
}

#[test]
fn tracing_headers_come_back_on_every_answer() {
    let program = Program::shared();
    let names = [
        ("x-client-correlation-id", 40),
        ("x-client-trace-id", 256),
        ("x-client-source-channel", 40),
        ("x-client-user-id", 40),
    ];
    for (name, longest) in names {
        let value = "ab cd".repeat(longest / 5) + &"e".repeat(longest % 5);
        let good = post(TOKEN, DOCUMENTED_REQUEST).header(name, &*value);
        for request in [
            good.clone(),
            good.clone().body("{"),
            good.clone().with_target("/v1/api/nothing"),
            good.clone().with_target(VALIDATE),
        ] {
            assert_eq!(program.ask(&request).header(name), Some(&*value));
        }
        let response = program.ask(&post(TOKEN, DOCUMENTED_REQUEST).header(name, value + "x"));
        assert_error(&response, 400, "240008", TOKEN);
        assert_eq!(response.header(name), None);
    }
    // Other services do not echo these header fields.
    let elsewhere = Request::get("/nothing").header("x-client-user-id", "me");
    assert_eq!(program.ask(&elsewhere).header("x-client-user-id"), None);
}

#[test]
fn the_second_version_qualifies_scopes_and_names_them() {
    let program = Program::shared();
    let v2 = |query: &str, scope: &str| {
        let target = format!("/v2/api/oauth/token{query}");
        program.ask(&post(&target, body(&json!({ "scope": scope }))))
    };
    for scope in ["accountmanagement.read", "firstvision.accountmanagement.read"] {
        let response = v2("?appContext=firstvision", scope);
        let answer = response.json();
        let names: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["access_token", "token_type", "expires_in", "scope"]);
        assert_eq!(answer["scope"], "firstvision.accountmanagement.read");
        let token = Token::verified(&response, program.address);
        assert_eq!(token.claims["scope"], answer["scope"]);
    }
    let path = "/v2/api/oauth/token";
    assert_error(&v2("?appContext=firstvision", "all"), 401, "240101", path);
    assert_error(&v2("?appContext=aplus", "accountmanagement.read"), 401, "240101", path);
    assert_error(&v2("?appContext=other", "all"), 400, "240008", path);
    assert_error(&v2("", "all"), 400, "240009", path);
}

#[test]
fn validate_token_tells_a_client_about_its_own_tokens() {
    let library = Library::start(home(), "https://auth.example", 1_750_384_800);
    let issue = |request: &Request| {
        let response = request.send(library.address);
        response.json()["access_token"].as_str().expect("a token").to_owned()
    };
    let vision = issue(&post(TOKEN, DOCUMENTED_REQUEST));
    let at_jwt =
        issue(&post(TOKEN, body(&json!({ "client_id": "profile", "client_secret": SECRET }))));
    let ask = |token: &str, client: &str, secret: &str| {
        let body = json!({ "token": token, "client_id": client, "client_secret": secret });
        post(VALIDATE, body.to_string()).send(library.address)
    };

    let (user, secret) = USER;
    assert_eq!(ask(&vision, user, secret).text(), r#"{"valid":true}"#);
    assert_eq!(ask(&at_jwt, "profile", SECRET).text(), r#"{"valid":true}"#);
    // Three tokens are not valid: another client's token, a modified token, and a string that is
    // not a token.
    assert_eq!(ask(&at_jwt, user, secret).text(), r#"{"valid":false}"#);
    let (signed, signature) = vision.rsplit_once('.').unwrap();
    let touched =
        format!("{signed}.{}{signature}", if signature.starts_with('A') { 'B' } else { 'A' });
    assert_eq!(ask(&touched, user, secret).text(), r#"{"valid":false}"#);
    assert_eq!(ask("token", user, secret).text(), r#"{"valid":false}"#);

    let response = ask(&vision, user, "wrong");
    let text = assert_error(&response, 401, "140106", VALIDATE);
    assert_eq!(text, "Invalid client credentials");
    assert_error(&ask("", user, secret), 400, "240009", VALIDATE);

    library.clock.set(1_750_384_800 + 7200);
    assert_eq!(ask(&vision, user, secret).text(), r#"{"valid":false}"#);
}
