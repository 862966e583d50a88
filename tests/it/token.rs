//! `POST /connect/token`: the documented example, its token, and the audience.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::home::{secret_of, signing_key};
use crate::support::{
    DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Response, Token, demo_with,
    demo_without, request_of,
};

#[test]
fn the_documented_request_gets_the_documented_answer() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("pragma"), Some("no-cache"));
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
        assert_eq!(answer.header("access-control-allow-origin"), None);

        let body = answer.json();
        let token = body["access_token"].as_str().unwrap();
        let documented = format!(
            r#"{{"access_token":"{token}","expires_in":3600,"token_type":"Bearer","scope":"external-api"}}"#
        );
        assert_eq!(answer.text(), documented);
    }
}

#[test]
fn a_missing_grant_type_gets_the_documented_error() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let mut empty = demo_without(&["grant_type"]);
        empty.push(("grant_type", ""));
        for parameters in [demo_without(&["grant_type"]), empty] {
            let answer = server.ask(&Request::token(encoding, &parameters));
            answer.assert_refused(400, "invalid_request");
            assert_eq!(answer.text(), r#"{"error":"invalid_request"}"#);
            assert_eq!(answer.header("pragma"), Some("no-cache"));
        }
    }
}

#[test]
fn the_token_is_an_access_token_of_rfc_9068() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let before = grantd::clock::Clock::system().unix_seconds();
        let answer = server.ask(&Request::token(encoding, &DEMO));
        let after = grantd::clock::Clock::system().unix_seconds();
        let token = Token::verified(&answer, server.address);

        let (kid, _) = signing_key().0.split_once('.').unwrap();
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"at+jwt"}}"#);
        assert_eq!(token.header_text, header);
        assert_eq!(token.header["typ"], "at+jwt");

        let claims = token.claims.as_object().unwrap();
        let names: HashSet<_> = claims.keys().map(String::as_str).collect();
        let expected = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope"];
        assert_eq!(names, HashSet::from(expected));
        assert_eq!(claims["iss"], server.issuer.as_str());
        assert_eq!(claims["aud"], server.issuer.as_str());
        assert_eq!(claims["sub"], "demo-client");
        assert_eq!(claims["client_id"], "demo-client");
        assert_eq!(claims["scope"], "external-api");
        let iat = claims["iat"].as_u64().unwrap();
        assert!((before..=after).contains(&iat), "{iat} is not now");
        assert_eq!(claims["exp"].as_u64().unwrap() - iat, 3600);
        let jti = URL_SAFE_NO_PAD.decode(claims["jti"].as_str().unwrap()).unwrap();
        assert!(jti.len() >= 16, "fewer than 128 bits");
    }
}

#[test]
fn every_token_has_a_unique_id() {
    let server = Program::shared();
    let ids: HashSet<String> = (0..20)
        .map(|index| {
            let answer = server.ask(&Request::token(ENCODINGS[index % 2], &DEMO));
            Token::verified(&answer, server.address).claims["jti"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn static_claims_and_lifetime_come_from_the_client() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let secret = "abcdefghizklmnopponommnshfghzxxs";
        let parameters = request_of("vision-api-user", secret, &[("scope", "edit all")]);
        let answer = server.ask(&Request::token(encoding, &parameters));
        assert_eq!(answer.json()["expires_in"], 7200);
        assert_eq!(answer.json()["scope"], "edit all");
        let token = Token::verified(&answer, server.address);
        assert_eq!(token.claims["firstVisionId"], "00000AUNAB");
        assert_eq!(token.claims["scope"], "edit all");
        let [exp, iat] = ["exp", "iat"].map(|name| token.claims[name].as_u64().unwrap());
        assert_eq!(exp - iat, 7200);
    }
}

/// Requests a token with these `resource` parameters for a client with one or two audiences.
fn ask_for(server: &Program, encoding: Encoding, client: &str, resources: &[&str]) -> Response {
    let secret = secret_of(client);
    let resources: Vec<_> = resources.iter().map(|&resource| ("resource", resource)).collect();
    server.ask(&Request::token(encoding, &request_of(client, &secret, &resources)))
}

#[test]
fn the_audience_is_the_registered_or_the_requested_one() {
    const ONE: &str = "https://api.example/one";
    const TWO: &str = "urn:example:two";
    let server = Program::shared();
    let issuer = server.issuer.as_str();
    for encoding in ENCODINGS {
        for (client, resources, audience) in [
            ("no-default", &[issuer][..], json!(issuer)),
            ("one-audience", &[], json!(ONE)),
            ("one-audience", &[ONE], json!(ONE)),
            ("two-audiences", &[], json!([ONE, TWO])),
            ("two-audiences", &[TWO], json!(TWO)),
            ("two-audiences", &[TWO, ONE], json!([TWO, ONE])),
            ("two-audiences", &[ONE, ONE], json!(ONE)),
            ("two-audiences", &["", TWO], json!(TWO)),
        ] {
            let secret = secret_of(client);
            let mut more = vec![("scope", "read")];
            more.extend(resources.iter().map(|&resource| ("resource", resource)));
            let request = Request::token(encoding, &request_of(client, &secret, &more));
            let token = Token::verified(&server.ask(&request), server.address);
            assert_eq!(token.claims["aud"], audience, "{client} {resources:?}");
        }
    }
}

#[test]
fn a_resource_that_is_not_registered_is_an_invalid_target() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for resources in [
            &["https://api.example/three"][..],
            &["https://api.example/one", "https://api.example/three"],
            &["https://api.example/one#fragment"],
            &["https://api.example/one/"],
            &["HTTPS://api.example/one"],
            &["/one"],
            &["one"],
            &[server.issuer.as_str()],
        ] {
            let answer = ask_for(&server, encoding, "two-audiences", resources);
            answer.assert_refused(400, "invalid_target");
        }
        let answer = server.ask(&Request::token(encoding, &demo_with(&[("resource", "urn:x")])));
        answer.assert_refused(400, "invalid_target");
    }
}

#[test]
fn a_token_depends_on_the_clock_and_the_random_bytes_only() {
    for encoding in ENCODINGS {
        let server = Library::start(Home::new(), "https://auth.example", 1_790_000_000);
        let ask = || Request::token(encoding, &DEMO).send(server.address);
        let first = Token::verified(&ask(), server.address);
        // The server's random bytes are the numbers 1, 2, 3 and so on, as words of 8 bytes. The
        // server takes nine words for keys and for the name of the process. The next two words are
        // the token's id.
        assert_eq!(
            first.claims_text,
            r#"{"iss":"https://auth.example","exp":1790003600,"aud":"https://auth.example","sub":"demo-client","client_id":"demo-client","iat":1790000000,"jti":"AAAAAAAAAAoAAAAAAAAACw","scope":"external-api"}"#
        );
        server.clock.set(1_800_000_000);
        let second = Token::verified(&ask(), server.address);
        assert_eq!(
            second.claims_text,
            r#"{"iss":"https://auth.example","exp":1800003600,"aud":"https://auth.example","sub":"demo-client","client_id":"demo-client","iat":1800000000,"jti":"AAAAAAAAAAwAAAAAAAAADQ","scope":"external-api"}"#
        );
    }
}

#[test]
fn the_same_random_bytes_and_time_make_the_same_answer() {
    let answers = ENCODINGS.map(|encoding| {
        let server = Library::start(Home::new(), "https://auth.example", 1_790_000_000);
        let request = Request::token(encoding, &DEMO).header("X-Request-Id", "golden.1");
        let mut answer = request.send(server.address);
        answer.headers.retain(|(name, _)| name != "date");
        (answer.headers, answer.body)
    });
    assert_eq!(answers[0], answers[1]);
    let id = ("x-request-id".to_owned(), "golden.1".to_owned());
    assert!(answers[0].0.contains(&id));
}

#[test]
fn a_safe_request_id_is_kept_and_any_other_replaced() {
    let server = Program::shared();
    let ask = |id: &str| {
        let request = Request::token(Encoding::Urlencoded, &DEMO).header("X-Request-Id", id);
        server.ask(&request).header("x-request-id").unwrap().to_owned()
    };
    let longest = "x".repeat(64);
    for id in ["a", "A.b_c-9", &longest] {
        assert_eq!(ask(id), id);
    }
    let too_long = "x".repeat(65);
    for id in ["", "a b", "a/b", "é", &too_long] {
        let made = ask(id);
        assert_ne!(made, id);
        assert!(
            (1..=64).contains(&made.len())
                && made.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
            "{made}"
        );
    }
}
