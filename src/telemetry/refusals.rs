//! The most recent refusals, by which the admin listener explains a request id.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// A refused request. The request id is the only text in it that was sent by the client.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The request's id in the answer and in the log.
    pub request_id: Box<str>,
    /// When the request was refused, in Unix seconds.
    pub at: u64,
    /// The label of the route.
    pub route: &'static str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The label of the cause in logs and metrics.
    pub cause: &'static str,
    /// What happened and what to do.
    pub explanation: &'static str,
    /// The registered client that the request claims to be, authenticated or not; empty if there is
    /// none.
    pub client: Box<str>,
}

/// The last [`KEPT`] refusals.
#[derive(Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    /// Adds a refusal, and drops the oldest if there are too many.
    pub fn keep(&self, refusal: Refusal) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// Returns the refusals with this request id, the oldest first. There are several if a client
    /// uses an id for several requests.
    pub fn of(&self, request_id: &str) -> Vec<Refusal> {
        self.kept().iter().filter(|kept| *kept.request_id == *request_id).cloned().collect()
    }

    /// Ignores poisoning: no panic can leave the queue half changed.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").field("len", &self.kept().len()).finish_non_exhaustive()
    }
}

/// How many refusals are kept, of some 200 bytes each.
pub const KEPT: usize = 4096;
