//! `GET /v1/getAccessToken`: the example in the service's document, verbatim, and every code of the
//! error tables.

use serde_json::{Value, json};

use crate::support::sibling::{SECRET, USER, exhausted, home, overloaded};
use crate::support::{Connection, Library, Program, Request, Response, Token};

const PATH: &str = "/v1/getAccessToken";

/// The payload in the service's document, byte for byte. It is not JSON: the key has no quotes.
const DOCUMENTED_PAYLOAD: &str = r#"{scope: ["firstvision.accountmanagement.read"]}"#;

const SCOPE: &str = "firstvision.accountmanagement.read";
const INVALID: &str = "Invalid client credentials or scope";

/// Returns a request as in the service's document, but without a scope.
fn get(target: &str) -> Request {
    let (user, secret) = USER;
    Request::get(target)
        .header("Content-Type", "application/json")
        .basic(&format!("{user}:{secret}"))
}

#[track_caller]
fn assert_error(response: &Response, status: u16, code: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let expected = json!({ "errorCode": code, "errorMessage": message });
    assert_eq!(response.text(), expected.to_string());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.header("x-request-id").is_some());
    assert_eq!(response.header("www-authenticate").is_some(), status == 401);
}

#[test]
fn the_documented_request_gets_the_documented_answer() {
    let library = Library::start(home(), "https://auth.example", 1_750_384_800);
    let response = get(PATH).body(DOCUMENTED_PAYLOAD).send(library.address);
    let token = Token::verified(&response, library.address);

    let answer = response.json();
    let names: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["access_token", "expires_in", "token_type"]);
    assert_eq!(answer["token_type"], "Bearer");
    // `expires_in` is the expiry as a Unix time, not the remaining seconds.
    assert_eq!(answer["expires_in"], json!(1_750_392_000));
    assert_eq!(token.claims["exp"], answer["expires_in"]);
    assert_eq!(token.header_text, r#"{"alg":"RS256"}"#);
    assert_eq!(
        token.claims_text,
        r#"{"scope":"firstvision.accountmanagement.read","client_id":"vision-api-user","firstVisionId":"00000AUNAB","exp":1750392000}"#
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("pragma"), Some("no-cache"));
}

#[test]
fn a_missing_content_type_gets_the_documented_error() {
    let documented = "{\n  \"errorCode\": \"AGT415UMT\",\n  \"errorMessage\": \"Content type is not provided\"  \n}";
    let documented: Value = serde_json::from_str(documented).unwrap();
    let program = Program::shared();
    for request in [
        get(PATH).without_header("Content-Type"),
        get(PATH).without_header("Content-Type").header("Content-Type", ""),
    ] {
        let response = program.ask(&request.body(DOCUMENTED_PAYLOAD));
        assert_eq!((response.status, response.text()), (415, &*documented.to_string()));
    }
}

#[test]
fn the_scope_may_be_in_the_query_the_path_or_the_body() {
    let program = Program::shared();
    for (request, scope) in [
        (get(&format!("{PATH}?scope={SCOPE}")), SCOPE),
        (get(&format!("{PATH}?scope=all+edit")), "all edit"),
        (get(&format!("{PATH}/{SCOPE}")), SCOPE),
        (get(&format!("{PATH}/all%20edit")), "all edit"),
        (get(PATH).body(r#"{"scope": ["all", "edit"]}"#), "all edit"),
        (get(PATH).body(r#"{"scope": "all"}"#), "all"),
    ] {
        let response = program.ask(&request);
        let token = Token::verified(&response, program.address);
        assert_eq!(token.claims["scope"], scope);
    }
    // A request that names its scope twice is refused, even if the two values are equal.
    for request in [
        get(&format!("{PATH}/all?scope=all")),
        get(&format!("{PATH}/all")).body(r#"{"scope": ["all"]}"#),
        get(&format!("{PATH}?scope=all")).body(r#"{"scope": ["all"]}"#),
        get(&format!("{PATH}?scope=all&scope=all")),
    ] {
        assert_error(&program.ask(&request), 400, "AGT400BR", "Payload is not valid");
    }
    // Without a scope the default scope applies, but this client has no default scope.
    assert_error(&program.ask(&get(PATH)), 401, "AGT401UA", INVALID);
    let demo = Request::get(PATH)
        .header("Content-Type", "application/json")
        .basic("demo-client:demo-secret-for-local-use-only-0001");
    let token = Token::verified(&program.ask(&demo), program.address);
    assert_eq!(token.claims["scope"], "external-api");
}

#[test]
fn every_refusal_of_a_payload_has_its_code() {
    let program = Program::shared();
    let long = "x".repeat(51);
    for body in [
        "{",
        "[]",
        "scope",
        "{scope: [1]}",
        "{scope: {}}",
        "{scope: [\"all edit\"]}",
        " ",
        "{scope: [\"all\"], scope: [\"all\"]}",
        "\u{feff}{scope: [\"all\"]}",
        "{scope: [\"all\"], x: {\"a\": 1, \"a\": 2}}",
        "{scope: [\"all\"], x: [[], [{\"y\": {\"a\": {}, \"\\u0061\": {}}}]]}",
        "{scope: [{\"a\": 1, \"a\": 2}]}",
        &format!("{{scope: [\"{long}\"]}}"),
    ] {
        let response = program.ask(&get(PATH).body(body));
        assert_error(&response, 400, "AGT400BR", "Payload is not valid");
    }
    for target in [
        format!("{PATH}?scope={long}"),
        format!("{PATH}/{long}"),
        format!("{PATH}?scope=%zz"),
        format!("{PATH}/%zz"),
        format!("{PATH}/%ff"),
        format!("{PATH}?client_id=vision-api-user&scope=all"),
        format!("{PATH}?client_secret=abcdefghizklmnopponommnshfghzxxs&scope=all"),
    ] {
        let response = program.ask(&get(&target));
        assert_error(&response, 400, "AGT400BR", "Payload is not valid");
    }
    // A scope of exactly the maximum length is refused as unknown, not as malformed.
    let response = program.ask(&get(&format!("{PATH}/{}", &long[1..])));
    assert_error(&response, 401, "AGT401UA", INVALID);
}

#[test]
fn every_refusal_of_a_client_has_its_code() {
    let program = Program::shared();
    let target = format!("{PATH}?scope=all");
    let with = |authorization: &str| {
        get(&target).without_header("Authorization").header("Authorization", authorization)
    };
    let missing = get(&target).without_header("Authorization");
    let response = program.ask(&missing);
    assert_error(&response, 400, "AGT400BR", "Authorization header is missing");
    for request in [
        with("Basic"),
        with("Basic ????"),
        with("Basic dmlzaW9u"),
        with("Bearer token"),
        get(&target).without_header("Authorization").basic("vision-api-user:wrong"),
        get(&target).without_header("Authorization").basic("unknown:wrong"),
        get(&format!("{PATH}?scope=none")),
    ] {
        assert_error(&program.ask(&request), 401, "AGT401UA", INVALID);
    }
    let twice = get(&target).basic("vision-api-user:abcdefghizklmnopponommnshfghzxxs");
    assert_error(&program.ask(&twice), 400, "AGT400BR", "Payload is not valid");
}

#[test]
fn credentials_in_the_body_must_agree_with_the_header() {
    let program = Program::start(home(), &[]);
    let (user, secret) = USER;
    let cause_of = |members: &Value| {
        let mut body = json!({ "scope": ["all"] });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let answer = program.ask(&get(PATH).body(body.to_string()));
        assert_error(&answer, 400, "AGT400BR", "Payload is not valid");
        let line = program.log.of_request(answer.header("x-request-id").unwrap());
        line["cause"].as_str().unwrap().to_owned()
    };
    for (members, cause) in [
        (json!({ "client_secret": secret }), "several_authentications"),
        (json!({ "client_secret": "wrong" }), "several_authentications"),
        (json!({ "client_id": user, "client_secret": secret }), "several_authentications"),
        (json!({ "client_assertion": "a.b.c" }), "several_authentications"),
        (
            json!({ "client_assertion": "x", "client_assertion_type": "x", "client_id": user }),
            "several_authentications",
        ),
        (json!({ "client_id": "octet" }), "client_id_mismatch"),
        (json!({ "client_id": "unknown" }), "client_id_mismatch"),
        (json!({ "client_id": 1 }), "json_type"),
        (json!({ "client_secret": ["x"] }), "json_type"),
    ] {
        assert_eq!(cause_of(&members), cause, "{members}");
    }
    for body in [
        format!("{{scope: [\"all\"], client_id: \"{user}\"}}"),
        json!({ "scope": "all", "client_id": "", "client_secret": null }).to_string(),
        json!({ "scope": "all", "secret": "x", "x": { "client_secret": "x" } }).to_string(),
    ] {
        assert_eq!(program.ask(&get(PATH).body(&*body)).status, 200, "{body}");
    }
    // Without the header, credentials in the body are no substitute.
    let body = json!({ "scope": "all", "client_id": user, "client_secret": secret });
    let answer = program.ask(&get(PATH).without_header("Authorization").body(body.to_string()));
    assert_error(&answer, 400, "AGT400BR", "Authorization header is missing");
}

#[test]
fn the_content_type_is_checked_once_the_client_is_known() {
    let program = Program::start(home(), &[]);
    let typed = |value: &str| {
        get(&format!("{PATH}?scope=all"))
            .without_header("Content-Type")
            .header("Content-Type", value)
    };
    let octet = |value: &str| {
        typed(value).without_header("Authorization").basic(&format!("octet:{SECRET}"))
    };
    let (json, octets) = (
        "Allowed content type for this client is application/json",
        "Allowed content type for this client is octet-stream",
    );
    for (request, message) in [
        (typed("application/octet-stream"), json),
        (typed("text/plain"), json),
        (typed("text"), json),
        (octet("application/json"), octets),
        (octet("text/plain"), octets),
        // These are refused before the client is known.
        (typed("application/json; charset=utf-16"), json),
        (typed("application/json").header("Content-Encoding", "gzip"), json),
        (typed("text/plain; charset=utf-16"), json),
        (octet("application/octet-stream; charset=utf-16"), octets),
        (octet("Application/Octet-Stream").header("Content-Encoding", "gzip"), octets),
    ] {
        assert_error(&program.ask(&request), 415, "AGT415UMT", message);
    }
    assert_eq!(program.ask(&octet("application/octet-stream")).status, 200);
    let stranger = typed("text/plain").without_header("Authorization").basic("octet:wrong");
    assert_error(&program.ask(&stranger), 401, "AGT401UA", INVALID);
}

#[test]
fn every_refusal_of_a_message_has_its_code() {
    let program = Program::start(home(), &[]);
    let issued = || {
        program
            .metric(r#"grantd_requests_total{cause="",outcome="issued",route="firstvision_token"}"#)
    };
    let before = issued();
    for method in ["POST", "HEAD", "OPTIONS"] {
        let (user, secret) = USER;
        let request = Request::new(method, &format!("{PATH}?scope=all"))
            .header("Content-Type", "application/json")
            .basic(&format!("{user}:{secret}"));
        let response = program.ask(&request);
        assert_eq!((response.status, response.header("allow")), (405, Some("GET")), "{method}");
        if method != "HEAD" {
            assert_error(&response, 405, "AGT405MNA", "Method is not allowed");
        }
    }
    for path in ["/v1/getAccessToken/", "/v1/getAccessToken/a/b"] {
        let response = program.ask(&get(path));
        assert_error(
            &response,
            404,
            "AGT404NF",
            "There is nothing at this path; tokens come from GET /v1/getAccessToken, POST /connect/token and POST /v1/api/oauth/token",
        );
    }
    let response = program.ask(&get(PATH).body(" ".repeat(16 * 1024 + 1)));
    assert_error(&response, 413, "AGT413PTL", "Payload is too large");
    let many = (0..65).fold(get(PATH), |request, index| request.header(&format!("x-{index}"), "x"));
    assert_error(&program.ask(&many), 431, "AGT431HTL", "Header fields are too large");
    assert_eq!(issued(), before);
}

#[test]
fn a_slow_body_gets_408() {
    let program = Program::configured("[limits]\nrequest_seconds = 1\n");
    let mut connection = Connection::open(program.address);
    connection.send(&get(PATH).body(DOCUMENTED_PAYLOAD).head());
    let response = connection.read_answer();
    assert_error(&response, 408, "AGT408RT", "The request did not arrive in time");
    connection.assert_closes();
}

#[test]
fn failures_of_the_server_have_their_codes() {
    let response = overloaded(&get(&format!("{PATH}/all")));
    assert_error(&response, 503, "AGT503SU", "Service is unavailable");
    assert_eq!(response.header("retry-after"), Some("1"));

    let response = get(&format!("{PATH}/all")).send(exhausted().address);
    assert_error(&response, 500, "AGT500ISE", "Internal server error");
}
