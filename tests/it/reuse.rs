//! Token reuse, for clients that are registered for it.

use std::collections::HashSet;

use serde_json::json;

use crate::support::home::secret_of;
use crate::support::{
    DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Response, Token, request_of,
};

const NOW: u64 = 1_750_384_800;

fn ask(library: &Library, more: &[(&str, &str)]) -> Response {
    let secret = secret_of("reuser");
    let request = Request::token(Encoding::Urlencoded, &request_of("reuser", &secret, more));
    let response = request.send(library.address);
    assert_eq!(response.status, 200, "{}", response.text());
    response
}

#[track_caller]
fn token_of(response: &Response, reuse: &str) -> String {
    assert_eq!(response.header("x-token-reuse"), Some(reuse));
    response.json()["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn a_reused_token_is_marked_and_has_its_remaining_lifetime() {
    let library = Library::start(Home::new(), "https://auth.example", NOW);
    let first = token_of(&ask(&library, &[]), "fresh");
    library.clock.set(NOW + 599);
    let again = ask(&library, &[]);
    assert_eq!(token_of(&again, "reused"), first);
    assert_eq!(again.json()["expires_in"], json!(3600 - 599));
    assert_eq!(again.json()["scope"], "read");
    let token = Token::verified(&again, library.address);
    assert_eq!(token.claims["exp"], json!(NOW + 3600));
    assert_eq!(token.claims["iat"], json!(NOW));

    library.clock.set(NOW + 600);
    let later = ask(&library, &[]);
    assert_ne!(token_of(&later, "fresh"), first);
    assert_eq!(later.json()["expires_in"], json!(3600));
}

#[test]
fn other_parameters_get_another_token() {
    let library = Library::start(Home::new(), "https://auth.example", NOW);
    let parameter_sets: [&[(&str, &str)]; 6] = [
        &[],
        &[("scope", "write")],
        &[("scope", "read write")],
        &[("resource", "urn:example:two")],
        &[("resource", "https://api.example/one")],
        &[("resource", "https://api.example/one"), ("resource", "urn:example:two")],
    ];
    let fresh: Vec<_> = parameter_sets
        .iter()
        .map(|parameters| token_of(&ask(&library, parameters), "fresh"))
        .collect();
    assert_eq!(fresh.iter().collect::<HashSet<_>>().len(), parameter_sets.len());
    for (parameters, fresh) in parameter_sets.iter().zip(&fresh) {
        assert_eq!(&token_of(&ask(&library, parameters), "reused"), fresh, "{parameters:?}");
    }
    // A request that names the default scope reuses the token of a request without a scope.
    assert_eq!(token_of(&ask(&library, &[("scope", "read")]), "reused"), fresh[0]);
}

#[test]
fn every_service_reuses_its_own_profile_and_expresses_the_remaining_lifetime() {
    let library = Library::start(Home::new(), "https://auth.example", NOW);
    let secret = secret_of("reuser");
    let body = json!({
        "grant_type": "client_credentials", "scope": "read",
        "client_id": "reuser", "client_secret": secret,
    });
    let vision = Request::new("POST", "/v1/api/oauth/token")
        .typed_body("application/json", body.to_string());
    let firstvision = Request::get("/v1/getAccessToken?scope=read")
        .header("Content-Type", "application/json")
        .basic(&format!("reuser:{secret}"));

    let first = token_of(&ask(&library, &[]), "fresh");
    let fresh = token_of(&vision.send(library.address), "fresh");
    assert_ne!(fresh, first);
    library.clock.set(NOW + 100);
    let again = vision.send(library.address);
    assert_eq!(token_of(&again, "reused"), fresh);
    assert_eq!(again.json()["expires_in"], json!(3600 - 100 - 1));
    let again = firstvision.send(library.address);
    assert_eq!(token_of(&again, "reused"), fresh);
    assert_eq!(again.json()["expires_in"], json!(NOW + 3600));
    assert_eq!(token_of(&ask(&library, &[]), "reused"), first);
}

#[test]
fn a_clock_set_back_does_not_extend_a_reused_token() {
    let library = Library::start(Home::new(), "https://auth.example", NOW);
    let first = token_of(&ask(&library, &[]), "fresh");
    library.clock.set(NOW - 1);
    assert_ne!(token_of(&ask(&library, &[]), "fresh"), first);
}

#[test]
fn a_reused_token_goes_to_its_authenticated_client_only() {
    let server = Program::start(Home::new(), &[]);
    let secret = secret_of("reuser");
    for encoding in ENCODINGS {
        let own = Request::token(encoding, &request_of("reuser", &secret, &[]));
        assert_eq!(server.ask(&own).status, 200);
        let wrong = Request::token(encoding, &request_of("reuser", "wrong", &[]));
        let refused = server.ask(&wrong);
        refused.assert_refused(400, "invalid_client");
        assert_eq!(refused.header("x-token-reuse"), None);

        // A client that is not registered for reuse gets a new token each time, and the answer has
        // no `X-Token-Reuse`.
        let [one, two] = [(); 2].map(|()| server.ask(&Request::token(encoding, &DEMO)));
        assert_eq!(one.header("x-token-reuse"), None);
        assert_ne!(one.json()["access_token"], two.json()["access_token"]);
    }
    let counted = |outcome: &str| {
        let series =
            format!(r#"grantd_requests_total{{cause="",outcome="{outcome}",route="token"}}"#);
        server.metric(&series)
    };
    assert_eq!((counted("issued"), counted("reused")), (5, 1));
}
