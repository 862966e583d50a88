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

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::warn;

use crate::fault::text::{self, json_problem};
use crate::fault::{Fault, Position};
use crate::fs::file_watch::{MOST_FILES, Stamp};
use crate::oauth::client::Client;
use crate::registry::client_file::document::{
    Document, Object, document_fault, id_of, offset_in, require_closed,
};
use crate::registry::client_file::entry::{Field, KeyFile, OnKeyFault, Reader};
use crate::registry::clients::{Draft, Registry, Update};
use crate::registry::registered::Registered;

/// A registry that was read from a file.
#[derive(Debug)]
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
pub fn load(file: &Path) -> Result<Registry, Vec<Fault>> {
    Ok(load_first(file)?.registry)
}

/// Like [`load`], with the key files of the clients.
///
/// # Errors
///
/// Every fault in the file and in the key files that it names.
pub fn load_first(file: &Path) -> Result<Loaded, Vec<Fault>> {
    let text = read(file)?;
    parse_all(file, &text, OnKeyFault::Refuse)
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
    let text = read(file)?;
    parse_all(file, &text, OnKeyFault::Keep(in_force, paths))
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

/// Returns the text of a registry with `entry` added after its last client. The text of the old
/// entries is not changed. `text` is `None` if the file does not exist yet.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text.
pub fn append(file: &Path, text: Option<&str>, entry: &Value) -> Result<String, Vec<Fault>> {
    let entry = serde_json::to_string_pretty(entry)
        .map_err(|error| vec![Fault::new(file, error.to_string())])?
        .replace('\n', "\n    ");
    append_entries(file, text, &[&entry])
}

/// Returns the text of a registry with `entries` added after its last client. The text of the new
/// entries and of the old entries is not changed. `text` is `None` if the file does not exist yet.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text.
pub fn append_entries(
    file: &Path,
    text: Option<&str>,
    entries: &[impl AsRef<str>],
) -> Result<String, Vec<Fault>> {
    #[derive(Deserialize)]
    struct Outline<'a> {
        #[serde(borrow)]
        clients: &'a RawValue,
    }

    let text = text.unwrap_or("{\n  \"clients\": []\n}\n");
    parse_without_key_files(file, text)?;
    let outline: Outline<'_> =
        serde_json::from_str(text).map_err(|error| vec![document_fault(file, text, &error)])?;
    let list = outline.clients.get();
    let list_end = offset_in(text, list) + list.len() - 1;
    let (before, after) = text.split_at(list_end);
    let before = before.trim_end();
    let added: usize = entries.iter().map(|entry| entry.as_ref().len() + ",\n    ".len()).sum();
    let mut changed = String::with_capacity(text.len() + added + "\n  ".len());
    changed.push_str(before);
    let mut comma = if before.ends_with('[') { "" } else { "," };
    for entry in entries {
        changed.extend([comma, "\n    ", entry.as_ref()]);
        comma = ",";
    }
    changed.extend(["\n  ", after]);
    parse_without_key_files(file, &changed)?;
    Ok(changed)
}

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
    use serde_json::json;

    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(Path::new("clients.json"), text).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_has_its_line_and_field_and_no_value() {
        let text = r#"{"clients": [
  {"client_id": "a", "scopes": ["x y"],
   "token_lifetime": "hunter2"},
  {"client_id": "b",
   "secrets": [{"label": "1",
                "hash": "hunter2"}],
   "default_scopes": ["s"], "auth_methods": ["hunter2"], "audience": [""],
   "claims": {"sub": "hunter2"}},
  {"client_id": "c", "enabled": 1, "hunter": 2},
  {"client_id": "d"}, {"client_id": "d"}, {"client_id": ""},
  {"client_id": "e", "token_reuse": 3601, "server_timing": "hunter2"},
  {"client_id": "f", "introspects": [""], "not_before": "hunter2"},
  {"client_id": "a"}, {"client_id": "g", "scopes": [], "scopes": 3, "client_idx": "hunter2"},
  {"client_id": "g"}, {"scopes": 3}
]}"#;
        let found = faults(text);
        let expected = [
            "clients.json:2:32: clients[0].scopes: must hold scope tokens",
            "clients.json:3:22: clients[0].token_lifetime: must be a number of seconds",
            "clients.json:6:25: clients[1].secrets: holds a hash that is not",
            "clients.json:7:45: clients[1].auth_methods: names what is not a known",
            "clients.json:7:22: clients[1].default_scopes: names a scope that is not in",
            "clients.json:7:70: clients[1].audience: must not hold an empty",
            "clients.json:8:14: clients[1].claims: must not set a claim",
            "clients.json:9:43: clients[2]: unknown field `hunter`",
            "clients.json:9:33: clients[2].enabled: must be true or false",
            "clients.json:10:23: clients[4].client_id: is registered twice",
            "clients.json:10:57: clients[5].client_id: must be one or more printable",
            "clients.json:11:37: clients[6].token_reuse: must be a number of seconds",
            "clients.json:11:60: clients[6].server_timing: must be true or false",
            "clients.json:12:37: clients[7].introspects: must not hold an empty",
            "clients.json:12:57: clients[7].not_before: must be a time in Unix seconds",
            "clients.json:13:3: clients[8].client_id: is registered twice",
            "clients.json:13:63: clients[9]: duplicate field `scopes`",
            "clients.json:13:80: clients[9]: unknown field `client_idx`",
            "clients.json:14:3: clients[10].client_id: is registered twice",
            "clients.json:14:23: clients[11]: missing field `client_id`",
            "clients.json:14:34: clients[11].scopes: must be a list of strings",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} is not {expected}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn a_broken_document_is_one_fault() {
        for (text, expected) in [
            ("", "is not valid JSON here: EOF"),
            (
                "{\"clients\": [\n{\"client_id\": \"a\",}]}",
                "clients.json:2:19: is not valid JSON here: key must be a string",
            ),
            ("[\"hunter2\"]", "must be {\"clients\": [{…}, …]}"),
            ("{\"clients\": [], \"x\": 1}", "unknown field `x`"),
            ("{}", "missing field `clients`"),
            ("{\"clients\": [\"hunter2\"]}", "clients[0]: must be"),
        ] {
            let found = faults(text);
            assert_eq!(found.len(), 1, "{found:?}");
            let fault = &found[0];
            assert!(fault.starts_with("clients.json:"), "{fault}");
            assert!(fault.contains(expected), "{fault} is not {expected}");
        }
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

    #[test]
    fn append_changes_nothing_else() {
        let client = |id: &str| json!({ "client_id": id, "scopes": ["s"] });
        let file = Path::new("clients.json");
        let one = append(file, None, &client("one")).unwrap();
        assert!(one.starts_with("{\n  \"clients\": [\n    {\n      \"client_id\": \"one\","));
        assert!(one.ends_with("\n    }\n  ]\n}\n"));

        let odd = "{ \"clients\":[ {\"client_id\":\"a\"} ]  }";
        let two = append(file, Some(odd), &client("b")).unwrap();
        assert!(two.starts_with("{ \"clients\":[ {\"client_id\":\"a\"},\n    {\n"));
        assert!(two.ends_with("\n  ]  }"));
        assert_eq!(parse(file, &two).unwrap().len(), 2);
        assert!(append(file, Some(&two), &client("b")).is_err());
    }
}
