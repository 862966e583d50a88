//! The last refusals, for whoever has a request id and asks why.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// A request that was refused. Nothing in it was sent by the caller but the request id.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// As the answer and the log line have it.
    pub request_id: Box<str>,
    /// When, in Unix seconds.
    pub at: u64,
    /// Which route.
    pub route: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
    /// The cause's name in logs and metrics.
    pub cause: &'static str,
    /// What happened, and what helps.
    pub explanation: &'static str,
    /// The registered client that was named, proven or not; empty: none.
    pub client: Box<str>,
}

/// The last [`KEPT`] of them.
#[derive(Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    /// Keeps one more, and forgets the oldest if there are too many.
    pub fn keep(&self, refusal: Refusal) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// Those of this request id, the oldest first. Several, if a client uses one id for several.
    pub fn of(&self, request_id: &str) -> Vec<Refusal> {
        self.kept().iter().filter(|kept| *kept.request_id == *request_id).cloned().collect()
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").field("len", &self.kept().len()).finish_non_exhaustive()
    }
}

/// Some 200 bytes each.
pub const KEPT: usize = 4096;
