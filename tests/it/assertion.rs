//! `private_key_jwt` (RFC 7521, RFC 7523): every rule, and forged assertions.

mod audience;
mod registry;
mod replay;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::home::{hash_of, secret_of};
use crate::support::registry::{changed, client_without_secret};
use crate::support::{
    ENCODINGS, Encoding, Home, Library, Program, Request, Response, Signer, Token,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ISSUER: &str = "https://auth.example";
const START: u64 = 1_750_384_800;
/// The time of most requests (Unix seconds), 1,000 s after the server's start. The server refuses
/// assertions that were signed up to 10 s after its first start. An assertion without `iat` counts
/// as signed 300 s before its `exp`.
const NOW: u64 = START + 1000;

/// Returns a home whose registry contains `clients`. Each client is given by its id and by the
/// fields to set in its entry. Its default method is `private_key_jwt`.
fn home_of(clients: &[(&str, Value)]) -> Home {
    let entries: Vec<_> = clients
        .iter()
        .map(|(id, more)| {
            client_without_secret(
                id,
                &changed(json!({ "auth_methods": ["private_key_jwt"] }), more),
            )
        })
        .collect();
    let home = Home::new();
    home.write("clients.json", &format!("{:#}", json!({ "clients": entries })));
    home
}

/// Starts a library server whose clock is at [`NOW`] and whose client `c` has the key of `signer`.
fn library(signer: &Signer) -> Library {
    let home = home_of(&[("c", json!({ "jwks": signer.jwks() }))]);
    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    library
}

/// An id that is unique in this process.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn claims(client: &str, audience: &str, now: u64) -> Value {
    json!({
        "iss": client, "sub": client, "aud": audience, "jti": unique(), "iat": now, "exp": now + 60,
    })
}

fn header(signer: &Signer) -> Value {
    json!({ "alg": signer.algorithm, "typ": "JWT" })
}

fn request(encoding: Encoding, assertion: &str, more: &[(&str, &str)]) -> Request {
    let own = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
    ];
    Request::token(encoding, &[&own[..], more].concat())
}

fn ask(address: SocketAddr, assertion: &str) -> Response {
    request(Encoding::Urlencoded, assertion, &[]).send(address)
}

/// Starts the program with a client `c` that has the key of `signer`.
fn program(signer: &Signer, toml: &str) -> Program {
    let home = home_of(&[("c", json!({ "jwks": signer.jwks() }))]);
    home.write("grantd.toml", toml);
    home.write_uses();
    Program::start(home, &["--config", "grantd.toml"])
}

fn now() -> u64 {
    Clock::system().unix_seconds()
}

#[test]
fn every_algorithm_is_accepted_in_both_encodings_and_with_both_audiences() {
    let signers = Signer::all();
    let clients: Vec<_> =
        signers.iter().map(|signer| (signer.algorithm, json!({ "jwks": signer.jwks() }))).collect();
    let library = Library::start(home_of(&clients), ISSUER, START);
    library.clock.set(NOW);
    for signer in &signers {
        for encoding in ENCODINGS {
            for audience in [ISSUER, "https://auth.example/connect/token"] {
                for with_id in [false, true] {
                    let claims = claims(signer.algorithm, audience, NOW);
                    let assertion = signer.sign(&header(signer), &claims);
                    let id: &[_] = &[("client_id", signer.algorithm)];
                    let more = if with_id { id } else { &[] };
                    let answer = request(encoding, &assertion, more).send(library.address);
                    let token = Token::verified(&answer, library.address);
                    assert_eq!(token.claims["sub"], signer.algorithm);
                }
            }
        }
    }
}

#[test]
fn a_wrong_claim_or_header_is_refused_with_its_cause() {
    let signer = Signer::es256();
    let other = Signer::es256();
    let server = program(&signer, "");
    let issuer = server.issuer.clone();
    let refuse = |assertion: &str, cause: &str, what: &str| {
        for encoding in ENCODINGS {
            let id = unique();
            let request = request(encoding, assertion, &[]).header("X-Request-Id", id.as_str());
            let answer = server.ask(&request);
            answer.assert_refused(400, "invalid_client");
            assert_eq!(
                answer.json()["error_description"],
                "Client authentication failed.",
                "{what}"
            );
            assert_eq!(server.log.of_request(&id)["cause"], cause, "{what}");
        }
    };

    let endpoint = format!("{issuer}/connect/token");
    let text = |number: u64| number.to_string();
    for (changes, cause) in [
        (json!({ "iss": "d" }), "assertion_malformed"),
        (json!({ "sub": "d" }), "assertion_malformed"),
        (json!({ "iss": null }), "assertion_malformed"),
        (json!({ "sub": null }), "assertion_malformed"),
        (json!({ "iss": "", "sub": "" }), "assertion_malformed"),
        (json!({ "iss": 5, "sub": 5 }), "assertion_malformed"),
        (json!({ "iss": "d", "sub": "d" }), "unknown_client"),
        (json!({ "iss": "C", "sub": "C" }), "unknown_client"),
        (json!({ "aud": null }), "assertion_malformed"),
        (json!({ "aud": "" }), "assertion_audience"),
        (json!({ "aud": format!("{issuer}/") }), "assertion_audience"),
        (json!({ "aud": format!("{endpoint}/") }), "assertion_audience"),
        (json!({ "aud": "https://other.example" }), "assertion_audience"),
        (json!({ "aud": format!("{issuer}.evil.example/connect/token") }), "assertion_audience"),
        (json!({ "aud": [issuer, endpoint] }), "assertion_audience"),
        (json!({ "aud": [issuer, "https://other.example"] }), "assertion_audience"),
        (json!({ "aud": { "a": issuer } }), "assertion_audience"),
        (json!({ "exp": null }), "assertion_malformed"),
        (json!({ "exp": text(now() + 60) }), "assertion_malformed"),
        (json!({ "exp": -1 }), "assertion_malformed"),
        (json!({ "exp": 1e300 }), "assertion_malformed"),
        (json!({ "exp": u64::MAX }), "assertion_malformed"),
        (json!({ "exp": true }), "assertion_malformed"),
        (json!({ "exp": now() - 1 }), "assertion_time"),
        (json!({ "exp": now() + 3600, "iat": null }), "assertion_time"),
        (json!({ "iat": now() - 301, "exp": now() + 3600 }), "assertion_time"),
        (json!({ "iat": now() + 60 }), "assertion_time"),
        (json!({ "iat": u64::MAX }), "assertion_malformed"),
        (json!({ "iat": text(now()) }), "assertion_malformed"),
        (json!({ "nbf": now() + 60 }), "assertion_time"),
        (json!({ "nbf": "0" }), "assertion_malformed"),
        (json!({ "jti": null }), "assertion_malformed"),
        (json!({ "jti": "" }), "assertion_malformed"),
        (json!({ "jti": 5 }), "assertion_malformed"),
    ] {
        let claims = changed(claims("c", &issuer, now()), &changes);
        refuse(&signer.sign(&header(&signer), &claims), cause, &changes.to_string());
    }

    let good = || claims("c", &issuer, now());
    for (changes, cause) in [
        (json!({ "alg": "none" }), "assertion_algorithm"),
        (json!({ "alg": "None" }), "assertion_algorithm"),
        (json!({ "alg": "HS256" }), "assertion_algorithm"),
        (json!({ "alg": "ES384" }), "assertion_algorithm"),
        (json!({ "alg": "RS256" }), "assertion_signature"),
        (json!({ "alg": "EdDSA" }), "assertion_signature"),
        (json!({ "alg": null }), "assertion_malformed"),
        (json!({ "alg": ["ES256"] }), "assertion_malformed"),
        (json!({ "jwk": other.jwk() }), "assertion_malformed"),
        (json!({ "jwk": signer.jwk() }), "assertion_malformed"),
        (json!({ "jku": "https://evil.example/jwks" }), "assertion_malformed"),
        (json!({ "x5u": "https://evil.example/cert" }), "assertion_malformed"),
        (json!({ "x5c": ["AA"] }), "assertion_malformed"),
        (json!({ "crit": ["exp"] }), "assertion_malformed"),
        (json!({ "crit": ["b64"], "b64": false }), "assertion_malformed"),
        (json!({ "kid": "unknown" }), "assertion_signature"),
        (json!({ "kid": 1 }), "assertion_malformed"),
    ] {
        let header = changed(header(&signer), &changes);
        refuse(&signer.sign(&header, &good()), cause, &header.to_string());
    }
    refuse(&other.sign(&header(&other), &good()), "assertion_signature", "another's key");

    let assertion = signer.sign(&header(&signer), &good());
    let [head, payload, signature] =
        <[&str; 3]>::try_from(assertion.split('.').collect::<Vec<_>>()).unwrap();
    let other_claims = URL_SAFE_NO_PAD.encode(good().to_string());
    // The test signs this assertion by HMAC and uses the public key as the secret.
    let hmac_header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let public = signer.jwk().to_string();
    let hmac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
    let hmac = ring::hmac::sign(&hmac_key, format!("{hmac_header}.{payload}").as_bytes());
    let repeated = format!(r#"{{"iss":"d",{}"#, good().to_string().trim_start_matches('{'));
    for (assertion, cause) in [
        (format!("{head}.{other_claims}.{signature}"), "assertion_signature"),
        (format!("{head}.{payload}."), "assertion_malformed"),
        (format!("{head}.{payload}"), "assertion_malformed"),
        (format!("{head}.{payload}.{signature}."), "assertion_malformed"),
        (format!("{head}.{payload}.{signature}="), "assertion_signature"),
        (format!("{head}.{payload}.AA"), "assertion_signature"),
        (
            format!("{hmac_header}.{payload}.{}", URL_SAFE_NO_PAD.encode(hmac)),
            "assertion_algorithm",
        ),
        (format!("..{signature}"), "assertion_malformed"),
        (".".repeat(10_000), "assertion_malformed"),
        ("A".repeat(10_000), "assertion_malformed"),
        (format!("{head}.{}.{signature}", "A".repeat(8_000)), "assertion_malformed"),
        (
            signer.sign_text(r#"{"alg":"ES256","alg":"ES256"}"#, &good().to_string()),
            "assertion_malformed",
        ),
        (signer.sign_text(&header(&signer).to_string(), &repeated), "assertion_malformed"),
        (signer.sign_text(&header(&signer).to_string(), "[]"), "assertion_malformed"),
        (
            signer.sign_text(
                r#"["ES256",null,null,null,false,false,false,false,false]"#,
                &good().to_string(),
            ),
            "assertion_malformed",
        ),
    ] {
        refuse(&assertion, cause, &assertion[..assertion.len().min(60)]);
    }
    // None of the refused assertions used up the valid assertion, so the server still accepts it.
    assert_eq!(ask(server.address, &assertion).status, 200);
}

#[test]
fn the_times_are_checked_to_the_second() {
    let signer = Signer::eddsa();
    let library = library(&signer);
    let answer = |changes: &Value, at: u64| {
        let claims = changed(claims("c", ISSUER, NOW), changes);
        library.clock.set(at);
        ask(library.address, &signer.sign(&header(&signer), &claims)).status == 200
    };
    let hour = json!({ "exp": NOW + 3600 });
    let no_iat = json!({ "iat": null, "exp": NOW + 300 });
    let fraction = json!({ "exp": NOW as f64 + 60.5, "iat": NOW as f64 + 0.5 });
    for (changes, at, accepted) in [
        // No clock skew is allowed for `exp`.
        (&json!({}), NOW + 59, true),
        (&json!({}), NOW + 60, false),
        (&fraction, NOW + 59, true),
        // The server accepts an assertion only for 300 s after its `iat`, even if its `exp` is an
        // hour after its `iat`.
        (&hour, NOW + 299, true),
        (&hour, NOW + 300, false),
        // The client's clock may be ten seconds ahead of the server's clock.
        (&hour, NOW - 10, true),
        (&hour, NOW - 11, false),
        (&json!({ "nbf": NOW + 10, "exp": NOW + 3600 }), NOW, true),
        (&json!({ "nbf": NOW + 11, "exp": NOW + 3600 }), NOW, false),
        // Without `iat`, the assertion counts as signed 300 s before its `exp`.
        (&no_iat, NOW, true),
        (&no_iat, NOW - 10, true),
        (&no_iat, NOW - 11, false),
        (&no_iat, NOW + 299, true),
        (&no_iat, NOW + 300, false),
    ] {
        assert_eq!(answer(changes, at), accepted, "{changes} at {at}");
    }
}

#[test]
fn keys_are_chosen_by_kid_and_by_the_registered_fields() {
    let [rs256, ps256, es256, eddsa] = Signer::all();
    let named = |signer: &Signer, more: Value| changed(signer.jwk(), &more);
    let keys = json!({ "keys": [
        named(&es256, json!({ "kid": "one" })),
        named(&eddsa, json!({ "kid": "two", "use": "sig" })),
        named(&rs256, json!({ "alg": "RS256" })),
    ] });
    let registered = json!({ "jwks": keys, "token_endpoint_auth_signing_alg": "ES256" });
    let secret = json!({
        "jwks": keys, "auth_methods": ["client_secret_post"],
        "secrets": [{ "label": "a", "hash": hash_of(&secret_of("s")) }],
    });
    let disabled = json!({ "jwks": keys, "enabled": false });
    let clients =
        [("any", json!({ "jwks": keys })), ("es", registered), ("s", secret), ("off", disabled)];
    let home = home_of(&clients);
    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    let answer = |client: &str, signer: &Signer, kid: Value| {
        let header = changed(header(signer), &json!({ "kid": kid }));
        let answer = ask(library.address, &signer.sign(&header, &claims(client, ISSUER, NOW)));
        if answer.status != 200 {
            answer.assert_refused(400, "invalid_client");
        }
        answer.status == 200
    };
    for (client, signer, kid, granted) in [
        ("any", &es256, json!("one"), true),
        ("any", &es256, json!("two"), false),
        ("any", &es256, json!(null), true),
        ("any", &eddsa, json!("two"), true),
        ("any", &rs256, json!(null), true),
        // The assertion has a `kid` and the registered RSA key has none, so the key does not match.
        ("any", &rs256, json!("one"), false),
        // The registered RSA key is for RS256, not for PS256.
        ("any", &ps256, json!(null), false),
        ("es", &es256, json!(null), true),
        ("es", &eddsa, json!(null), false),
        ("es", &rs256, json!(null), false),
        // The client `s` has registered keys, but its only method is a secret. The client `off` is
        // disabled.
        ("s", &es256, json!(null), false),
        ("off", &es256, json!(null), false),
    ] {
        assert_eq!(answer(client, signer, kid.clone()), granted, "{client} {kid}");
    }
    // A client whose only method is `private_key_jwt` cannot authenticate by secret.
    let secret = secret_of("any");
    for encoding in ENCODINGS {
        let own = crate::support::request_of("any", &secret, &[]);
        Request::token(encoding, &own).send(library.address).assert_refused(400, "invalid_client");
    }
}

#[test]
fn an_unknown_client_and_a_wrong_signature_look_alike() {
    let signer = Signer::es256();
    let library = library(&signer);
    let stranger = Signer::es256();
    for encoding in ENCODINGS {
        let [known, unknown] = ["c", "d"].map(|client| {
            let assertion = stranger.sign(&header(&stranger), &claims(client, ISSUER, NOW));
            request(encoding, &assertion, &[]).send(library.address)
        });
        known.assert_refused(400, "invalid_client");
        assert_eq!(known.without_id_and_date(), unknown.without_id_and_date());
    }
}

#[test]
fn an_assertion_beside_other_credentials_or_of_another_type_is_refused() {
    let signer = Signer::es256();
    let library = library(&signer);
    let sign = || signer.sign(&header(&signer), &claims("c", ISSUER, NOW));
    let address = library.address;
    for encoding in ENCODINGS {
        let assertion = sign();
        let beside_secret = request(encoding, &assertion, &[("client_secret", "s")]);
        beside_secret.send(address).assert_refused(400, "invalid_request");
        let beside_basic = request(encoding, &assertion, &[]).basic("c:s");
        beside_basic.send(address).assert_refused(400, "invalid_request");
        let beside_other = request(encoding, &assertion, &[("client_id", "d")]);
        beside_other.send(address).assert_refused(400, "invalid_client");
        let twice = request(encoding, &assertion, &[("client_assertion", &assertion)]);
        twice.send(address).assert_refused(400, "invalid_request");

        let grant = ("grant_type", "client_credentials");
        let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
        for own in [
            vec![grant, ("client_assertion", &assertion)],
            vec![grant, ("client_assertion", &assertion), ("client_assertion_type", saml)],
            vec![grant, ("client_assertion_type", JWT_BEARER)],
            vec![grant, ("client_assertion_type", JWT_BEARER), ("client_id", "c")],
        ] {
            Request::token(encoding, &own).send(address).assert_refused(400, "invalid_client");
        }
        let in_query = format!("/connect/token?client_assertion={assertion}");
        let in_query = Request::token(encoding, &[grant]).with_target(&in_query);
        in_query.send(address).assert_refused(400, "invalid_request");
        // None of the refused requests used up the assertion.
        assert_eq!(request(encoding, &assertion, &[]).send(address).status, 200);
    }
}

#[test]
fn no_assertion_reaches_the_log() {
    let signer = Signer::es256();
    let server = program(&signer, "[log]\nlevel = \"debug\"");
    let good = signer.sign(&header(&signer), &claims("c", &server.issuer, now()));
    let bad = Signer::es256().sign(&header(&signer), &claims("c", &server.issuer, now()));
    for (assertion, status) in [(&good, 200), (&good, 400), (&bad, 400)] {
        assert_eq!(ask(server.address, assertion).status, status);
    }
    let log = std::sync::Arc::clone(&server.log);
    server.terminate();
    let text = log.to_the_end();
    assert!(text.contains("assertion_signature"), "{text}");
    for part in good.split('.').chain(bad.split('.')).skip(1) {
        assert!(!text.contains(part), "{text}");
    }
}
