//! What is registered, without secrets and hashes.

use std::time::Duration;

use serde_json::{Map, Value};

use super::FileArg;
use crate::cli::http_client::{Request, Target, send};
use crate::cli::{CliError, print};
use crate::config::ListenAddr;
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

pub(super) fn show(file: &FileArg, id: &str, admin: Option<&ListenAddr>) -> Result<(), CliError> {
    let text = text_of(file)?;
    let mut entry =
        entry_of(&text, id).ok_or_else(|| CliError::from(edit::no_such_client(&file.clients)))?;
    let live = admin.map(|admin| live_figures(admin, id)).transpose()?;
    if let Some(Value::Array(secrets)) = entry.get_mut("secrets") {
        for secret in secrets.iter_mut().filter_map(Value::as_object_mut) {
            // The others keep their places.
            secret.shift_remove("hash");
            let Some(live) = &live else { continue };
            let known = live["secrets"].as_array().and_then(|secrets| {
                secrets.iter().find(|known| Some(&known["label"]) == secret.get("label"))
            });
            // Null, where the server has not read this secret yet.
            for figure in ["uses", "last_used"] {
                let value = known.map_or(Value::Null, |known| known[figure].clone());
                secret.insert(figure.to_owned(), value);
            }
        }
    }
    print(format_args!("{:#}", Value::Object(entry)))
}

/// What the running server knows of its secrets' use.
fn live_figures(admin: &ListenAddr, id: &str) -> Result<Value, CliError> {
    let target = Target::of_listener(admin);
    let path = format!("/clients/{}", urlencoded::encode(id));
    let answer = send(&target, Request::get(&path), Duration::from_secs(10))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|_| {
            CliError(format!("{admin}: answered no JSON; is this the admin listener?"))
        }),
        status => Err(CliError(format!(
            "{admin}: answered {status}; either this is not the admin listener, or its server has \
             not read this client yet"
        ))),
    }
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
