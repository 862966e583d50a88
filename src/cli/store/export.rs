//! `grantd store export`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::store::arguments::{ExportArgs, StoreArgs};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::whole_file;
use crate::random::Random;
use crate::registry::client_file::{self, edit};
use crate::snapshot::lifetimes::Recorded;
use crate::state::revocations::{Revocations, text_of};
use crate::store::postgres::client_document;
use crate::store::postgres::lifetimes;
use crate::store::postgres::schema;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::transfer::{self, Contents};

pub(super) fn export(store: StoreArgs, to: &ExportArgs) -> Result<(), CliError> {
    let ExportArgs { clients: registry, keys: directory, state } = to;
    let revocations = state.as_deref().map(Revocations::file);
    require_new(registry, directory, revocations.as_deref())?;
    let clock = Clock::system();
    let (settings, mut database) = store.connect()?;
    let master_keys = MasterKeys::load(&settings, &Random::system())?;
    schema::require(&mut database)?;
    let Contents { clients, keys } = transfer::export(&mut database, &master_keys)?;
    let entries: Vec<_> = clients.iter().map(|(_, entry)| entry.as_str()).collect();
    let text = edit::append_entries(registry, None, &entries).or_else(|faults| {
        let of_rows = client_document::faults_of_rows(&mut database)?;
        Err(if of_rows.is_empty() { faults } else { of_rows })
    })?;
    let mut line =
        json!({ "store": database.name(), "clients": clients.len(), "keys": keys.len() });
    let mut written = Written::default();
    if let (Some(state), Some(file)) = (state, revocations) {
        let shared = transfer::export_revoked(&mut database, clock.now())?;
        let revoked = &shared.revoked;
        line["revocations"] = json!(revoked.len());
        line["cut_offs"] = json!(revoked.cut_offs().len());
        written.create_directory(state)?;
        written.create(file, text_of(revoked).as_bytes())?;
        let registry = client_file::parse(database.name(), &text)?;
        let mut lifetimes = Recorded::default().followed_by(&registry, clock.now());
        lifetimes.learn(lifetimes::read(&mut database)?, clock.now());
        lifetimes.write(&registry, state)?;
        written.files.push(Recorded::file(state));
    }
    written.create_directory(directory)?;
    for (key_id, document) in &keys {
        written.create(directory.join(format!("{key_id}.pem")), document.as_bytes())?;
    }
    // The registry is the last file: if it is there, the export is complete.
    written.create(registry.clone(), text.as_bytes())?;
    written.keep();
    print(line)
}

/// Refuses to write where files are already.
fn require_new(registry: &Path, directory: &Path, revocations: Option<&Path>) -> Result<(), Fault> {
    let problem = "exists already: export to a new place";
    for file in revocations.into_iter().chain([registry]) {
        if file.symlink_metadata().is_ok() {
            return Err(Fault::new(file, problem));
        }
    }
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(Fault::new(directory, "is not empty: export to a new directory")),
            None => Ok(()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Fault::cannot("read", directory, &error)),
    }
}

/// The files that were written. They are removed again unless all of them are.
#[derive(Default)]
struct Written {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Written {
    fn create_directory(&mut self, directory: &Path) -> Result<(), Fault> {
        let is_new = !directory.exists();
        whole_file::create_directory(directory)
            .map_err(|error| Fault::cannot("created", directory, &error))?;
        self.directories.extend(is_new.then(|| directory.to_owned()));
        Ok(())
    }

    fn create(&mut self, file: PathBuf, contents: &[u8]) -> Result<(), Fault> {
        whole_file::create(&file, contents)
            .map_err(|error| Fault::cannot("written", &file, &error))?;
        self.files.push(file);
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.directories.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // The error that is reported is the one that ended the export.
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        for directory in &self.directories {
            let _ = std::fs::remove_dir(directory);
        }
    }
}
