//! What is registered, without secrets and hashes.

use serde_json::{Map, Value};

use super::FileArg;
use crate::cli::live::{AdminArgs, add_figures};
use crate::cli::{CliError, print};
use crate::form::urlencoded;
use crate::store::client_file::{self, edit};

pub(super) fn list(file: &FileArg) -> Result<(), CliError> {
    let text = text_of(file)?;
    for entry in entries(file, &text)? {
        let shown = ["client_id", "enabled", "scopes", "token_lifetime"]
            .into_iter()
            .filter_map(|field| Some((field.to_owned(), entry.get(field)?.clone())));
        print(Value::Object(shown.collect()))?;
    }
    Ok(())
}

pub(super) fn show(file: &FileArg, id: &str, server: &AdminArgs) -> Result<(), CliError> {
    let text = text_of(file)?;
    let mut entry =
        entry_of(&text, id).ok_or_else(|| CliError::from(edit::no_such_client(&file.clients)))?;
    let path = format!("/clients/{}", urlencoded::encode(id));
    let live = server.ask(&path, "has not read this client yet")?;
    if let Some(Value::Array(secrets)) = entry.get_mut("secrets") {
        for secret in secrets.iter_mut().filter_map(Value::as_object_mut) {
            // The others keep their places.
            secret.shift_remove("hash");
            if let Some(live) = &live {
                add_figures(secret, &live["secrets"], "label", &["uses", "last_used"]);
            }
        }
    }
    print(format_args!("{:#}", Value::Object(entry)))
}

/// The text of a file without faults.
fn text_of(file: &FileArg) -> Result<String, CliError> {
    let text = client_file::read(&file.clients)?;
    client_file::parse(&file.clients, &text)?;
    Ok(text)
}

fn entries(
    file: &FileArg,
    text: &str,
) -> Result<impl Iterator<Item = Map<String, Value>>, CliError> {
    let entries = edit::entries(text)
        .map_err(|error| CliError(format!("{}: {error}", file.clients.display())))?;
    // What was read without a fault is an object.
    Ok(entries.filter_map(|entry| serde_json::from_str(entry).ok()))
}

/// The entry of this client, with its fields in their order.
pub(super) fn entry_of(text: &str, id: &str) -> Option<Map<String, Value>> {
    let mut entries = edit::entries(text).ok()?;
    let entry = entries.find(|entry| edit::id_of(entry).is_some_and(|found| found == id))?;
    serde_json::from_str(entry).ok()
}
