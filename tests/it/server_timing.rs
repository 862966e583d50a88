//! `Server-Timing`, for clients that are registered to see it.

use crate::support::home::secret_of;
use crate::support::{DEMO, ENCODINGS, Program, Request, request_of};

#[test]
fn only_a_registered_client_gets_server_timing() {
    let server = Program::shared();
    let secret = secret_of("timed");
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &request_of("timed", &secret, &[])));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let phases: Vec<(&str, f64)> = answer
            .header("server-timing")
            .expect("the header")
            .split(", ")
            .map(|phase| phase.split_once(";dur=").expect("a duration"))
            .map(|(name, duration)| (name, duration.parse().expect("milliseconds")))
            .collect();
        let names: Vec<_> = phases.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["parse", "auth", "queue", "sign"]);
        assert!(phases.iter().all(|(_, duration)| *duration >= 0.0), "{phases:?}");
        // A signature takes more than a microsecond on every processor.
        assert!(phases[3].1 > 0.001, "{phases:?}");

        let refused = server.ask(&Request::token(encoding, &request_of("timed", "wrong", &[])));
        assert_eq!(refused.header("server-timing"), None);
        let other = server.ask(&Request::token(encoding, &DEMO));
        assert_eq!(other.header("server-timing"), None);
    }
}
