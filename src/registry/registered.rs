//! A registered client and its state.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::oauth::client::Client;
use crate::state::client_state::ClientState;

/// A registered client and its state. Snapshots share both as long as the registration does not
/// change.
pub struct Registered {
    /// The registration.
    pub client: Client,
    /// Empty until the first use. Boxed to save memory: most clients of a large registry are idle.
    state: OnceLock<Box<ClientState>>,
}

impl Registered {
    /// Registers a client.
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, state: OnceLock::new() })
    }

    /// Returns the state of the client. It begins at `now` if this is its first use.
    pub fn state(&self, now: Instant) -> &ClientState {
        self.state.get_or_init(|| Box::new(ClientState::new(&self.client, now)))
    }
}
