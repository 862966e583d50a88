//! Answers to requests that are right, while the server has a fault.

use std::fs::File;

use grantd::clock::Clock;
use serde_json::json;

use crate::openapi::{Operation, document, server};
use crate::support::home::secret_of;
use crate::support::registry::{changed, client_json};
use crate::support::sibling::{exhausted, overloaded};
use crate::support::{DEMO, Encoding, Home, Program, Request, Response, Signer, request_of};

/// A request of a demo client to each documented path that issues tokens.
fn token_requests() -> [(&'static str, Request); 5] {
    let [id, secret] = ["vision-api-user", "abcdefghizklmnopponommnshfghzxxs"];
    let json = |target: &str, scope: &str| {
        let body = json!({
            "grant_type": "client_credentials",
            "scope": scope,
            "client_id": id,
            "client_secret": secret,
        });
        Request::new("POST", target).typed_body("application/json", body.to_string())
    };
    let get = |target: &str| {
        let request = Request::get(target).header("Content-Type", "application/json");
        request.basic(&format!("{id}:{secret}"))
    };
    [
        ("/connect/token", Request::token(Encoding::Urlencoded, &DEMO)),
        ("/v1/api/oauth/token", json("/v1/api/oauth/token", "all")),
        (
            "/v2/api/oauth/token",
            json("/v2/api/oauth/token?appContext=firstvision", "accountmanagement.read"),
        ),
        ("/v1/getAccessToken", get("/v1/getAccessToken?scope=all")),
        ("/v1/getAccessToken/{scope}", get("/v1/getAccessToken/all")),
    ]
}

/// Without random bytes the server answers 500, with a full signing queue 503: in each dialect with
/// exactly the body and the header fields of the description.
#[test]
fn failures_of_signing_are_described() {
    let server = server();
    let document = document(&server);
    let without_random = exhausted();
    for (path, request) in token_requests() {
        for (status, answer) in
            [(500, request.send(without_random.address)), (503, overloaded(&request))]
        {
            assert_described(&Operation::all(&document), path, status, &answer);
        }
    }
}

/// While its state cannot be written, the server neither revokes nor accepts what is used once.
#[test]
fn failures_of_the_state_are_described() {
    let signer = Signer::es256();
    let home = Home::new();
    let by_assertion = json!({ "auth_methods": ["private_key_jwt"], "jwks": signer.jwks() });
    let signs = changed(client_json("signs", &by_assertion), &json!({ "secrets": null }));
    home.write_uses();
    home.register(&[signs, client_json("revokes", &json!({}))]);
    let server = Program::start(home, &[]);
    let document = document(&server);
    let operations = Operation::all(&document);

    let fresh = |path: &str, id: &str| {
        let now = Clock::system().unix_seconds();
        let claims = json!({
            "iss": "signs", "sub": "signs", "aud": server.issuer, "jti": id, "iat": now,
            "exp": now + 60,
        });
        let assertion = signer.sign(&json!({ "alg": signer.algorithm }), &claims);
        let parameters = [
            ("grant_type", "client_credentials"),
            ("token", "x"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &*assertion),
        ];
        Request::new("POST", path).form(Encoding::Urlencoded, &parameters)
    };
    assert_eq!(server.ask(&fresh("/connect/token", "first")).status, 200);
    let uses = File::open(server.home.path("state/uses.lock")).unwrap();
    uses.lock().unwrap();
    for path in ["/connect/token", "/connect/introspect", "/connect/revocation"] {
        assert_described(&operations, path, 503, &server.ask(&fresh(path, path)));
    }
    drop(uses);

    let secret = secret_of("revokes");
    let parameters = request_of("revokes", &secret, &[]);
    let issued = server.ask(&Request::token(Encoding::Urlencoded, &parameters)).json();
    let token = issued["access_token"].as_str().unwrap();
    std::fs::write(server.home.path("state/revocations.lock"), "").unwrap();
    let revocations = File::open(server.home.path("state/revocations.lock")).unwrap();
    revocations.lock().unwrap();
    let path = "/connect/revocation";
    let parameters = request_of("revokes", &secret, &[("token", token)]);
    let request = Request::new("POST", path).form(Encoding::Urlencoded, &parameters);
    assert_described(&operations, path, 503, &server.ask(&request));
}

#[track_caller]
fn assert_described(operations: &[Operation<'_>], path: &str, status: u16, answer: &Response) {
    let operation = operations.iter().find(|operation| operation.path == path).unwrap();
    assert_eq!(answer.status, status, "{path}: {answer:?}");
    operation.assert_describes(answer);
}
