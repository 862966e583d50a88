//! Limits on requests, and on failed authentication attempts.

use serde::{Deserialize, Serialize};

use crate::config::number::{LONG, MANY, MAX_WORKERS, cores, number};

/// The part of `[limits]` that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StartupLimits {
    /// The maximum number of header fields of a request.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub header_fields: usize,
    /// The maximum number of bytes of the request line and all header fields together.
    #[serde(deserialize_with = "number::<_, _, 1024, MANY>")]
    pub header_bytes: usize,
    /// The longest time, in seconds, from a request's first byte to the end of its headers.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub header_seconds: u64,
    /// The longest time, in seconds, that a client may leave an answer unread.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub write_stall_seconds: u64,
    /// The longest time, in seconds, that a connection may be idle between requests. By default,
    /// nginx closes an idle connection after 60 seconds. The default here is longer, so that nginx
    /// closes the connection first.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub idle_seconds: u64,
    /// The maximum number of open connections. If the process may not have enough open files, the
    /// server uses a lower limit. The connections of the admin listener are not counted; their
    /// limit is 8.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub connections: usize,
    /// The maximum number of tokens that may wait for a signature. At most half of this number
    /// applies until the signing threads have been busy for some tens of milliseconds. After that,
    /// the limit is this number times the smallest share of their processors that these threads had
    /// in their last four windows of 10 ms, but at least a quarter of this number.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub signing_queue: usize,
    /// The maximum number of secrets that may wait for the computation of their slow hash.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub password_queue: usize,
    /// The number of threads that compute slow hashes of secrets. Each thread needs the memory of
    /// one hash.
    #[serde(deserialize_with = "number::<_, _, 1, MAX_WORKERS>")]
    pub password_threads: usize,
    /// The maximum number of revoked tokens that are remembered until an hour after they expire. A
    /// client holds at most half of them.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub revocations: usize,
    /// The maximum number of assertions and proofs of possession that are remembered, so that each
    /// can be used only once.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub replay_entries: usize,
    /// The maximum number of clients and client networks whose failed authentications are
    /// remembered.
    #[serde(deserialize_with = "number::<_, _, 2, MANY>")]
    pub failure_entries: usize,
    /// The longest time, in seconds, that requests in flight may take after the server has stopped
    /// accepting connections.
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
            // Half of the cores, so that signing can go on while secrets are hashed.
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
#[non_exhaustive]
pub struct LiveLimits {
    /// The maximum number of bytes of a request's body.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub body_bytes: usize,
    /// The maximum number of parameters of a form, in any encoding.
    #[serde(deserialize_with = "number::<_, _, 1, MANY>")]
    pub form_parts: usize,
    /// The longest time, in seconds, from the first byte of a request to its last byte.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub request_seconds: u64,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self { body_bytes: 16 * 1024, form_parts: 16, request_seconds: 10 }
    }
}

/// How often authentication may fail before further attempts are refused for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FailureLimits {
    /// The failure budget of one client in one client network: the number of failures that exhausts
    /// the budget.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub client_failures: u32,
    /// The failure budget of one client network: the number of failures that exhausts the budget.
    /// The failures of all clients in the network are counted together.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000_000>")]
    pub source_failures: u32,
    /// The time, in seconds, in which each of the two budgets refills from empty to full.
    #[serde(deserialize_with = "number::<_, _, 1, LONG>")]
    pub seconds: u32,
    /// The factor by which both budgets are multiplied for a client network that many clients may
    /// share, such as loopback or the address of a proxy that is not declared.
    #[serde(deserialize_with = "number::<_, _, 1, 1_000>")]
    pub shared_factor: u32,
}

impl Default for FailureLimits {
    fn default() -> Self {
        // With these budgets, twenty processes with an old secret are not locked out for long, and
        // a guesser gets only one attempt every two seconds.
        Self { client_failures: 30, source_failures: 100, seconds: 60, shared_factor: 10 }
    }
}
