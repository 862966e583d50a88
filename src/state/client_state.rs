//! The state that the requests of one client change.

use std::time::Instant;

use crate::guard::gcra::{Rate, SharedBudget, Taken};
use crate::oauth::client::{Client, RateLimit};
use crate::state::secret_uses::Found;
use crate::state::token_reuse::TokenReuse;

/// The state that the requests of one client change.
pub struct ClientState {
    requests: SharedBudget,
    /// The client's reusable tokens.
    pub tokens: TokenReuse,
    /// The counts of the uses of the client's secrets.
    pub uses: Found,
}

impl ClientState {
    /// Creates the state of a client that begins at `now`.
    pub fn new(client: &Client, now: Instant) -> Self {
        Self {
            requests: SharedBudget::new(now),
            tokens: TokenReuse::default(),
            uses: Found::none(client.secrets.len()),
        }
    }

    /// Takes one request from the client's rate limit.
    ///
    /// # Errors
    ///
    /// If the limit is used up: the seconds until the next request is allowed, at least 1.
    pub fn take_request(&self, limit: RateLimit, now: Instant) -> Result<Taken, u32> {
        self.requests.take(Rate::new(limit.requests(), limit.seconds()), now)
    }

    /// Returns a request to the client's rate limit.
    pub fn give_back(&self, taken: Taken, now: Instant) {
        self.requests.give_back(taken, now);
    }
}
