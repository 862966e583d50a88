//! `rate_limit`, for clients that are registered with one.

use serde_json::json;

use crate::support::home::{hash_of, secret_of};
use crate::support::registry::{client_json, registry_with, secrets_json};
use crate::support::{Encoding, Home, Library, Program, Request, Response, request_of, wait_until};

const NOW: u64 = 1_750_384_800;

/// Starts a server whose client `limited` may make bursts of three requests, which refill in a
/// minute.
fn start() -> Library {
    let limit = json!({ "rate_limit": { "requests": 3, "seconds": 60 } });
    let home = Home::new();
    home.write("clients.json", &registry_with(&[client_json("limited", &limit)]));
    Library::start(home, "https://auth.example", NOW)
}

fn ask(library: &Library, secret: &str) -> Response {
    Request::token(Encoding::Urlencoded, &request_of("limited", secret, &[])).send(library.address)
}

#[test]
fn a_burst_is_granted_and_refills_evenly() {
    let library = start();
    let secret = secret_of("limited");
    let expect = |granted: usize, retry_after: &str| {
        for _ in 0..granted {
            assert_eq!(ask(&library, &secret).status, 200);
        }
        let refused = ask(&library, &secret);
        refused.assert_refused(429, "invalid_request");
        assert_eq!(refused.header("retry-after"), Some(retry_after));
    };
    expect(3, "21");
    library.clock.advance(19);
    expect(0, "2");
    library.clock.advance(1);
    expect(1, "21");
    // The wall clock does not refill a limit.
    library.clock.set(NOW + 86_400);
    expect(0, "21");
    library.clock.advance(3600);
    expect(3, "21");
}

#[test]
fn only_the_client_itself_takes_from_its_limit() {
    let library = start();
    for _ in 0..5 {
        ask(&library, "wrong").assert_refused(400, "invalid_client");
    }
    for _ in 0..3 {
        assert_eq!(ask(&library, &secret_of("limited")).status, 200);
    }
    ask(&library, &secret_of("limited")).assert_refused(429, "invalid_request");
}

/// A raw Basic secret with `+` is read in two ways, and the first reading is wrong. It costs no unit
/// of a failure budget if the second one is right, but refused for the rate limit.
#[test]
fn a_proven_client_beyond_its_limit_does_not_pay_with_its_failure_budget() {
    let secret = "a-raw-secret-with-a+plus-and-random-bytes";
    let limit = json!({ "rate_limit": { "requests": 1, "seconds": 1 },
                        "secrets": secrets_json(&hash_of(secret)) });
    let home = Home::new();
    home.register(&[client_json("limited", &limit)]);
    let toml = "trusted_proxies = [\"127.0.0.1\"]\n\
                [failures]\nclient_failures = 3\nsource_failures = 3\nseconds = 3600\n";
    home.write("grantd.toml", toml);
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let form = [("grant_type", "client_credentials")];
    let ask = || {
        let request = Request::token(Encoding::Urlencoded, &form);
        let request = request.basic(&format!("limited:{secret}"));
        server.ask(&request.header("X-Forwarded-For", "192.0.2.1")).status
    };
    let refused = (0..30).filter(|_| ask() == 429).count();
    assert!(refused > 3, "{refused}");
    wait_until(|| ask() == 200);
    assert!(!server.metrics().contains("cause=\"throttled\""));
}
