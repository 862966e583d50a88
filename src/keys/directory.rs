//! The directory of signing keys, with one file `<kid>.pem` per key.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::fs::whole_file::{self, Lock};
use crate::keys::key_file;
use crate::keys::key_store::KeyStore;
use crate::keys::rotation::Publisher;
use crate::keys::signing_key::SigningKey;

/// A directory of signing keys, and the lock on it if this process changes it.
#[derive(Debug)]
pub struct KeyDirectory {
    path: PathBuf,
    lock: Option<Lock>,
}

impl KeyDirectory {
    /// Names the directory. Reads and creates nothing.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None }
    }
}

impl KeyStore for KeyDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn create(&mut self) -> Result<(), Fault> {
        whole_file::create_directory(&self.path)
            .map_err(|error| Fault::new(&self.path, format!("cannot be created: {error}")))
    }

    fn lock(&mut self) -> Result<(), Fault> {
        // Of an earlier change: this process would wait for itself.
        self.lock = None;
        match whole_file::lock_directory(&self.path) {
            Ok(lock) => self.lock = Some(lock),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Fault::new(&self.path, format!("cannot be locked: {error}")));
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<Vec<PathBuf>, Fault> {
        let unreadable = |error: io::Error| Fault::cannot("read", &self.path, &error);
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let file = entry.path();
            // Skip hidden files, which editors and mounts leave behind.
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && file.extension().is_some_and(|extension| extension == "pem") {
                files.push(file);
            }
        }
        files.sort();
        Ok(files)
    }

    /// A file that is unreadable or world-readable is a fault.
    fn load(&mut self, name: &Path) -> Result<Option<SigningKey>, Fault> {
        match key_file::load(name) {
            // The file was removed or retired after the directory was read.
            Err(_) if is_gone(name) => Ok(None),
            read => read.map(Some),
        }
    }

    fn add(&mut self, key: &SigningKey, document: &str) -> Result<(), Fault> {
        let file = self.path.join(format!("{}.pem", key.key_id()));
        whole_file::create(&file, document.as_bytes())
            .map_err(|error| Fault::new(&file, format!("cannot be written: {error}")))
    }

    fn document(&mut self, name: &Path) -> Result<Zeroizing<String>, Fault> {
        key_file::read(name)
    }

    fn replace(&mut self, name: &Path, _: &SigningKey, document: &str) -> Result<(), Fault> {
        whole_file::replace(name, document.as_bytes())
            .map_err(|error| Fault::new(name, format!("cannot be written: {error}")))
    }

    fn publishers(&mut self) -> Result<Vec<Publisher>, Fault> {
        Ok(Vec::new())
    }

    /// Renames the file of the key to `<kid>.pem.retired`.
    fn retire(&mut self, name: &Path, key_id: Option<&str>) -> io::Result<PathBuf> {
        let to = match key_id {
            Some(key_id) => self.path.join(format!("{key_id}.pem.retired")),
            None => {
                let mut to = name.as_os_str().to_owned();
                to.push(".retired");
                to.into()
            }
        };
        whole_file::rename(name, &to)?;
        Ok(to)
    }
}

fn is_gone(file: &Path) -> bool {
    file.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
