//! One of the parts into which the registry is divided.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::oauth::client::Client;
use crate::registry::derived::Derived;
use crate::registry::registered::Registered;

/// Some clients and the values that are derived from them. Neither changes: a changed client is in
/// another shard, which takes this shard's place in the next registry.
#[derive(Default)]
pub struct Shard {
    /// The clients.
    pub clients: Table,
    /// The values that are derived from the clients.
    pub derived: Derived,
}

/// Clients by the hash of their id. Each client is behind a pointer to save memory: up to half of
/// the slots of a hash table are empty, and each slot is as large as an element.
pub type Table = HashTable<Arc<Registered>>;

impl Shard {
    /// Creates the shard of these clients.
    pub fn new(clients: Table) -> Self {
        let derived = Derived::of(clients.iter().map(|registered| &registered.client));
        Self { clients, derived }
    }

    /// Returns the client with this id, whose hash is `hash`.
    pub fn find(&self, hash: u64, id: &str) -> Option<&Arc<Registered>> {
        find(&self.clients, hash, id)
    }

    /// Returns the clients in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Client> + Clone {
        self.clients.iter().map(|registered| &registered.client)
    }
}

/// Returns the client with this id, whose hash is `hash`.
pub fn find<'t>(table: &'t Table, hash: u64, id: &str) -> Option<&'t Arc<Registered>> {
    table.find(hash, |registered| registered.client.id == *id)
}
