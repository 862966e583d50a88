//! Requests to the admin listener of a running server. The requests get live figures, or check
//! whether a change is in force.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::Response;
use serde_json::Value;
use zeroize::Zeroizing;

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
        let token_file = self.admin_token_file.as_deref();
        let answer = request(admin, token_file, path, TIMEOUT)?;
        read(admin, &answer, token_file, or_its_server).map(Some)
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
    /// `written, not in force` if the server says so or does not answer for 10 seconds, and
    /// `written, not known whether in force` if its answer does not tell. The change stays written,
    /// and the server may still apply it later.
    pub(super) fn wait_until(
        &self,
        change: &str,
        path: &str,
        is_in_force: impl Fn(&Value) -> bool,
    ) -> Result<(), CliError> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let begin = Clock::system().instant();
        let last_look = TIMEOUT - READINESS_TIMEOUT;
        let mut has_told = false;
        loop {
            let limit = TIMEOUT.saturating_sub(begin.elapsed()).max(READINESS_TIMEOUT);
            let looked = self.look(admin, path, limit);
            if looked.as_ref().is_ok_and(&is_in_force) {
                return Ok(());
            }
            has_told |= looked.is_ok();
            let is_last = begin.elapsed() + POLL_INTERVAL >= last_look;
            let (known, problem) = match looked {
                Err(NotTold::Final(CliError(problem))) => (NOT_KNOWN, problem),
                _ if !is_last => {
                    sleep(POLL_INTERVAL);
                    continue;
                }
                Err(NotTold::Silent(CliError(problem))) if !has_told => (NOT_IN_FORCE, problem),
                Err(NotTold::Odd(CliError(problem))) if !has_told => (NOT_KNOWN, problem),
                _ => (
                    NOT_IN_FORCE,
                    format!(
                        "{admin}: the server has not taken it up; see its log; /readyz says: {}",
                        self.readiness(admin)
                    ),
                ),
            };
            return Err(CliError(format!("{known}: {change}: {problem}")));
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
    fn look(&self, admin: &ListenAddr, path: &str, limit: Duration) -> Result<Value, NotTold> {
        let token_file = self.admin_token_file.as_deref();
        let token = token_of(token_file).map_err(NotTold::Final)?;
        let answer = send(&Target::of_listener(admin), get(path, token), limit);
        let answer = answer.map_err(NotTold::Silent)?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        if answer.status() == 404 && body["error"] == "no such client" {
            return Ok(Value::Null);
        }
        let is_final = [401, 403, 421].contains(&answer.status().as_u16());
        let not_told = if is_final { NotTold::Final } else { NotTold::Odd };
        read(admin, &answer, token_file, OLDER_VERSION).map_err(not_told)
    }
}

/// Why a look at a server has not told whether a change is in force.
enum NotTold {
    /// The server has not answered.
    Silent(CliError),
    /// The answer is none of an admin listener. A later one may be.
    Odd(CliError),
    /// The server refuses to tell, or cannot be asked.
    Final(CliError),
}

/// The beginnings of an error about a change that is written.
const NOT_IN_FORCE: &str = "written, not in force";
const NOT_KNOWN: &str = "written, not known whether in force";

fn request(
    admin: &ListenAddr,
    token_file: Option<&Path>,
    path: &str,
    limit: Duration,
) -> Result<Response<Bytes>, CliError> {
    send(&Target::of_listener(admin), get(path, token_of(token_file)?), limit)
}

fn token_of(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, CliError> {
    let setting = "--admin-token-file (GRANTD_ADMIN_TOKEN_FILE)";
    let token = file.map(admin_token::read).transpose();
    Ok(token.map_err(|fault| fault.of_setting(setting))?)
}

/// Returns the JSON of an answer. `token_file` is the file of the token that was sent.
fn read(
    admin: &ListenAddr,
    answer: &Response<Bytes>,
    token_file: Option<&Path>,
    or_its_server: &str,
) -> Result<Value, CliError> {
    let problem = match (answer.status().as_u16(), token_file) {
        (200, _) => {
            return serde_json::from_slice(answer.body()).map_err(|_| {
                CliError(format!("{admin}: the answer is not JSON; is this the admin listener?"))
            });
        }
        (401, None) => "answered 401: it requires the admin token; pass the token's file with \
                        --admin-token-file"
            .to_owned(),
        (401, Some(file)) => format!(
            "answered 401: {} does not hold its admin token; pass the file that its setting \
             admin_token_file names, or a copy",
            file.display()
        ),
        (421, None) => "answered 421: use an IP address or localhost, or pass the file of its \
                        admin token with --admin-token-file"
            .to_owned(),
        (421, Some(file)) => format!(
            "answered 421: {} does not hold its admin token; use an IP address or localhost, or \
             pass the file that its setting admin_token_file names, or a copy",
            file.display()
        ),
        (status, _) => format!(
            "answered {status}; either this is not the admin listener, or the server \
             {or_its_server}"
        ),
    };
    Err(CliError(format!("{admin}: {problem}")))
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
