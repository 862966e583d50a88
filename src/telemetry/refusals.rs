//! Keeps the most recent refusals, so that the admin listener can explain why the request with a
//! given id was refused.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

use crate::time::UnixTime;

/// A refused request. The request id is the only text here that the client may have chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The request's id in the answer and in the log.
    pub request_id: Box<str>,
    /// When the request was refused.
    pub at: UnixTime,
    /// The label of the route.
    pub route: &'static str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The label of the cause in logs and metrics.
    pub cause: &'static str,
    /// The explanation of the cause, with a remedy.
    pub explanation: &'static str,
    /// The id of the registered client that the request names, even if the client did not
    /// authenticate; empty if the request names no registered client.
    pub client: Box<str>,
}

/// The last [`KEPT`] refusals.
#[derive(Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    /// Adds a refusal. If [`KEPT`] refusals are kept already, drops the oldest refusal first.
    pub fn keep(&self, refusal: Refusal) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// Returns the refusals with this request id, the oldest first. There can be several, because a
    /// client may send the same id with several requests.
    pub fn of(&self, request_id: &str) -> Vec<Refusal> {
        self.0.lock().iter().filter(|kept| *kept.request_id == *request_id).cloned().collect()
    }
}

/// The maximum number of refusals that are kept. Each refusal takes some 200 bytes.
pub const KEPT: usize = 4096;
