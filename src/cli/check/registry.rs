//! Warnings about registry entries that are valid, but probably contain mistakes.

use std::path::Path;

use crate::cli::error::CliError;
use crate::cli::no_token;
use crate::cli::times::IN_MILLISECONDS;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::oauth::client::Client;
use crate::registry::client_file::{self, edit};
use crate::registry::clients::Registry;
use crate::time::UnixTime;

/// Returns the warnings about `clients`, which are those of `text`, the content of `file`. Each
/// warning contains the position of the client's entry.
pub(super) fn warnings(
    file: &Path,
    text: &str,
    clients: &Registry,
) -> Result<Vec<String>, CliError> {
    let now = Clock::system().now();
    // Iterate over the entries of the file, because `clients` is unordered.
    let entries = edit::entries(text)?;
    let mut warnings = Vec::new();
    let mut left_out = 0;
    for (index, entry) in entries.enumerate() {
        let Some(client) = edit::id_of(entry).and_then(|id| clients.get(&id)) else { continue };
        for (field, problem) in problems(client, now) {
            if warnings.len() == MAX_LINES {
                left_out += 1;
                continue;
            }
            let place = client_file::place_in(text, entry);
            let field = format!("clients[{index}]{field}");
            let problem = format!("client {}: {problem}", client.id);
            warnings.push(Fault::new(file, problem).at(place).in_field(field).to_string());
        }
    }
    if left_out > 0 {
        warnings.push(format!("{}: and {left_out} more of these", file.display()));
    }
    Ok(warnings)
}

/// Returns a note for each key in a client's `jwks` that the server skips.
pub(super) fn notes(file: &Path, text: &str) -> Result<Vec<String>, CliError> {
    let entries = edit::entries(text)?;
    let mut notes = Vec::new();
    for entry in entries {
        for (index, problem) in client_file::skipped_keys(file, entry) {
            let id = edit::id_of(entry).unwrap_or_default();
            notes.push(format!("client {id}: jwks.keys[{index}] is skipped: it {problem}"));
        }
    }
    if notes.len() > MAX_LINES {
        let left_out = notes.len() - MAX_LINES;
        notes.truncate(MAX_LINES);
        notes.push(format!("and {left_out} more of these"));
    }
    Ok(notes)
}

/// The maximum number of warnings that `check` prints about a registry, and also the maximum number
/// of notes. Longer lists would hide the rest of the output.
const MAX_LINES: usize = 20;

fn problems(client: &Client, now: UnixTime) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Some(reason) = no_token::reason(client, now) {
        problems.push(("", format!("can get no token: {reason}")));
    }
    for secret in &client.secrets {
        let label = &secret.label;
        let times = [("not_before", secret.not_before), ("expires_at", secret.expires_at)];
        for (name, time) in times {
            let problem = match time {
                Some(UnixTime(0)) => "0, which is in 1970; remove it if no time is meant",
                Some(time) if time >= IN_MILLISECONDS => {
                    "too late for Unix seconds: are these milliseconds?"
                }
                _ => continue,
            };
            problems.push((".secrets", format!("{name} of the secret {label:?} is {problem}")));
        }
        if let (Some(begin), Some(end)) = (secret.not_before, secret.expires_at)
            && end <= begin
            && begin < IN_MILLISECONDS
        {
            let problem = format!("the secret {label:?} is never valid: it ends before it begins");
            problems.push((".secrets", problem));
        }
    }
    if client.not_before > now {
        let problem = if client.not_before >= IN_MILLISECONDS {
            "is too late for Unix seconds: are these milliseconds? Until then all its tokens are \
             revoked"
        } else {
            "is in the future: until then all its tokens are revoked"
        };
        problems.push((".not_before", problem.to_owned()));
    }
    problems
}
