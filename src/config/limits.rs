//! What requests may cost, and how often authentication may fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{LONG, MANY, MAX_WORKERS, cores, number};

/// The part of `[limits]` that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartupLimits {
    /// Header fields.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub header_fields: usize,
    /// Bytes of the request line and all header fields.
    #[serde(deserialize_with = "number::<_, _, 1024, MANY>")]
    pub header_bytes: usize,
    /// Seconds from a request's first byte to the end of its headers.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub header_seconds: u64,
    /// Seconds that a client may leave an answer unread.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub write_stall_seconds: u64,
    /// Seconds that a connection may idle between requests; longer than nginx keeps one.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub idle_seconds: u64,
    /// Connections at a time.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub connections: usize,
    /// Tokens that may wait for a signature: half as many until signing has been busy for some
    /// milliseconds, and fewer where it shares its processors.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub signing_queue: usize,
    /// Secrets whose slow hash may wait to be computed.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub password_queue: usize,
    /// Threads that compute slow hashes of secrets, each with the memory of one hash.
    #[serde(deserialize_with = "number::<_, _, 1, MAX_WORKERS>")]
    pub password_threads: usize,
    /// Revoked tokens that have not expired.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub revocations: usize,
    /// Assertions and proofs of possession that are remembered, so that each is used once.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub replay_entries: usize,
    /// Clients and client networks whose failed authentications are remembered.
    #[serde(deserialize_with = "number::<_, _, 2, MANY>")]
    pub failure_entries: usize,
    /// Seconds that requests in flight have to finish after the end signal.
    #[serde(deserialize_with = "number::<_, _, 0, LONG>")]
    pub drain_seconds: u64,
}

impl Default for StartupLimits {
    fn default() -> Self {
        Self {
            header_fields: 64,
            header_bytes: 16 * 1024,
            header_seconds: 5,
            write_stall_seconds: 10,
            idle_seconds: 75,
            connections: 10_000,
            signing_queue: 512,
            password_queue: 64,
            // Half of the cores, so that signing goes on meanwhile.
            password_threads: (cores() / 2).max(1),
            revocations: 1_000_000,
            replay_entries: 100_000,
            failure_entries: 100_000,
            drain_seconds: 10,
        }
    }
}

/// The part of `[limits]` that a reload may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveLimits {
    /// Bytes of a request's body.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub body_bytes: usize,
    /// Parameters of a form, in any encoding.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub form_parts: usize,
    /// Seconds from a request's first byte to its last.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub request_seconds: u64,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self { body_bytes: 16 * 1024, form_parts: 16, request_seconds: 10 }
    }
}

impl LiveLimits {
    /// [`LiveLimits::request_seconds`] as a duration.
    pub fn request_time(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }
}

/// How often authentication may fail before further attempts are refused for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureLimits {
    /// Failures for one client from one client network.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub client_failures: u32,
    /// Failures from one client network, for all clients together.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub source_failures: u32,
    /// Seconds in which either budget refills.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub seconds: u32,
    /// The factor of both where many clients share a network.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000>")]
    pub shared_factor: u32,
}

impl Default for FailureLimits {
    fn default() -> Self {
        // Twenty processes with an old secret are not locked out for long, and a guesser gets one
        // attempt every two seconds.
        Self { client_failures: 30, source_failures: 100, seconds: 60, shared_factor: 10 }
    }
}
