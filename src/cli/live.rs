//! What only a running server knows, asked of its admin listener.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::http_client::{Request, Target, send};
use crate::config::ListenAddr;
use crate::store::admin_token;

/// Which running server to ask.
#[derive(Args, Debug)]
pub(super) struct AdminArgs {
    /// Ask the server whose admin listener is here for live figures too.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddr>,
    /// The file with that server's admin token, which it wants from other machines.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// What is at this path of the server; `None` if none is to be asked. `or_its_server` says why
    /// nothing may be there, if the address is right.
    pub(super) fn ask(&self, path: &str, or_its_server: &str) -> Result<Option<Value>, CliError> {
        let Some(admin) = &self.admin else { return Ok(None) };
        let token = self.admin_token_file.as_deref().map(admin_token::read).transpose()?;
        ask(admin, Request::get(path).with_bearer(token), or_its_server).map(Some)
    }
}

fn ask(admin: &ListenAddr, request: Request<'_>, or_its_server: &str) -> Result<Value, CliError> {
    let answer = send(&Target::of_listener(admin), request, PATIENCE)?;
    match answer.status {
        401 => Err(CliError(format!(
            "{admin}: answered 401: it wants its admin token; name the token's file with \
             --admin-token-file"
        ))),
        421 => Err(CliError(format!(
            "{admin}: answered 421: ask by an IP address or localhost, or name the file of its \
             admin token with --admin-token-file"
        ))),
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
