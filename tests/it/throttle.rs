//! Guessing is slowed, and nobody is locked out by what others do.

use serde_json::json;

use crate::support::home::secret_of;
use crate::support::{ENCODINGS, Encoding, Home, Program, Request, Response, request_of};

/// Trusts loopback to say who is asking, and has small budgets.
const TOML: &str = "trusted_proxies = [\"127.0.0.1\"]\n\
                    [failures]\nclient_failures = 3\nsource_failures = 5\nseconds = 3600\n";

fn start() -> Program {
    let home = Home::new();
    home.write("grantd.toml", TOML);
    Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"])
}

fn ask(server: &Program, address: &str, client: &str, secret: &str) -> Response {
    let request = Request::token(Encoding::Urlencoded, &request_of(client, secret, &[]));
    server.ask(&request.header("X-Forwarded-For", address))
}

fn is_right(server: &Program, address: &str, client: &str) -> u16 {
    ask(server, address, client, &secret_of(client)).status
}

fn throttled(server: &Program, budget: &str) -> u64 {
    server.metric(&format!("grantd_throttled_total{{budget=\"{budget}\"}}"))
}

#[test]
fn a_client_that_is_guessed_at_from_one_address_waits_there_and_nowhere_else() {
    let server = start();
    for _ in 0..3 {
        ask(&server, "192.0.2.1", "basic-only", "wrong").assert_refused(400, "invalid_client");
    }
    let refused = ask(&server, "192.0.2.1", "basic-only", "wrong");
    refused.assert_refused(429, "invalid_request");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1201).contains(&wait), "{wait}");
    // The right secret learns nothing either, in whatever encoding and dialect.
    for encoding in ENCODINGS {
        let secret = secret_of("basic-only");
        let right = request_of("basic-only", &secret, &[]);
        let request = Request::token(encoding, &right).header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request).assert_refused(429, "invalid_request");
    }
    let firstvision = Request::get("/v1/getAccessToken")
        .header("Content-Type", "application/json")
        .header("X-Forwarded-For", "192.0.2.1")
        .basic(&format!("basic-only:{}", secret_of("basic-only")));
    let answer = server.ask(&firstvision);
    assert_eq!((answer.status, &answer.json()["errorCode"]), (429, &json!("AGT429TMR")));

    assert_eq!(is_right(&server, "192.0.2.1", "post-only"), 200);
    assert_eq!(is_right(&server, "192.0.2.2", "post-only"), 200);
    let elsewhere = Request::token(Encoding::Multipart, &[("grant_type", "client_credentials")])
        .basic(&format!("basic-only:{}", secret_of("basic-only")))
        .header("X-Forwarded-For", "192.0.2.2");
    assert_eq!(server.ask(&elsewhere).status, 200);
    assert_eq!((throttled(&server, "client"), throttled(&server, "address")), (4, 0));
}

#[test]
fn an_address_that_names_many_clients_waits_but_not_for_those_it_is_known_as() {
    let server = start();
    assert_eq!(is_right(&server, "192.0.2.9", "post-only"), 200);
    // Unknown clients and known ones count the same.
    for client in ["nobody-1", "one-audience", "nobody-2", "two-audiences", "nobody-3"] {
        ask(&server, "192.0.2.9", client, "wrong").assert_refused(400, "invalid_client");
    }
    for client in ["nobody-4", "timed"] {
        ask(&server, "192.0.2.9", client, "wrong").assert_refused(429, "invalid_request");
    }
    assert_eq!(is_right(&server, "192.0.2.9", "timed"), 429);
    assert_eq!(is_right(&server, "192.0.2.9", "post-only"), 200);
    assert_eq!(is_right(&server, "192.0.2.10", "timed"), 200);
    // One network of IPv6 is one place.
    for host in 1..=5 {
        let address = format!("2001:db8::{host}");
        ask(&server, &address, &format!("n{host}"), "x").assert_refused(400, "invalid_client");
    }
    ask(&server, "2001:db8::6", "n6", "x").assert_refused(429, "invalid_request");
    assert_eq!(is_right(&server, "2001:db8:0:1::1", "timed"), 200);
    assert_eq!((throttled(&server, "client"), throttled(&server, "address")), (0, 4));
}

#[test]
fn where_many_share_an_address_nobody_waits() {
    let server = Program::configured("[failures]\nclient_failures = 1\nsource_failures = 1\n");
    for more in [None, Some("192.0.2.1")] {
        for _ in 0..3 {
            let form = request_of("post-only", "wrong", &[]);
            let mut request = Request::token(Encoding::Urlencoded, &form);
            if let Some(address) = more {
                // Nobody has said that this one may speak for others.
                request = request.header("X-Forwarded-For", address);
            }
            server.ask(&request).assert_refused(400, "invalid_client");
        }
        let right = secret_of("post-only");
        let request = Request::token(Encoding::Urlencoded, &request_of("post-only", &right, &[]));
        assert_eq!(server.ask(&request).status, 200);
    }
}

#[test]
fn what_is_no_guess_costs_nothing() {
    let server = start();
    for _ in 0..10 {
        let secret = secret_of("post-only");
        let form = request_of("post-only", &secret, &[("scope", "other")]);
        let request = Request::token(Encoding::Urlencoded, &form);
        let request = request.header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request).assert_refused(400, "invalid_scope");
        let request = Request::token(Encoding::Urlencoded, &[("client_id", "post-only")]);
        let request = request.header("X-Forwarded-For", "192.0.2.1");
        assert_eq!(server.ask(&request).status, 400);
    }
    assert_eq!(is_right(&server, "192.0.2.1", "post-only"), 200);
}

#[test]
fn the_log_has_the_address_that_a_trusted_proxy_states_and_no_other() {
    let trusting = start();
    let trusted = ask(&trusting, "203.0.113.9, 192.0.2.7", "nobody", "x");
    let id = trusted.header("x-request-id").unwrap();
    assert_eq!(trusting.log.of_request(id)["address"], "192.0.2.7");

    let server = Program::shared();
    let untrusted = ask(&server, "192.0.2.7", "nobody", "x");
    let line = server.log.of_request(untrusted.header("x-request-id").unwrap());
    assert_eq!(line.get("address"), None);
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}
