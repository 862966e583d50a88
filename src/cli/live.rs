//! What only a running server knows, asked of its admin listener.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::http_client::{Request, Target, send};
use crate::config::ListenAddr;

/// What is at this path. `or_its_server` says why nothing may be there, if the address is right.
pub(super) fn ask(admin: &ListenAddr, path: &str, or_its_server: &str) -> Result<Value, CliError> {
    let answer = send(&Target::of_listener(admin), Request::get(path), PATIENCE)?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|_| {
            CliError(format!("{admin}: answered no JSON; is this the admin listener?"))
        }),
        status => Err(CliError(format!(
            "{admin}: answered {status}; either this is not the admin listener, or its server \
             {or_its_server}"
        ))),
    }
}

/// Adds `figures` to what was read from a file, from the entry of the list `live` that has the same
/// `name`: null, where the server has not read it yet.
pub(super) fn add_figures(
    entry: &mut Map<String, Value>,
    live: &Value,
    name: &str,
    figures: &[&str],
) {
    let mut known = live.as_array().into_iter().flatten();
    let known = known.find(|known| Some(&known[name]) == entry.get(name));
    for figure in figures {
        let value = known.map_or(Value::Null, |known| known[figure].clone());
        entry.insert((*figure).to_owned(), value);
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
