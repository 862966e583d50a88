//! Changes the entry of a client, except its secrets.

use std::path::Path;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};

use crate::cli::client::fields::{self, FieldArgs};
use crate::cli::client::file::ClientArg;
use crate::cli::error::CliError;
use crate::fault::Fault;
use crate::registry::client_file::edit::{self, ClientText};

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    client: ClientArg,
    #[command(flatten)]
    fields: FieldArgs,
    /// Registry name of a field to remove from the client's entry, so that the field's default
    /// applies; may be repeated.
    #[arg(long, value_name = "FIELD", value_parser = PossibleValuesParser::new(fields::removable()))]
    unset: Vec<String>,
}

pub(super) fn update(args: &UpdateArgs) -> Result<(), CliError> {
    let UpdateArgs { client, fields, unset } = args;
    let mut unset: Vec<_> = unset.iter().map(String::as_str).collect();
    // `--scope` sets `scopes` and `default_scopes`, so `--unset scopes` removes both fields.
    if unset.contains(&"scopes") {
        unset.push("default_scopes");
    }
    // Report faults of the flags before locking the file.
    let given = fields.given(Map::new())?;
    if given.is_empty() && unset.is_empty() {
        return Err(CliError(
            "nothing is to be changed: give a field, or --unset FIELD".to_owned(),
        ));
    }
    // No field may be both set and unset, except claims: `--unset claims --claim …` replaces all
    // claims.
    let is_both = |name: &&&str| **name != "claims" && given.contains_key(**name);
    if let Some(both) = unset.iter().find(is_both) {
        return Err(CliError(format!("--unset {both}: is set by this command too")));
    }
    let change = |text: &ClientText<'_>| {
        text.update(|entry| {
            let changed = changed(text.file, entry, fields, &unset)?;
            fields::check(text.file, &changed, &given)?;
            Ok(changed)
        })
    };
    client.edit(change, None)?;
    if fields.are_for_no_token() { Ok(()) } else { client.warn() }
}

fn changed(
    path: &Path,
    entry: &str,
    fields: &FieldArgs,
    unset: &[&str],
) -> Result<String, Vec<Fault>> {
    let internal = |error: serde_json::Error| vec![Fault::new(path, error.to_string())];
    let mut before: Map<String, Value> = serde_json::from_str(entry).map_err(internal)?;
    let claims = match before.remove("claims") {
        Some(Value::Object(claims)) if !unset.contains(&"claims") => claims,
        _ => Map::new(),
    };
    let given = fields.given(claims).map_err(|error| vec![Fault::new(path, error.0)])?;
    edit::with_fields(entry, &given, unset).map_err(internal)
}
