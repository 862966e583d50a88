//! `GET /connect/validate`: bearer tokens checked for nginx `auth_request`, with refusals in each
//! dialect.

use serde_json::json;

use crate::support::sibling::{USER, home};
use crate::support::{Connection, DEMO, Encoding, Home, Library, Program, Request, Response};

const NOW: u64 = 1_750_384_800;
const PATH: &str = "/connect/validate";

fn start() -> Library {
    Library::start(home(), "https://auth.example", NOW)
}

fn ask(library: &Library, query: &str, authorization: &str) -> Response {
    let request = Request::get(&format!("{PATH}{query}"));
    request.header("Authorization", authorization).send(library.address)
}

/// Returns the `Authorization` value for a token of each profile.
fn bearers(library: &Library) -> [String; 2] {
    let (user, secret) = USER;
    let at_jwt = Request::token(Encoding::Urlencoded, &DEMO);
    let vision = Request::get("/v1/getAccessToken/all")
        .header("Content-Type", "application/json")
        .basic(&format!("{user}:{secret}"));
    [at_jwt, vision].map(|request| {
        let answer = request.send(library.address).json();
        format!("Bearer {}", answer["access_token"].as_str().expect("a token"))
    })
}

#[test]
fn a_valid_token_is_described_in_headers() {
    let library = start();
    let [at_jwt, vision] = bearers(&library);
    for (bearer, client, scope, expires) in [
        (&at_jwt, "demo-client", "external-api", NOW + 3600),
        (&vision, "vision-api-user", "all", NOW + 7200),
    ] {
        let query = format!("?scope={scope}&audience=https://auth.example");
        for query in ["", &query, "?dialect=vision", "?dialect=firstvision"] {
            let response = ask(&library, query, bearer);
            assert_eq!(response.status, 204, "{}", response.text());
            assert_eq!(response.header("x-client-id"), Some(client));
            assert_eq!(response.header("x-scope"), Some(scope));
            assert_eq!(response.header("x-token-expires"), Some(&*expires.to_string()));
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    assert_eq!(ask(&library, "", &at_jwt.replace("Bearer", "bEARER")).status, 204);
}

#[test]
fn every_refusal_has_a_challenge() {
    let library = start();
    let [at_jwt, _] = bearers(&library);
    let touched = at_jwt.replacen(".ey", ".eY", 1);
    // The algorithm is changed to `none` or to HS256 (RFC 8725, section 2.1).
    let payload = at_jwt.split('.').nth(1).unwrap();
    let none = format!("Bearer eyJhbGciOiJub25lIn0.{payload}.");
    let hmac = format!("Bearer eyJhbGciOiJIUzI1NiJ9.{payload}.AAAA");

    let response = Request::get(PATH).send(library.address);
    assert_eq!(response.status, 401);
    assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"grantd\""));
    for authorization in ["Basic YTpi", "Bearer", "Bearer "] {
        let response = ask(&library, "", authorization);
        assert_eq!(response.status, 401, "{authorization}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"grantd\""));
    }
    let invalid = Some("Bearer realm=\"grantd\", error=\"invalid_token\"");
    let audience = "?audience=https://other.example";
    for (query, bearer) in
        [("", &*touched), ("", &none), ("", &hmac), ("", "Bearer a.b.c"), (audience, &at_jwt)]
    {
        let response = ask(&library, query, bearer);
        assert_eq!((response.status, response.header("www-authenticate")), (401, invalid));
        assert_eq!(response.json()["error"], "invalid_token");
    }
    let response = ask(&library, "?scope=external-api+more", &at_jwt);
    assert_eq!(response.status, 403);
    let challenge = response.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"grantd\", error=\"insufficient_scope\""));

    library.clock.set(NOW + 3600);
    let response = ask(&library, "", &at_jwt);
    assert_eq!((response.status, response.header("www-authenticate")), (401, invalid));
}

#[test]
fn a_mistyped_query_is_refused() {
    let library = start();
    for bearer in bearers(&library) {
        for query in [
            "?",
            "?&",
            "?scope=external-api&",
            "?&scope=external-api",
            "?scope=external-api&&audience=https://auth.example",
            "?scope",
            "?scope=",
            "?scope=%20",
            "?scope=+",
            "?audience=",
            "?dialect=",
            "?dialect=other",
            "?Scope=all",
            "?scopes=all",
            "?scop=all",
            "?aud=https://auth.example",
            "?dialect=connect&x",
            "?dialect=connect&=x",
            "?scope=all&scope=all",
            "?scope=%zz",
            "?scope%3Dall",
            "?scope=external-api&resource=a",
        ] {
            let answer = ask(&library, query, &bearer);
            answer.assert_refused(400, "invalid_request");
        }
        for dialect in ["vision", "firstvision"] {
            let answer = ask(&library, &format!("?dialect={dialect}&scop=all"), &bearer);
            assert_eq!(answer.status, 400, "{dialect}");
        }
    }
    let [at_jwt, _] = bearers(&library);
    // Leading, trailing and repeated spaces are not part of a scope.
    assert_eq!(ask(&library, "?scope=+external-api++", &at_jwt).status, 204);
}

#[test]
fn without_a_query_every_valid_token_is_accepted_with_one_warning() {
    let server = Program::start(Home::new(), &[]);
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let ask = |query: &str| {
        let request = Request::get(&format!("{PATH}{query}")).header("Authorization", &*bearer);
        let answer = server.ask(&request);
        server.log.of_request(answer.header("x-request-id").unwrap());
        answer.status
    };
    let warnings = || {
        server.log.count(|line| {
            line["message"].as_str().is_some_and(|text| text.contains("without a query"))
        })
    };
    assert_eq!((ask("?scope=external-api"), warnings()), (204, 0));
    assert_eq!((ask(""), ask(""), warnings()), (204, 204, 1));
}

/// nginx's request to `/connect/validate` has no body, but it has the header fields that describe
/// the body of the API request. The server must not wait for that body.
#[test]
fn the_answer_does_not_wait_for_the_body() {
    let server = Program::shared();
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    for headers in [
        "Content-Length: 1",
        "Content-Length: 1000000000",
        "Content-Length: 5\r\nExpect: 100-continue",
        "Content-Length: 100\r\nContent-Encoding: gzip",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Encoding: br",
    ] {
        for (bearer, status) in [(&*bearer, 204), ("Bearer x", 401)] {
            let mut connection = Connection::open(server.address);
            let head = format!(
                "GET {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n{headers}\r\n\r\n"
            );
            connection.send(head.as_bytes());
            let answer = connection.read_answer();
            assert_eq!(answer.status, status, "{headers}");
            assert_eq!(answer.header("connection"), Some("close"), "{headers}");
            connection.assert_closes();
        }
    }
    // A request without a body leaves the connection open.
    let mut connection = Connection::open(server.address);
    for headers in ["", "Content-Length: 0\r\n", "Content-Encoding: gzip\r\n"] {
        let head =
            format!("GET {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n{headers}\r\n");
        connection.send(head.as_bytes());
        let answer = connection.read_answer();
        assert_eq!((answer.status, answer.header("connection")), (204, None), "{headers}");
    }
    // A client that sends a long body can still read the answer.
    let request = Request::get(PATH).header("Authorization", &*bearer).body("a".repeat(600_000));
    assert_eq!(server.ask(&request).status, 204);
}

/// HTTP targets have no fragment. A parser that drops a fragment would drop the rest of the query.
#[test]
fn a_fragment_in_the_target_is_refused() {
    let server = Program::shared();
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    for target in
        ["#?scope=admin", "?scope=external-api#admin", "?#scope=admin", "#", "?scope=external-api#"]
    {
        let request = Request::get(&format!("{PATH}{target}")).header("Authorization", &*bearer);
        server.ask(&request).assert_refused(400, "invalid_request");
        // The same request arrives in two segments.
        let bytes = request.to_bytes();
        for at in [3, PATH.len() + 6] {
            let mut connection = Connection::open(server.address);
            connection.send(&bytes[..at]);
            std::thread::sleep(std::time::Duration::from_millis(5));
            connection.send(&bytes[at..]);
            connection.read_answer_to("GET").assert_refused(400, "invalid_request");
            // The next request has a `#` in a header field, which is accepted.
            let plain = Request::get(&format!("{PATH}?scope=external-api"));
            let plain = plain.header("Authorization", &*bearer).header("X-Note", "#");
            assert_eq!(connection.ask(&plain).status, 204);
        }
    }
    for target in ["/connect/token#", "/v1/api/oauth/token#x", "/v1/getAccessToken#?scope=all"] {
        assert_eq!(server.ask(&Request::new("POST", target)).status, 400, "{target}");
    }
}

#[test]
fn validate_accepts_larger_heads_than_other_routes() {
    let server = Program::shared();
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let with_fields = |count: usize, length: usize| {
        let base = Request::get(PATH).header("Authorization", &*bearer);
        // The request already has the two fields `Host` and `Authorization`.
        let value = "v".repeat(length);
        (2..count).fold(base, |request, at| request.header(&format!("X-{at}"), &*value))
    };
    for (count, length, status) in [
        (64, 1, 204),
        (65, 1, 204),
        (99, 1, 204),
        (100, 1, 204),
        (101, 1, 204),
        (128, 1, 204),
        (129, 1, 431),
        (200, 1, 431),
        (10, 3900, 204),
        (11, 3900, 431),
    ] {
        let request = with_fields(count, length);
        assert_eq!(server.ask(&request).status, status, "{count} fields of {length}");
        // The same head arrives in two segments. An accepted head leaves the connection usable.
        let bytes = request.to_bytes();
        let mut connection = Connection::open(server.address);
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        connection.send(first);
        std::thread::sleep(std::time::Duration::from_millis(5));
        connection.send(rest);
        assert_eq!(connection.read_answer_to("GET").status, status, "{count} fields");
        if status == 204 {
            assert_eq!(connection.ask(&request).status, 204);
            let demo = Request::token(Encoding::Multipart, &DEMO);
            assert_eq!(connection.ask(&demo).status, 200);
            assert_eq!(connection.ask(&request).status, 204);
        }
    }
    // The limit is the same for a request that follows a request with a body.
    for (count, status) in [(101, 204), (128, 204), (129, 431)] {
        let mut connection = Connection::open(server.address);
        let demo = Request::token(Encoding::Multipart, &DEMO);
        assert_eq!(connection.ask(&demo).status, 200);
        let answer = connection.ask(&with_fields(count, 1));
        assert_eq!(answer.status, status, "{count} fields");
        assert!(status == 204 || answer.header("x-request-id").is_some());
    }
    // Other routes accept at most 64 fields. Their refusal has a body with the error.
    for count in [65, 100, 101, 200] {
        let base = Request::token(Encoding::Urlencoded, &DEMO);
        let request = (0..count).fold(base, |request, at| request.header(&format!("X-{at}"), "v"));
        server.ask(&request).assert_refused(431, "invalid_request");
    }
}

#[test]
fn refusals_are_in_the_requested_dialect() {
    let library = start();
    let [_, vision] = bearers(&library);
    library.clock.set(NOW + 7200);
    let without =
        |dialect: &str| Request::get(&format!("{PATH}?dialect={dialect}")).send(library.address);

    for (response, status, code, text) in [
        (without("vision"), 400, "240002", "Authorization header is missing"),
        (ask(&library, "?dialect=vision", "Basic YTpi"), 400, "240003", "Bearer token is missing"),
        (ask(&library, "?dialect=vision", "Bearer x"), 400, "240004", "Bearer token is not valid"),
        (ask(&library, "?dialect=vision", &vision), 401, "240101", "Access token has expired"),
    ] {
        assert_eq!(response.status, status);
        let error = &response.json()[0];
        assert_eq!(error["errorCode"], code);
        assert_eq!(error["invalid-params"], json!([text]));
        assert_eq!(error["instance"], PATH);
    }
    for (response, text) in [
        (without("firstvision"), "Access token is missing in request"),
        (ask(&library, "?dialect=firstvision", "Basic YTpi"), "Access token is missing in request"),
        (ask(&library, "?dialect=firstvision", &vision), "Access token has expired"),
        (ask(&library, "?dialect=firstvision", "Bearer x"), "Invalid client credentials or scope"),
    ] {
        assert_eq!(response.status, 401);
        let expected = json!({ "errorCode": "AGT401UA", "errorMessage": text });
        assert_eq!(response.text(), expected.to_string());
        assert!(response.header("www-authenticate").is_some_and(|c| c.starts_with("Bearer")));
    }
}
