//! `clients.json`: the client registry as a file.
//!
//! The functions that read the file report every fault with its line and field. They never quote a
//! value, because the value may be a secret in the wrong field. When a client is added, the text of
//! the other clients is not changed.

mod asymmetric;
mod certificate;
mod document;
pub mod edit;
mod entry;

pub use crate::registry::client_file::asymmetric::{
    names_key_file, read_client_keys, read_key_set, skipped_keys,
};
pub use crate::registry::client_file::document::place_in;
pub use crate::registry::client_file::entry::{KeyPaths, OPTIONAL_FIELDS};

use std::collections::HashSet;
use std::mem::take;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Builder, available_parallelism};

use serde_json::value::RawValue;
use tracing::warn;

use crate::fault::text::{self, json_problem};
use crate::fault::{Fault, Position};
use crate::fs::file_watch::{MOST_FILES, Stamp};
use crate::oauth::client::Client;
use crate::registry::client_file::document::{
    Document, Object, document_fault, id_of, require_closed,
};
use crate::registry::client_file::entry::{Field, KeyFile, OnKeyFault, Reader};
use crate::registry::clients::{Draft, Registry, Update};
use crate::registry::registered::Registered;

/// A registry that was read from a file.
pub struct Loaded {
    /// The clients.
    pub registry: Registry,
    /// The stamp of the key files that the `jwks` fields of the clients name. Each file was stamped
    /// before it was read, so that a change during the reading is noticed at the next check.
    pub key_files: Stamp,
    /// The paths of these files.
    pub key_paths: KeyPaths,
    /// The faults of key files that are no faults of the registry. Their clients keep the keys that
    /// they had from the same file, if any.
    pub key_faults: Vec<Fault>,
}

/// Reads the registry from `file`.
///
/// # Errors
///
/// Every fault in the file and in the key files that it names.
pub fn load(file: &Path) -> Result<Loaded, Vec<Fault>> {
    parse_all(file, &read(file)?, OnKeyFault::Refuse)
}

/// Reads the registry from `file`. If a client's key file has a fault, the client keeps the keys
/// that it has in the registry `in_force`, if it has them from the same file. `paths` are the paths
/// of the key files of that registry. The clients that have not changed are those of `in_force`.
///
/// # Errors
///
/// Every fault in the file.
pub fn load_beside(
    file: &Path,
    in_force: &Registry,
    paths: &KeyPaths,
) -> Result<Loaded, Vec<Fault>> {
    parse_all(file, &read(file)?, OnKeyFault::Keep(in_force, paths))
}

/// Reads the key files of the registry `in_force` again, because a newer registry has a fault.
/// Returns an update of each client whose keys have changed, and the faults of the key files.
pub fn read_keys_again(in_force: &Registry, paths: &KeyPaths) -> (Vec<Update>, Vec<Fault>) {
    let (mut changed, mut faults) = (Vec::new(), Vec::new());
    for (id, path) in paths {
        let Some(client) = in_force.get(id) else { continue };
        match read_client_keys(path) {
            Ok(keys) if keys == *client.keys => {}
            Ok(keys) => {
                let client = Client { keys: keys.into(), ..client.clone() };
                changed.push(Update::Put(Box::new(client)));
            }
            Err(fault) => faults.push(fault),
        }
    }
    (changed, faults)
}

/// Reads the text of `file`. Refuses a world-writable file, because every user of the machine could
/// register a client in it.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or is world-writable.
pub fn read(file: &Path) -> Result<String, Fault> {
    require_closed(file)?;
    text::read(file).map_err(|mut fault| {
        if !file.exists() {
            fault.problem.push_str("; `grantd client add` makes one");
        }
        fault
    })
}

/// Reads the registry from `text`, the contents of `file`.
///
/// # Errors
///
/// Every fault in `text` and in the key files that it names.
pub fn parse(file: &Path, text: &str) -> Result<Registry, Vec<Fault>> {
    Ok(parse_all(file, text, OnKeyFault::Refuse)?.registry)
}

/// Like [`parse`], but ignores the faults of key files: they must not prevent the change of another
/// client. The clients of such files have no keys.
fn parse_without_key_files(file: &Path, text: &str) -> Result<Registry, Vec<Fault>> {
    Ok(parse_all(file, text, OnKeyFault::Ignore)?.registry)
}

fn parse_all(file: &Path, text: &str, on_key_fault: OnKeyFault<'_>) -> Result<Loaded, Vec<Fault>> {
    let Object(document): Object<Document<'_>> =
        serde_json::from_str(text).map_err(|error| vec![document_fault(file, text, &error)])?;
    let mut draft = Draft::new(document.clients.len(), on_key_fault.in_force());
    let mut reader = Reader::new(file, text, 1, on_key_fault);
    let (mut key_files, mut key_faults) = (Stamp::default(), Vec::new());
    let mut key_paths = KeyPaths::new();
    // The ids of the entries that have a fault.
    let mut faulty = HashSet::new();
    let entries = in_parallel(file, text, &document.clients, on_key_fault);
    for (index, (raw, client)) in entries.enumerate() {
        let is_new = match client {
            Ok((client, key_file)) => {
                if let Some(KeyFile { path, stamp, fault }) = key_file {
                    key_paths.insert(client.client.id.to_string(), path);
                    key_files.extend(stamp);
                    key_faults.extend(fault);
                }
                !faulty.contains(&*client.client.id) && draft.insert(client)
            }
            Err(faults) => {
                reader.faults.extend(faults);
                id_of(raw.get()).is_none_or(|id| !draft.contains(&id) && faulty.insert(id))
            }
        };
        if !is_new {
            let field = Field { raw, index: Some(index), name: "client_id" };
            reader.fault(field, "is registered twice");
        }
    }
    if !reader.faults.is_empty() {
        return Err(reader.faults);
    }
    if key_files.settle() {
        let problem =
            format!("names more than {MOST_FILES} key files: of the others, changes count");
        warn!(file = %file.display(), "{problem} at SIGHUP alone");
    }
    Ok(Loaded { registry: draft.finish(), key_files, key_paths, key_faults })
}

/// A client and its key file, or every fault of its entry.
type Read = Result<(Arc<Registered>, Option<KeyFile>), Vec<Fault>>;

/// Reads `entries` in parallel, and returns each entry with its result, in the order of `entries`.
fn in_parallel<'t>(
    file: &Path,
    text: &'t str,
    entries: &[&'t RawValue],
    on_key_fault: OnKeyFault<'t>,
) -> impl Iterator<Item = (&'t RawValue, Read)> {
    let threads = available_parallelism().map_or(1, NonZero::get);
    let length = entries.len().div_ceil(threads).max(WORTH_A_THREAD);
    let read = |(number, part): (usize, &[&'t RawValue])| -> Vec<_> {
        let mut reader = Reader::new(file, text, 1, on_key_fault);
        let numbered = (number * length..).zip(part);
        let read = numbered.map(|(index, raw)| {
            let client = reader.client(Some(index), raw).map(Registered::new);
            let key_file = reader.key_file.take();
            let read = client.map(|client| (client, key_file));
            (*raw, read.ok_or_else(|| take(&mut reader.faults)))
        });
        read.collect()
    };
    let mut parts = entries.chunks(length).enumerate();
    let first = parts.next();
    thread::scope(|scope| {
        let start = |part| Builder::new().spawn_scoped(scope, move || read(part)).map_err(|_| part);
        let others: Vec<_> = parts.map(start).collect();
        let mut all = vec![first.map(read).unwrap_or_default()];
        all.extend(others.into_iter().map(|other| match other {
            // Propagate the panic of the thread.
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The thread could not be started: read its part of the entries on the current thread.
            Err(part) => read(part),
        }));
        all.into_iter().flatten()
    })
}

/// The smallest number of clients for which a thread is started. Reading fewer clients takes less
/// time than starting a thread.
const WORTH_A_THREAD: usize = 1000;

/// Reads the client from one entry of a registry. `entry` begins on line `line` of `file`.
///
/// # Errors
///
/// Every fault in `entry`.
pub fn check_entry(file: &Path, line: usize, entry: &str) -> Result<Client, Vec<Fault>> {
    let begin = Position { line, column: 1 };
    let raw = serde_json::from_str(entry).map_err(|error| {
        let place = Position::of_json(entry, &error).within(begin);
        vec![Fault::new(file, json_problem(&error)).at(place)]
    })?;
    let mut reader = Reader::new(file, entry, line, OnKeyFault::Refuse);
    reader.client(None, raw).ok_or(reader.faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(Path::new("clients.json"), text).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_registry_that_several_threads_read_is_one() {
        let count = 4 * WORTH_A_THREAD;
        let mut entries: Vec<_> = (0..count)
            .map(|number| format!(r#"{{"client_id": "c{number}", "scopes": ["read"]}}"#))
            .collect();
        let text = |entries: &[String]| format!("{{\"clients\": [\n{}]}}", entries.join(",\n"));
        let registry = parse(Path::new("clients.json"), &text(&entries)).unwrap();
        assert_eq!(registry.len(), count);
        assert!((0..count).all(|number| registry.get(&format!("c{number}")).is_some()));

        // Faults have the right order, line and field, no matter which thread found them.
        entries[1] = r#"{"client_id": ""}"#.to_owned();
        entries[count / 2] = r#"{"client_id": "c0"}"#.to_owned();
        entries[count - 1] = r#"{"client_id": "last", "scopes": [""]}"#.to_owned();
        let found = faults(&text(&entries));
        let expected = [(1, "client_id"), (count / 2, "client_id"), (count - 1, "scopes")];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, (index, field)) in found.iter().zip(expected) {
            let place = format!("clients.json:{}:", index + 2);
            let field = format!(": clients[{index}].{field}: ");
            assert!(found.starts_with(&place) && found.contains(&field), "{found}: {place}{field}");
        }
    }
}
