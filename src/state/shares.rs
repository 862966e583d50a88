//! The shares of the clients in a record that they fill together, so that no client fills it for the
//! others.

use std::collections::HashMap;

use ring::digest::{Context, SHA256};

/// A hash of a client id, shortened to 64 bits. It names the client in the files.
pub(crate) type ClientTag = [u8; 8];

pub(crate) fn client_tag(client_id: &str) -> ClientTag {
    let mut hash = Context::new(&SHA256);
    hash.update(b"grantd client\0");
    hash.update(client_id.as_bytes());
    let hash = hash.finish();
    std::array::from_fn(|index| hash.as_ref()[index])
}

/// The number of entries that each client holds.
#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<ClientTag, usize>);

impl Shares {
    pub(crate) fn of(&self, client: ClientTag) -> usize {
        self.0.get(&client).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, client: ClientTag) {
        *self.0.entry(client).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, client: ClientTag) {
        if let Some(held) = self.0.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.0.remove(&client);
            }
        }
    }
}

/// Whether a client that holds `held` entries holds its share: as many as are free, not counting the
/// last eighth of `capacity`, which is left to clients that hold few. So clients that fill the record
/// together leave each other client a few entries. From a `capacity` of 256 on, the last eighth is
/// enough for at least 32 clients.
pub(crate) fn is_used_up(held: usize, free: usize, capacity: usize) -> bool {
    let few = (capacity / 256).clamp(1, 16);
    held >= few && held >= free.saturating_sub(capacity / 8)
}
