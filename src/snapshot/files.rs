//! Reads the files of a snapshot, each by itself, so that a fault in one file does not prevent the
//! reload of the others.

use std::path::{Path, PathBuf};

use crate::config::Live;
use crate::fault::Fault;
use crate::keys::directory::KeyDirectory;
use crate::keys::key_store::StoredKeys;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client_secret::FastHash;
use crate::registry::client_file::{self, Loaded};
use crate::snapshot::admin_token;

/// The contents of the files of a snapshot, or their faults.
pub struct Files {
    /// The client registry, and the clients' key files.
    pub clients: Result<Loaded, Vec<Fault>>,
    /// The signing keys in any state, gone keys included.
    pub keys: StoredKeys,
    /// The hash of the admin token; `Ok(None)` if no admin token is configured.
    pub admin_token: Result<Option<FastHash>, Fault>,
}

/// The contents of the files of a snapshot; none of them has a fault.
pub struct Contents {
    /// The client registry, and the clients' key files.
    pub clients: Loaded,
    /// The signing keys in any state, each with its file.
    pub keys: Vec<(PathBuf, SigningKey)>,
    /// The hash of the admin token, if one is configured.
    pub admin_token: Option<FastHash>,
}

impl Files {
    /// Reads the files that `live` names. `load_clients` reads the registry.
    pub fn read(
        live: &Live,
        load_clients: impl FnOnce(&Path) -> Result<Loaded, Vec<Fault>>,
    ) -> Self {
        Self {
            clients: load_clients(&live.clients),
            keys: StoredKeys::read(&mut KeyDirectory::new(&live.keys)),
            admin_token: admin_token(live),
        }
    }

    /// Reads the files that `live` names.
    ///
    /// # Errors
    ///
    /// The faults of all files.
    pub fn load(live: &Live) -> Result<Contents, Vec<Fault>> {
        match Self::read(live, client_file::load) {
            Self {
                clients: Ok(clients),
                keys: StoredKeys { keys, faults },
                admin_token: Ok(admin_token),
            } if faults.is_empty() => Ok(Contents { clients, keys, admin_token }),
            Self { clients, keys: StoredKeys { faults, .. }, admin_token } => {
                let of_clients = clients.err().into_iter().flatten();
                Err(of_clients.chain(faults).chain(admin_token.err()).collect())
            }
        }
    }
}

/// Reads the hash of the admin token; `Ok(None)` if `live` names no file of an admin token.
///
/// # Errors
///
/// A [`Fault`] if the file holds no token.
pub fn admin_token(live: &Live) -> Result<Option<FastHash>, Fault> {
    let token = live.admin_token_file.as_deref();
    let read = token.map(admin_token::read).transpose();
    let token = read.map_err(|fault| fault.of_setting("admin_token_file"))?;
    Ok(token.map(|token| FastHash::of(&token)))
}
