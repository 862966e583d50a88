//! `POST /connect/introspect` (RFC 7662): the answers, and the clients that may get them.

use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::status::{
    INACTIVE, INTROSPECT, ISSUER, about, home, introspect, is_active, token_of, validate,
    validate_token, vision_token_of,
};
use crate::support::token::sign;
use crate::support::{ENCODINGS, Encoding, Library, Program, Request};

const NOW: u64 = 1_750_384_800;

fn start() -> Library {
    Library::start(home(), ISSUER, NOW)
}

/// The claims of a token that this server issues to `two-audiences`, with these changes.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "exp": NOW + 3600, "aud": "https://api.example/one",
        "sub": "two-audiences", "client_id": "two-audiences", "iat": NOW,
        "jti": "kGGv6zFBu5FLUEcBWPGsQw", "scope": "read",
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

#[test]
fn a_client_learns_about_its_own_token() {
    let library = start();
    let token = token_of(library.address, "two-audiences");
    library.clock.set(NOW + 100);
    let claims: Value = {
        use base64::Engine as _;
        let payload = token.split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let expected = format!(
        "{{\"active\":true,\"scope\":\"read\",\"client_id\":\"two-audiences\",\
         \"token_type\":\"Bearer\",\"exp\":{},\"iat\":{NOW},\"sub\":\"two-audiences\",\
         \"aud\":[\"https://api.example/one\",\"urn:example:two\"],\"iss\":\"{ISSUER}\",\
         \"jti\":{}}}",
        NOW + 3600,
        claims["jti"]
    );
    let pair = format!("two-audiences:{}", secret_of("two-audiences"));
    for encoding in ENCODINGS {
        let form = about(INTROSPECT, encoding, "two-audiences", &[("token", &token)]);
        let basic = Request::new("POST", INTROSPECT).form(encoding, &[("token", &token)]);
        for request in [form, basic.basic(&pair)] {
            let response = request.send(library.address);
            assert_eq!((response.status, response.text()), (200, &*expected));
            assert_eq!(response.header("content-type"), Some("application/json"));
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
}

#[test]
fn claims_missing_from_a_token_come_from_its_clients_registration() {
    let library = start();
    for (client, audience) in [
        ("one-audience", json!("https://api.example/one")),
        ("two-audiences", json!(["https://api.example/one", "urn:example:two"])),
        ("resource-one", json!(ISSUER)),
    ] {
        let token = vision_token_of(library.address, client);
        let expected = json!({
            "active": true, "scope": "read", "client_id": client, "token_type": "Bearer",
            "exp": NOW + 3600, "iat": NOW, "sub": client, "aud": audience, "iss": ISSUER,
        });
        assert_eq!(introspect(library.address, client, &token).json(), expected);
    }
}

#[test]
fn other_clients_learn_about_tokens_for_their_registered_audiences_only() {
    let library = start();
    let tokens_of = |client: &str| {
        [token_of(library.address, client), vision_token_of(library.address, client)]
    };
    for token in tokens_of("two-audiences").iter().chain(&tokens_of("one-audience")) {
        assert!(is_active(library.address, "resource-one", token));
        for client in ["resource-issuer", "timed", "reuser"] {
            assert_eq!(introspect(library.address, client, token).text(), INACTIVE, "{client}");
        }
    }
    for token in tokens_of("timed") {
        assert!(is_active(library.address, "resource-issuer", &token));
        assert_eq!(introspect(library.address, "resource-one", &token).text(), INACTIVE);
    }
    // This token names only one of the client's two audiences (RFC 8707).
    let secret = secret_of("two-audiences");
    let own = [("client_id", "two-audiences"), ("client_secret", &secret)];
    let more = [("grant_type", "client_credentials"), ("resource", "urn:example:two")];
    let request = Request::token(Encoding::Urlencoded, &[own, more].concat());
    let answer = request.send(library.address).json();
    let token = answer["access_token"].as_str().unwrap();
    assert!(!is_active(library.address, "resource-one", token));
    assert!(is_active(library.address, "two-audiences", token));
}

#[test]
fn the_answer_is_the_same_for_every_fault_of_a_token() {
    let library = start();
    let good = sign(&claims(&json!({})));
    assert!(is_active(library.address, "two-audiences", &good));
    let payload = good.split('.').nth(1).unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bad = [
        "x".to_owned(),
        "..".to_owned(),
        "é\u{1f511}".to_owned(),
        ".".repeat(4000),
        format!("{signed}."),
        format!("{signed}.{}", signature.replacen(|c: char| c.is_ascii_lowercase(), "A", 1)),
        format!("{good}."),
        format!("{good}A"),
        // These two tokens have `none` and HS256 as their algorithm (RFC 8725, section 2.1).
        format!("eyJhbGciOiJub25lIn0.{payload}."),
        format!("eyJhbGciOiJIUzI1NiJ9.{payload}.AAAA"),
        sign(&claims(&json!({ "iss": "https://other.example" }))),
        sign(&claims(&json!({ "client_id": "unknown" }))),
        sign(&claims(&json!({ "client_id": "disabled" }))),
        sign(&claims(&json!({ "exp": NOW }))),
        sign(&claims(&json!({ "exp": (NOW + 60).to_string() }))),
        sign(&claims(&json!({ "nbf": NOW + 1 }))),
    ];
    for encoding in ENCODINGS {
        for token in &bad {
            for client in ["two-audiences", "resource-one"] {
                let request = about(INTROSPECT, encoding, client, &[("token", token)]);
                let response = request.send(library.address);
                assert_eq!((response.status, response.text()), (200, INACTIVE), "{token}");
            }
        }
    }
    let later = sign(&claims(&json!({ "nbf": NOW + 1 })));
    library.clock.set(NOW + 1);
    assert!(is_active(library.address, "two-audiences", &later));
    assert_eq!(validate(library.address, &later).status, 204);

    // The server has cached the signature verdict on `good`. The token expires nevertheless.
    library.clock.set(NOW + 3599);
    assert!(is_active(library.address, "two-audiences", &good));
    library.clock.set(NOW + 3600);
    assert!(!is_active(library.address, "two-audiences", &good));
}

#[test]
fn tokens_issued_before_not_before_are_inactive() {
    let library = Library::start(crate::support::status::home_with(NOW), ISSUER, NOW - 1);
    let tokens =
        || [token_of(library.address, "cut-off"), vision_token_of(library.address, "cut-off")];
    let early = tokens();
    library.clock.set(NOW);
    let late = tokens();
    assert_ne!(early, late);
    for (tokens, is_good) in [(early, false), (late, true)] {
        for token in tokens {
            assert_eq!(is_active(library.address, "cut-off", &token), is_good);
            assert_eq!(validate_token(library.address, "cut-off", &token), is_good);
            let expected = if is_good { 204 } else { 401 };
            let response = validate(library.address, &token);
            assert_eq!(response.status, expected);
            let challenge = "Bearer realm=\"grantd\", error=\"invalid_token\"";
            let challenge = (!is_good).then_some(challenge);
            assert_eq!(response.header("www-authenticate"), challenge);
        }
    }
    // The server does not reuse a token that was issued before `not_before`, but it reuses a token
    // that was issued later.
    let late = token_of(library.address, "cut-off");
    assert_eq!(token_of(library.address, "cut-off"), late);
}

#[test]
fn a_bound_token_is_active_but_not_accepted_as_a_bearer_token() {
    let library = start();
    for (cnf, token_type) in [
        (json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }), "DPoP"),
        (json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" }), "Bearer"),
    ] {
        let token = sign(&claims(&json!({ "cnf": cnf })));
        let told = introspect(library.address, "resource-one", &token).json();
        assert_eq!((&told["active"], &told["cnf"]), (&json!(true), &cnf));
        assert_eq!(told["token_type"], token_type);
        assert_eq!(validate(library.address, &token).status, 401);
        assert_eq!(validate_token(library.address, "two-audiences", &token), false);
    }
}

#[test]
fn a_token_type_hint_is_ignored() {
    let library = start();
    let token = token_of(library.address, "timed");
    for encoding in ENCODINGS {
        for hint in ["access_token", "refresh_token", "é", ""] {
            let parameters = [("token", &*token), ("token_type_hint", hint)];
            let request = about(INTROSPECT, encoding, "timed", &parameters);
            assert_eq!(request.send(library.address).json()["active"], true, "{hint}");
        }
    }
}

#[test]
fn the_request_is_checked_like_a_token_request() {
    let server = Program::shared();
    for path in [INTROSPECT, crate::support::status::REVOKE] {
        for encoding in ENCODINGS {
            let ask = |parameters: &[(&str, &str)]| about(path, encoding, "timed", parameters);
            for parameters in [&[][..], &[("token", "")], &[("token", "x"), ("token", "x")]] {
                server.ask(&ask(parameters)).assert_refused(400, "invalid_request");
            }
            let good = ask(&[("token", "x")]);
            assert_eq!(server.ask(&good).status, 200);
            let in_query = good.clone().with_target(&format!("{path}?token=x"));
            server.ask(&in_query).assert_refused(400, "invalid_request");
            let twice = good.clone().basic(&format!("timed:{}", secret_of("timed")));
            server.ask(&twice).assert_refused(400, "invalid_request");

            let form =
                |parameters: &[(&str, &str)]| Request::new("POST", path).form(encoding, parameters);
            let token = [("token", "x")];
            server.ask(&form(&token)).assert_refused(400, "invalid_client");
            let wrong = [("client_id", "timed"), ("client_secret", "wrong"), ("token", "x")];
            server.ask(&form(&wrong)).assert_refused(400, "invalid_client");
            for pair in ["timed:wrong", "unknown:wrong"] {
                server.ask(&form(&token).basic(pair)).assert_refused(401, "invalid_client");
            }
            let bearer = form(&token).header("Authorization", "Bearer x");
            server.ask(&bearer).assert_refused(401, "invalid_client");
            let disabled = about(path, encoding, "disabled", &token);
            server.ask(&disabled).assert_refused(400, "invalid_client");
            let post_only = form(&token).basic(&format!("post-only:{}", secret_of("post-only")));
            server.ask(&post_only).assert_refused(401, "invalid_client");
        }
        for method in ["GET", "PUT", "DELETE"] {
            let answer = server.ask(&Request::new(method, path));
            answer.assert_refused(405, "invalid_request");
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        let json = Request::new("POST", path).typed_body("application/json", "{}");
        server.ask(&json).assert_refused(415, "invalid_request");
    }
}

#[test]
fn introspections_are_counted_and_logged_without_the_token() {
    let server = Program::start(home(), &[]);
    let token = token_of(server.address, "timed");
    for (path, outcome, route) in [
        (INTROSPECT, "introspected", "introspect"),
        (crate::support::status::REVOKE, "revoked", "revocation"),
    ] {
        let request = about(path, Encoding::Urlencoded, "timed", &[("token", &token)]);
        server.ask(&request.header("X-Request-Id", outcome));
        let line = server.log.of_request(outcome);
        assert_eq!((&line["outcome"], &line["route"]), (&json!(outcome), &json!(route)));
        assert_eq!(line["client"], "timed");
        assert!(!line.to_string().contains(&token));
        let series =
            format!(r#"grantd_requests_total{{cause="",outcome="{outcome}",route="{route}"}}"#);
        assert_eq!(server.metric(&series), 1);
    }
}
