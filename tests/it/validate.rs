//! `GET /connect/validate`: bearer tokens as nginx `auth_request` asks about them, in every
//! dialect's words.

use serde_json::json;

use crate::support::sibling::{USER, home};
use crate::support::{DEMO, Encoding, Library, Request, Response};

const NOW: u64 = 1_750_384_800;
const PATH: &str = "/connect/validate";

fn start() -> Library {
    Library::start(home(), "https://auth.example", NOW)
}

fn ask(library: &Library, query: &str, authorization: &str) -> Response {
    let request = Request::get(&format!("{PATH}{query}"));
    request.header("Authorization", authorization).send(library.address)
}

/// A token of each profile, as an `Authorization` header.
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
fn a_good_token_is_told_of_in_headers() {
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
    // The scheme has no case (RFC 9110, section 11.1).
    assert_eq!(ask(&library, "", &at_jwt.replace("Bearer", "bEARER")).status, 204);
}

#[test]
fn every_refusal_has_its_challenge() {
    let library = start();
    let [at_jwt, _] = bearers(&library);
    let touched = at_jwt.replacen(".ey", ".eY", 1);
    // HMAC with the public key as its secret, and no signature at all (RFC 8725, section 2.1).
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
    assert_eq!(ask(&library, "?dialect=other", &at_jwt).status, 400);
}

#[test]
fn refusals_are_in_the_words_that_were_asked_for() {
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
