//! The three services have four request encodings in total. The same token request is sent in each
//! encoding, and the server must make the same decision each time.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::sibling::{SECRET, USER, home};
use crate::support::{ENCODINGS, Library, Program, Request, Token};

const NOW: u64 = 1_750_384_800;

/// A token request, before it is encoded.
#[derive(Clone, Debug)]
struct TokenRequest {
    client: String,
    secret: String,
    scope: String,
}

/// Right, wrong and almost right values within the length limits of every service.
fn token_requests() -> impl Strategy<Value = TokenRequest> {
    let (user, secret) = USER;
    let client = prop_oneof![
        6 => Just(user.to_owned()),
        1 => Just("demo-client".to_owned()),
        1 => "[ -~]{1,50}",
    ];
    let secrets = prop_oneof![
        8 => Just(secret.to_owned()),
        1 => Just("demo-secret-for-local-use-only-0001".to_owned()),
        1 => "[ -~]{1,100}",
    ];
    let token = prop_oneof![
        3 => Just("all".to_owned()),
        3 => Just("edit".to_owned()),
        2 => Just("firstvision.accountmanagement.read".to_owned()),
        1 => Just("external-api".to_owned()),
        1 => "[ -~]{1,20}",
    ];
    let scope = prop::collection::vec(token, 1..4).prop_map(|tokens| tokens.join(" "));
    (client, secrets, scope)
        .prop_map(|(client, secret, scope)| TokenRequest { client, secret, scope })
        .prop_filter("every service has a limit", |wanted| wanted.scope.len() <= 100)
}

impl TokenRequest {
    /// Returns the request as each service expects it, in every encoding.
    fn requests(&self) -> Vec<Request> {
        let Self { client, secret, scope } = self;
        let form = [
            ("client_id", client.as_str()),
            ("client_secret", secret),
            ("grant_type", "client_credentials"),
            ("scope", scope),
        ];
        let json: Value = form.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        let vision = Request::new("POST", "/v1/api/oauth/token");
        // HTTP Basic requires that both halves are form-encoded (RFC 6749, section 2.3.1).
        let [client, secret, scope] = [client, secret, scope]
            .map(|text| crate::support::form::percent_encode(text.as_bytes()));
        let firstvision = Request::get(&format!("/v1/getAccessToken?scope={scope}"))
            .header("Content-Type", "application/json")
            .basic(&format!("{client}:{secret}"));
        let mut requests = ENCODINGS.map(|encoding| Request::token(encoding, &form)).to_vec();
        requests.push(vision.typed_body("application/json", json.to_string()));
        requests.push(firstvision);
        requests
    }
}

#[test]
fn every_service_makes_the_same_decision() {
    let library = Library::start(home(), "https://auth.example", NOW);
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let issued = std::cell::Cell::new(0_usize);
    TestRunner::new(config)
        .run(&token_requests(), |wanted| {
            let decisions: Vec<_> = wanted
                .requests()
                .iter()
                .map(|request| {
                    let response = request.send(library.address);
                    if response.status != 200 {
                        assert!([400, 401].contains(&response.status), "{}", response.text());
                        return None;
                    }
                    let claims = Token::verified(&response, library.address).claims;
                    Some(["client_id", "scope", "exp"].map(|name| claims[name].clone()))
                })
                .collect();
            prop_assert!(decisions.iter().all(|one| *one == decisions[0]), "{decisions:?}");
            issued.set(issued.get() + usize::from(decisions[0].is_some()));
            Ok(())
        })
        .unwrap();
    // The comparison above would also succeed if the server refused every request. This line checks
    // that the server issued some tokens.
    assert!((20..180).contains(&issued.get()), "{} of 200 were issued", issued.get());
}

#[test]
fn routes_from_the_configuration_serve_their_dialect() {
    let program = Program::configured(
        "[[route]]\npath = \"/api/connect/token\"\ndialect = \"connect\"\n\
         [[route]]\npath = \"/api/vision\"\ndialect = \"vision\"\n\
         [[route]]\npath = \"/api/get\"\ndialect = \"firstvision\"\n",
    );
    let (user, secret) = USER;
    let wanted = TokenRequest {
        client: user.to_owned(),
        secret: secret.to_owned(),
        scope: "all".to_owned(),
    };
    let own = ["/api/connect/token", "/api/connect/token", "/api/vision", "/api/get?scope=all"];
    for (request, target) in wanted.requests().into_iter().zip(own) {
        let response = program.ask(&request.clone().with_target(target));
        assert_eq!(Token::verified(&response, program.address).claims["scope"], "all");
        assert_eq!(program.ask(&request).status, 200, "the documented path stays");
    }
    let in_path = wanted.requests()[3].clone().with_target("/api/get/all");
    assert_eq!(program.ask(&in_path).status, 200);

    // Errors on a configured route are in the route's dialect and name the requested path.
    let error = program.ask(&Request::get("/api/vision")).json();
    assert_eq!(
        (&error[0]["errorCode"], &error[0]["instance"]),
        (&json!("240501"), &json!("/api/vision"))
    );
    let error = program.ask(&Request::get("/api/get/a/b")).json();
    assert_eq!(error["errorCode"], "AGT404NF");
    program.ask(&Request::get("/api/connect/token")).assert_refused(405, "invalid_request");
}

/// The client may make two requests a day over all services together. Requests that fail to
/// authenticate are not counted.
#[test]
fn a_client_has_one_budget_for_every_service() {
    let library = Library::start(home(), "https://auth.example", NOW);
    let wanted = |secret: &str| TokenRequest {
        client: "limited".to_owned(),
        secret: secret.to_owned(),
        scope: "all".to_owned(),
    };
    for request in wanted("wrong").requests() {
        assert!([400, 401].contains(&request.send(library.address).status));
    }
    let requests = wanted(SECRET).requests();
    for request in &requests[..2] {
        assert_eq!(request.send(library.address).status, 200);
    }
    let answers: Vec<_> = requests.iter().map(|request| request.send(library.address)).collect();
    for answer in &answers {
        assert_eq!(answer.status, 429, "{}", answer.text());
        let wait: u32 = answer.header("retry-after").expect("a time").parse().unwrap();
        // One of the two units is refilled after half a day (43,200 s).
        assert!((40_000..=43_201).contains(&wait), "{wait}");
    }
    assert_eq!(answers[0].json()["error"], "invalid_request");
    assert_eq!(answers[2].json()[0]["errorCode"], "240008");
    assert_eq!(answers[3].json()["errorCode"], "AGT429TMR");
}
