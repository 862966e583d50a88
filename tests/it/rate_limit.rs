//! `rate_limit`, for clients that are registered with one.

use serde_json::json;

use crate::support::home::secret_of;
use crate::support::registry::{client_json, registry_with};
use crate::support::{Encoding, Home, Library, Request, Response, request_of};

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
