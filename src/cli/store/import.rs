//! `grantd store import`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::store::arguments::{ImportArgs, StoreArgs};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::whole_file::{self, Lock};
use crate::keys::directory::KeyDirectory;
use crate::keys::key_file;
use crate::keys::key_store::StoredKeys;
use crate::random::Random;
use crate::registry::client_file::{self, edit};
use crate::snapshot::lifetimes::{Lifetimes, Recorded};
use crate::state::revocations::ledger::Shared;
use crate::state::revocations::read_file;
use crate::store::postgres::client_document;
use crate::store::postgres::lifetimes;
use crate::store::postgres::schema;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::transfer::{self, Contents, Imported};

pub(super) fn import(store: StoreArgs, from: &ImportArgs) -> Result<(), CliError> {
    let ImportArgs { clients, keys, state } = from;
    let clock = Clock::system();
    let state = state.as_deref();
    let revoked = state.map(|state| read_state(state, &clock)).transpose()?;
    let recorded = state.map(Recorded::read).transpose()?;
    let files = clients.as_deref().zip(keys.as_deref());
    // No other command may change the files while they are copied.
    let _locks = files.map(|(clients, keys)| lock(clients, keys)).transpose()?;
    let read = |(clients, keys)| -> Result<_, Vec<Fault>> {
        Ok(Contents { clients: read_clients(clients)?, keys: read_keys(keys)? })
    };
    let contents = files.map(read).transpose()?;
    let (settings, mut database) = store.connect()?;
    schema::require(&mut database)?;
    let mut line = json!({ "store": database.name() });
    if let (Some(revoked), Some(recorded)) = (revoked, recorded) {
        let clients = match clients {
            Some(file) => client_file::load(file)?.registry,
            None => client_document::registry(&mut database)?,
        };
        let lifetimes = recorded.followed_by(&clients, clock.now());
        lifetimes::put(&mut database, &lifetimes.rows_beside(&Lifetimes::default()))?;
        let (revocations, cut_offs) = transfer::import_revoked(&mut database, &revoked)?;
        line["revocations"] = json!(revocations);
        line["cut_offs"] = json!(cut_offs);
    }
    if let Some(contents) = contents {
        let master_keys = MasterKeys::load(&settings, &Random::system())?;
        let done = transfer::import(&mut database, &contents, &master_keys)?;
        line["clients"] = json!(contents.clients.len());
        line["keys"] = json!(contents.keys.len());
        line["imported"] = json!(done == Imported::All);
    }
    print(line)
}

/// Reads the revocations in a state directory.
fn read_state(state: &Path, clock: &Clock) -> Result<Arc<Shared>, Fault> {
    // A mistyped name must not look like a directory without revocations.
    std::fs::read_dir(state).map_err(|error| Fault::cannot("read", state, &error))?;
    read_file(state, clock)
}

fn lock(clients: &Path, keys: &Path) -> Result<[Lock; 2], Fault> {
    let registry = whole_file::lock(clients).map_err(|it| Fault::cannot("locked", clients, &it))?;
    let keys = whole_file::lock_directory(keys).map_err(|it| Fault::cannot("locked", keys, &it))?;
    Ok([registry, keys])
}

/// Reads the entry of each client, in the order of the file.
fn read_clients(file: &Path) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let text = client_file::read(file)?;
    client_file::parse(file, &text)?;
    let fault = |error: serde_json::Error| Fault::new(file, error.to_string());
    let mut clients = Vec::new();
    for entry in edit::entries(&text).map_err(fault)? {
        // An entry without an id is a fault, which was found before.
        let Some(id) = edit::id_of(entry) else { continue };
        clients.push((id.into_owned(), with_own_keys(file, entry)?));
    }
    Ok(clients)
}

/// Returns the entry with the keys of the file that its `jwks` names: the servers that share the
/// store do not share a file.
fn with_own_keys(file: &Path, entry: &str) -> Result<String, Fault> {
    let fault = |error: serde_json::Error| Fault::new(file, error.to_string());
    let members: Map<String, Value> = serde_json::from_str(entry).map_err(fault)?;
    let Some(Value::String(name)) = members.get("jwks") else { return Ok(entry.to_owned()) };
    let key_file = file.parent().unwrap_or_else(|| Path::new("")).join(name);
    let (text, _) = client_file::read_key_set(&key_file)?;
    let keys = serde_json::from_str(&text).map_err(fault)?;
    edit::with_fields(entry, &Map::from_iter([("jwks".to_owned(), keys)]), &[]).map_err(fault)
}

/// Reads the text of each key file, with the `kid` of its key.
fn read_keys(directory: &Path) -> Result<Vec<(String, Zeroizing<String>)>, Vec<Fault>> {
    let keys = StoredKeys::read(&mut KeyDirectory::new(directory)).all()?;
    let read =
        keys.into_iter().map(|(file, key)| Ok((key.key_id().to_owned(), key_file::read(&file)?)));
    read.collect()
}
