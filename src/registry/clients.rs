//! All registered clients, by `client_id`.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::oauth::client::Client;
use crate::state::client_state::ClientState;

/// A registered client and its state. Snapshots share both as long as the registration does not
/// change.
#[derive(Debug)]
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

/// All registered clients, by `client_id`.
#[derive(Debug, Default)]
pub struct Registry(HashSet<ById>);

impl Registry {
    /// Creates a registry with room for `clients` clients.
    pub fn with_capacity(clients: usize) -> Self {
        Self(HashSet::with_capacity(clients))
    }

    /// Adds a client. If its id is registered already, keeps the client that was added first and
    /// returns `false`.
    pub fn insert(&mut self, client: Arc<Registered>) -> bool {
        self.0.insert(ById(client))
    }

    /// Returns the client with this id.
    pub fn get(&self, client_id: &str) -> Option<&Client> {
        self.find(client_id).map(|registered| &registered.client)
    }

    /// Returns the client with this id and its state.
    pub fn find(&self, client_id: &str) -> Option<&Registered> {
        self.0.get(client_id).map(|ById(registered)| &**registered)
    }

    /// Replaces each client whose registration is the same in `old` by the client of `old`, which
    /// has its state.
    pub fn keep_unchanged(&mut self, old: &Self) {
        for ById(before) in &old.0 {
            if self.get(&before.client.id) == Some(&before.client) {
                self.0.replace(ById(Arc::clone(before)));
            }
        }
    }

    /// Returns this registry with each of the clients `changed` in place of the one with its id.
    pub fn with(&self, changed: Vec<Client>) -> Self {
        let mut all = Self(self.0.clone());
        for client in changed {
            all.0.replace(ById(Registered::new(client)));
        }
        all
    }

    /// Returns the clients in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Client> + Clone {
        self.0.iter().map(|ById(registered)| &registered.client)
    }

    /// The number of clients.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no clients.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A client that is hashed and compared by its id, so that the registry can be a set. A map would
/// store each id a second time. The client is behind a pointer to save memory: up to half of the
/// slots of a hash table are empty, and each slot is as large as an element.
#[derive(Clone, Debug)]
struct ById(Arc<Registered>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.client.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // `Borrow<str>` requires that the hash of a client equals the hash of the client's id.
        (*self.0.client.id).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.client.id == other.0.client.id
    }
}

impl Eq for ById {}
