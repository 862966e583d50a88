//! Adds a secret to a client, and ends the validity of a secret.

use std::collections::HashSet;
use std::path::Path;

use clap::Args;
use serde_json::Value;

use crate::cli::client::file::{ClientArg, entry_of, told};
use crate::cli::error::{CliError, complain};
use crate::cli::live::WaitArgs;
use crate::cli::secret::{self, HashKind};
use crate::cli::times::{parse_duration, parse_time};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::registry::client_file::edit::{ClientText, NewSecret};
use crate::time::UnixTime;

#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    client: ClientArg,
    /// Label of the new secret [default: today's date].
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// End the validity of the old secrets after this duration: seconds, or as in 15m, 24h, 90d.
    #[arg(long, value_name = "DURATION", conflicts_with = "keep_old", value_parser = parse_duration)]
    expire_old: Option<u64>,
    /// Keep the old secrets valid (the default).
    #[arg(long)]
    keep_old: bool,
    /// Read the new secret from standard input instead of generating one.
    #[arg(long)]
    secret_stdin: bool,
    /// Hash algorithm for the stored secret [default: sha256, or argon2id for a secret of fewer
    /// than 32 characters].
    #[arg(long, value_name = "HASH")]
    hash: Option<HashKind>,
    #[command(flatten)]
    server: WaitArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    client: ClientArg,
    /// Label of the secret whose validity ends.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// End the validity after this duration: seconds, or as in 15m, 24h, 90d.
    #[arg(long = "in", value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    seconds: u64,
    /// End the validity at this time: Unix seconds, or as in 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "seconds", value_parser = parse_time)]
    at: Option<UnixTime>,
    #[command(flatten)]
    server: WaitArgs,
}

pub(super) fn rotate_secret(args: &RotateArgs) -> Result<(), CliError> {
    let now = Clock::system().now();
    let secret = if args.secret_stdin {
        secret::read("New secret of the client: ")?
    } else {
        secret::make()?
    };
    let hash = secret::hash(&secret, args.hash)?;
    let old_until = args.expire_old.map(|seconds| now + seconds);
    let mut secret_label = String::new();
    let change = |text: &ClientText<'_>| {
        let taken = labels(text);
        let label = match &args.label {
            Some(label) if taken.contains(label) => {
                let problem = "the client has a secret of this label already, and two secrets of \
                               the same label could not be told apart: choose another";
                return Err(vec![Fault::new(Path::new("--label"), problem)]);
            }
            Some(label) if label.is_empty() => {
                let problem = "is empty; leave it out for today's date";
                return Err(vec![Fault::new(Path::new("--label"), problem)]);
            }
            Some(label) if label.trim_matches(' ') != label => {
                let problem = "begins or ends with a space: it would look the same without";
                return Err(vec![Fault::new(Path::new("--label"), problem)]);
            }
            Some(label) => label.clone(),
            None => free_label(&now.date(), &taken),
        };
        secret_label.clone_from(&label);
        text.add_secret(&NewSecret { label, hash }, old_until)
    };
    let shown = (!args.secret_stdin).then_some(&**secret);
    // Print the secret before waiting for the server: if the wait fails, no other command can show
    // the secret.
    args.client.edit(change, Some(&told(&args.client.id, shown)))?;
    args.client.warn()?;
    args.client.wait_until(&args.server, |client| secret_of(client, &secret_label).is_some())
}

/// Returns the secret with this label from a server's JSON description of the client.
fn secret_of<'a>(client: &'a Value, label: &str) -> Option<&'a Value> {
    client["secrets"].as_array()?.iter().find(|secret| secret["label"] == label)
}

pub(super) fn expire_secret(args: &ExpireArgs) -> Result<(), CliError> {
    let in_seconds = || Clock::system().now() + args.seconds;
    let until = args.at.unwrap_or_else(in_seconds);
    let ExpireArgs { client, label, server, .. } = args;
    let mut ends_before = None;
    let change = |text: &ClientText<'_>| {
        ends_before = end_of(text, label).filter(|end| *end < until);
        text.expire_secret(label, until)
    };
    client.edit(change, None)?;
    if let Some(end) = ends_before {
        complain(&format!(
            "warning: client {}: the secret {label} already ends at {}, which is earlier: nothing \
             is changed",
            client.id,
            end.seconds_and_date()
        ));
    }
    client.warn()?;
    client.wait_until(server, |client| {
        let ends = secret_of(client, label).and_then(|secret| secret["expires_at"].as_u64());
        ends.is_some_and(|ends| ends <= until.0)
    })
}

/// Returns when the secret with this label ends; `None` if it does not end, is not there, or the
/// entry has a fault.
fn end_of(text: &ClientText<'_>, label: &str) -> Option<UnixTime> {
    let entry = entry_of(text.text, text.client_id)?;
    secret_of(&entry, label)?["expires_at"].as_u64().map(UnixTime)
}

/// Returns the labels of the client's secrets, or no labels if the entry has a fault. The edit that
/// follows this call reports the fault.
fn labels(text: &ClientText<'_>) -> HashSet<String> {
    let entry = entry_of(text.text, text.client_id).unwrap_or_default();
    let secrets = entry["secrets"].as_array().into_iter().flatten();
    let labels = secrets.filter_map(|secret| secret["label"].as_str());
    labels.map(str::to_owned).collect()
}

/// Returns `date` or, if that label is taken, the first free label of `date-2`, `date-3` and so on.
fn free_label(date: &str, taken: &HashSet<String>) -> String {
    let numbered = (2..=taken.len() + 1).map(|number| format!("{date}-{number}"));
    let mut labels = std::iter::once(date.to_owned()).chain(numbered);
    labels.find(|label| !taken.contains(label)).unwrap_or_else(|| date.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_new() {
        let taken = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(free_label("d", &taken(&[])), "d");
        assert_eq!(free_label("d", &taken(&["d"])), "d-2");
        assert_eq!(free_label("d", &taken(&["d", "d-2", "x"])), "d-3");
        assert_eq!(free_label("d", &taken(&["d", "d-3"])), "d-2");
    }
}
