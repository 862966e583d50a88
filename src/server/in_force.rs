//! The memory of the reloader: of the files and the news in force, beside the snapshot.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::path::PathBuf;

use compact_str::CompactString;

use crate::keys::signing_key::SigningKey;
use crate::oauth::client::Client;
use crate::registry::client_file::KeyPaths;
use crate::registry::clients::Update;
use crate::server::judge::Bars;
use crate::snapshot::Snapshot;

/// The state of the reloader.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// The id of the key that was the signing key at the last look.
    pub(super) signed_last: Option<String>,
    /// The id of the key in force of each key file. The file may have a fault by now.
    pub(super) key_ids: KeyIds,
    /// The key files that the clients in force name.
    pub(super) key_paths: KeyPaths,
    /// The clients of news that the settings bar, by id.
    pub(super) barred: BTreeMap<CompactString, Client>,
    /// Why the last keys of news are not in force.
    pub(super) key_fault: Option<String>,
    /// Whether the lifetimes in force are not written yet.
    pub(super) lacks_lifetimes: bool,
    /// The faults of the last reload and of the last news, for `/readyz`.
    pub(super) degraded: [Option<String>; 2],
}

impl InForce {
    pub(super) fn new(keys: &[(PathBuf, SigningKey)], key_paths: KeyPaths) -> Self {
        let key_ids = keys.iter().map(|(file, key)| (file.clone(), key.key_id().to_owned()));
        Self { key_ids: key_ids.collect(), key_paths, ..Self::default() }
    }

    /// Writes the lifetimes of `snapshot`, which is in force, if that is to be done. Returns the fault if
    /// they could not be written.
    pub(super) fn write_lifetimes(&mut self, snapshot: &Snapshot) -> Option<String> {
        if !self.lacks_lifetimes {
            return None;
        }
        let Snapshot { lifetimes, clients, config, .. } = snapshot;
        let fault = lifetimes.write(clients, &config.startup.state).err();
        self.lacks_lifetimes = fault.is_some();
        fault.map(|fault| fault.to_string())
    }

    /// Returns those of `updates`, and of the clients that were barred before, that may be put in
    /// force. Keeps the clients that `bars` bars.
    pub(super) fn accept(&mut self, updates: Vec<Update>, bars: Bars) -> Vec<Update> {
        let earlier = take(&mut self.barred).into_values();
        let mut accepted = Vec::with_capacity(updates.len());
        for update in earlier.map(|client| Update::Put(Box::new(client))).chain(updates) {
            match update {
                Update::Put(client) if bars.bars(&client) => {
                    self.barred.insert(client.id.clone(), *client);
                }
                update => {
                    self.barred.remove(update.id());
                    accepted.push(update);
                }
            }
        }
        accepted
    }
}

/// The id of the key of each key file.
pub(super) type KeyIds = HashMap<PathBuf, String>;
