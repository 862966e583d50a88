//! Requests to the admin listener of a running server. The requests get live figures, or check
//! whether a change is in force.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::Response;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::http_client::{Target, get, send};
use crate::clock::Clock;
use crate::config::ListenAddr;
use crate::snapshot::admin_token;

/// The flags that name a server to get live figures from.
#[derive(Args, Debug)]
pub(super) struct AdminArgs {
    /// Address of a running server's admin listener. With this flag, the output includes live
    /// figures, such as the times of last uses.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddr>,
    /// File with the server's admin token, needed if the server is on another machine.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// Requests `path` from the server and returns the JSON of the answer; `None` without
    /// `--admin`. `or_its_server` is a possible reason why the server lacks `path`, for example "is
    /// an older version". If the answer has an unexpected status, the error text ends with this
    /// reason.
    pub(super) fn ask(&self, path: &str, or_its_server: &str) -> Result<Option<Value>, CliError> {
        let Some(admin) = &self.admin else { return Ok(None) };
        let answer = request(admin, self.admin_token_file.as_deref(), path, TIMEOUT)?;
        read(admin, &answer, or_its_server).map(Some)
    }
}

/// The flags that name a server on which to wait for a change.
#[derive(Args, Debug)]
pub(super) struct WaitArgs {
    /// Address of a running server's admin listener: wait up to 10 seconds until the change is in
    /// force there.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddr>,
    /// File with the server's admin token, needed if the server is on another machine.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl WaitArgs {
    /// Polls `path` of the server until `is_in_force` returns true. `is_in_force` gets the JSON at
    /// `path`, or null if the client does not exist. Returns at once without `--admin`.
    ///
    /// # Errors
    ///
    /// `written, not in force` if the change is not in force within 10 seconds. The change stays
    /// written, and the server may still apply it later.
    pub(super) fn wait_until(
        &self,
        change: &str,
        path: &str,
        is_in_force: impl Fn(&Value) -> bool,
    ) -> Result<(), CliError> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let begin = Clock::system().instant();
        let last_look = TIMEOUT - READINESS_TIMEOUT;
        let mut has_answered = false;
        loop {
            let looked = self.look(admin, path, TIMEOUT.saturating_sub(begin.elapsed()));
            if looked.as_ref().is_ok_and(&is_in_force) {
                return Ok(());
            }
            has_answered |= looked.is_ok();
            if begin.elapsed() + POLL_INTERVAL >= last_look {
                let problem = match looked {
                    Err(error) if !has_answered => error.0,
                    _ => format!(
                        "{admin}: the server has not taken it up; see its log; /readyz says: {}",
                        self.readiness(admin)
                    ),
                };
                return Err(CliError(format!("written, not in force: {change}: {problem}")));
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Returns what the server's `/readyz` says, or why it cannot be asked.
    fn readiness(&self, admin: &ListenAddr) -> String {
        match request(admin, self.admin_token_file.as_deref(), "/readyz", READINESS_TIMEOUT) {
            Ok(answer) => String::from_utf8_lossy(answer.body()).trim_end().to_owned(),
            Err(error) => error.0,
        }
    }

    /// Returns the JSON at `path`; null if the client does not exist.
    fn look(&self, admin: &ListenAddr, path: &str, limit: Duration) -> Result<Value, CliError> {
        let answer = request(admin, self.admin_token_file.as_deref(), path, limit)?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        if answer.status() == 404 && body["error"] == "no such client" {
            return Ok(Value::Null);
        }
        read(admin, &answer, OLDER_VERSION)
    }
}

fn request(
    admin: &ListenAddr,
    token_file: Option<&Path>,
    path: &str,
    limit: Duration,
) -> Result<Response<Bytes>, CliError> {
    let token = token_file.map(admin_token::read).transpose()?;
    send(&Target::of_listener(admin), get(path, token), limit)
}

fn read(
    admin: &ListenAddr,
    answer: &Response<Bytes>,
    or_its_server: &str,
) -> Result<Value, CliError> {
    match answer.status().as_u16() {
        401 => Err(CliError(format!(
            "{admin}: answered 401: it requires the admin token; pass the token's file with \
             --admin-token-file"
        ))),
        421 => Err(CliError(format!(
            "{admin}: answered 421: use an IP address or localhost, or pass the file of its admin \
             token with --admin-token-file"
        ))),
        200 => serde_json::from_slice(answer.body()).map_err(|_| {
            CliError(format!("{admin}: the answer is not JSON; is this the admin listener?"))
        }),
        status => Err(CliError(format!(
            "{admin}: answered {status}; either this is not the admin listener, or the server \
             {or_its_server}"
        ))),
    }
}

/// Copies the members `figures` into `entry` from the element of the list `live` that describes the
/// same object. The objects are the same if their members `name` are equal. If the list has no such
/// element, the server has not read `entry` yet, and the members are null.
pub(super) fn add_figures(entry: &mut Value, live: &Value, name: &str, figures: &[&str]) {
    let mut known = live.as_array().into_iter().flatten();
    let known = known.find(|known| known[name] == entry[name]);
    for figure in figures {
        entry[*figure] = known.map_or(Value::Null, |known| known[figure].clone());
    }
}

/// A value for the parameter `or_its_server`: a reason why a server may lack a path.
pub(super) const OLDER_VERSION: &str = "is an older version";

const TIMEOUT: Duration = Duration::from_secs(10);
const READINESS_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
