//! What only a running server knows, asked of its admin listener.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::http_client::{Answer, Request, Target, send};
use crate::clock::Clock;
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

/// Which running server has to have a change before a command ends.
#[derive(Args, Debug)]
pub(super) struct WaitArgs {
    /// Wait until the server whose admin listener is here has the change, for 10 seconds at most.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddr>,
    /// The file with that server's admin token, which it wants from other machines.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl WaitArgs {
    /// Waits until what is at this path of the server is as `is_in_force` wants it; `None`: the
    /// server knows of no such thing. Returns at once if no server is named.
    ///
    /// # Errors
    ///
    /// That `change` is written and not in force. A server that reads its files later has it.
    pub(super) fn wait_until(
        &self,
        change: &str,
        path: &str,
        is_in_force: impl Fn(Option<&Value>) -> bool,
    ) -> Result<(), CliError> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let begin = Clock::instant();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let problem = match self.look(admin, path, left) {
                Ok(found) if is_in_force(found.as_ref()) => return Ok(()),
                Ok(_) => {
                    format!("{admin}: its server has not taken it up; see its log and /readyz")
                }
                Err(error) => error.0,
            };
            if begin.elapsed() + BETWEEN_LOOKS >= PATIENCE {
                return Err(CliError(format!("written, not in force: {change}: {problem}")));
            }
            sleep(BETWEEN_LOOKS);
        }
    }

    /// The present state.
    fn look(
        &self,
        admin: &ListenAddr,
        path: &str,
        patience: Duration,
    ) -> Result<Option<Value>, CliError> {
        let token = self.admin_token_file.as_deref().map(admin_token::read).transpose()?;
        let request = Request::get(path).with_bearer(token);
        let answer = send(&Target::of_listener(admin), request, patience)?;
        let is_unknown = |body: &[u8]| {
            let body: Option<Value> = serde_json::from_slice(body).ok();
            body.is_some_and(|body| body["error"] == "no such client")
        };
        if answer.status == 404 && is_unknown(&answer.body) {
            return Ok(None);
        }
        read(admin, &answer, "is an older one").map(Some)
    }
}

fn ask(admin: &ListenAddr, request: Request<'_>, or_its_server: &str) -> Result<Value, CliError> {
    read(admin, &send(&Target::of_listener(admin), request, PATIENCE)?, or_its_server)
}

fn read(admin: &ListenAddr, answer: &Answer, or_its_server: &str) -> Result<Value, CliError> {
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
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
