//! The store of the signing keys: a directory, or the database.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::rotation::Publisher;
use crate::keys::signing_key::SigningKey;

/// Holds one document for each key (`keys/key_file.rs`), by name. The changes of keys
/// (`keys/change.rs`) are made through it.
pub trait KeyStore {
    /// The name of the store in faults.
    fn path(&self) -> &Path;

    /// Makes the store if there is none.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it cannot be made.
    fn create(&mut self) -> Result<(), Fault>;

    /// Keeps others from changing the keys until the store is dropped. Waits for those who do. If
    /// there is no store, there is nothing to lock.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the store cannot be locked.
    fn lock(&mut self) -> Result<(), Fault>;

    /// Returns the names of all documents that are not retired, in order. There are none if the
    /// store does not exist.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the store cannot be read.
    fn names(&mut self) -> Result<Vec<PathBuf>, Fault>;

    /// Reads a key. `None` if its document has gone since its name was returned.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the document cannot be read or holds no valid key.
    fn load(&mut self, name: &Path) -> Result<Option<SigningKey>, Fault>;

    /// Adds the document of the new key `key`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it was not added.
    fn add(&mut self, key: &SigningKey, document: &str) -> Result<(), Fault>;

    /// Reads the document of a key.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it cannot be read.
    fn document(&mut self, name: &Path) -> Result<Zeroizing<String>, Fault>;

    /// Replaces the document of the key `key`, which is called `name`, by one with other times.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it was not replaced.
    fn replace(&mut self, name: &Path, key: &SigningKey, document: &str) -> Result<(), Fault>;

    /// Returns the servers that share the keys and that may publish other ones than the store holds,
    /// because they may not reach it. There are none if the keys are files: each server reads them
    /// within seconds.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the store cannot be read.
    fn publishers(&mut self) -> Result<Vec<Publisher>, Fault>;

    /// Retires a document, so that it is not loaded any more. `key_id` is the `kid` of its key, if
    /// it holds one. Returns the new name of the document.
    ///
    /// # Errors
    ///
    /// If it was not retired.
    fn retire(&mut self, name: &Path, key_id: Option<&str>) -> io::Result<PathBuf>;
}

/// The keys of a store, each read by itself.
#[derive(Default)]
pub struct StoredKeys {
    /// The keys, each with the name of its document, in the order of the names.
    pub keys: Vec<(PathBuf, SigningKey)>,
    /// The faults, at most one for each document. A fault that names the store means that the store
    /// could not be read.
    pub faults: Vec<Fault>,
}

impl StoredKeys {
    /// Reads all keys in `store`. It is a fault if a document holds no valid key, or the same key
    /// as another.
    pub fn read(store: &mut dyn KeyStore) -> Self {
        let mut found = Self::default();
        let names = store.names().unwrap_or_else(|fault| {
            found.faults.push(fault);
            Vec::new()
        });
        for name in names {
            match store.load(&name) {
                Ok(Some(key)) if found.keys.iter().any(|(_, it)| it.key_id() == key.key_id()) => {
                    let problem = "holds a key that another file holds too";
                    found.faults.push(Fault::new(&name, problem));
                }
                Ok(Some(key)) => found.keys.push((name, key)),
                Ok(None) => {}
                Err(fault) => found.faults.push(fault),
            }
        }
        found
    }

    /// Returns the keys.
    ///
    /// # Errors
    ///
    /// All faults.
    pub fn all(self) -> Result<Vec<(PathBuf, SigningKey)>, Vec<Fault>> {
        if self.faults.is_empty() { Ok(self.keys) } else { Err(self.faults) }
    }
}
