//! Changes that do not come from the server's own files.

use crate::keys::signing_key::SigningKey;
use crate::registry::clients::Update;
use crate::snapshot::lifetimes::Shortened;

/// The changes in the registry and in the keys since the snapshot in force.
#[derive(Default)]
pub struct News {
    /// The changes of clients. The last change of each client counts.
    pub clients: Vec<Update>,
    /// All signing keys, in any state; `None` if they are as before.
    pub keys: Option<Vec<SigningKey>>,
    /// The ids of keys that stay as they are, although they are not in `keys`.
    pub kept_keys: Vec<String>,
    /// Lifetimes that other servers have noted as shortened, by client; empty for all clients.
    pub lifetimes: Vec<(String, Shortened)>,
}
