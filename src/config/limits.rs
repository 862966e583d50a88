//! What clients may cost, and how often they may fail.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{LONG, MANY, MAX_WORKERS, cores, number};

/// What one client, and all of them together, may cost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub body_bytes: usize,
    /// Parameters of a form, in any encoding.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub form_parts: usize,
    /// Header fields.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub header_fields: usize,
    /// Bytes of the request line and all header fields.
    #[serde(deserialize_with = "number::<_, _, 1024, MANY>")]
    pub header_bytes: usize,
    /// Seconds from a request's first byte to the end of its headers.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub header_seconds: u64,
    /// Seconds from a request's first byte to its last.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub request_seconds: u64,
    /// Seconds that a client may leave an answer unread.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub write_stall_seconds: u64,
    /// Seconds that a connection may idle between requests; longer than nginx keeps its own.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub idle_seconds: u64,
    /// Connections at a time.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub connections: usize,
    /// Tokens that may wait for a signature: half as many until signing has been busy for some
    /// milliseconds, and fewer where it does not have its processors to itself.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub signing_queue: usize,
    /// Secrets whose slow hash may wait to be computed.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub password_queue: usize,
    /// Threads that compute slow hashes of secrets, each with as much memory as a hash asks for.
    #[serde(deserialize_with = "number::<_, _, 1, MAX_WORKERS>")]
    pub password_threads: usize,
    /// Tokens that may be revoked at a time, until theirs is over.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub revocations: usize,
    /// Assertions and proofs of possession that are remembered, so that each is used once.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub replay_entries: usize,
    /// Clients and sources whose failed authentications are remembered.
    #[serde(deserialize_with = "number::<_, _, 2, MANY>")]
    pub failure_entries: usize,
    /// Seconds from the end signal in which clients are let finish.
    #[serde(deserialize_with = "number::<_, _, 0, LONG>")]
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024,
            form_parts: 16,
            header_fields: 64,
            header_bytes: 16 * 1024,
            header_seconds: 5,
            request_seconds: 10,
            write_stall_seconds: 10,
            idle_seconds: 75,
            connections: 10_000,
            signing_queue: 512,
            password_queue: 64,
            // Signatures go on meanwhile.
            password_threads: (cores() / 2).max(1),
            revocations: 1_000_000,
            replay_entries: 100_000,
            failure_entries: 100_000,
            drain_seconds: 10,
        }
    }
}

impl Limits {
    /// [`Limits::request_seconds`] as a duration.
    pub fn request_time(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }
}

/// How often authentication may fail before further attempts are refused for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureLimits {
    /// Failures to be one client, from one client network.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub client_failures: u32,
    /// Failures from one client network, whichever client it was to be.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub source_failures: u32,
    /// Seconds in which either budget refills.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub seconds: u32,
    /// By how much both are wider where many clients share a network.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000>")]
    pub shared_factor: u32,
}

impl Default for FailureLimits {
    fn default() -> Self {
        // A deployment with an old secret in twenty processes is not locked out for long, and a
        // guesser gets one try every two seconds.
        Self { client_failures: 30, source_failures: 100, seconds: 60, shared_factor: 10 }
    }
}
