//! `grantd health`: checks whether a running server is alive, for container health checks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::http_client::{Target, get, send};
use crate::cli::output::print;
use crate::cli::settings::ServeArgs;
use crate::config::ListenAddr;

#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Address of the server's admin listener [env: GRANTD_ADMIN_LISTEN] [default:
    /// 127.0.0.1:8081, as for `serve`].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddr>,
    /// Configuration file (TOML), which may set the address of the admin listener.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
    /// Check that the server is ready, and not only that it is alive. A ready server has a signing
    /// key and is neither starting nor stopping.
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(args: HealthArgs) -> Result<(), CliError> {
    let HealthArgs { admin, config, ready } = args;
    let admin = match admin {
        Some(admin) => admin,
        None => ServeArgs { config, ..ServeArgs::default() }.resolve()?.startup.admin_listen,
    };
    let path = if ready { "/readyz" } else { "/livez" };
    let answer = send(&Target::of_listener(&to_connect(&admin)), get(path, None), TIMEOUT)?;
    let text = String::from_utf8_lossy(answer.body());
    let text = text.lines().next().unwrap_or_default();
    match answer.status().as_u16() {
        200 => print(text),
        503 => Err(CliError(format!("{admin}: {text}"))),
        status => Err(CliError(format!(
            "{admin}: {path}: answered {status}: is this the admin listener of grantd?"
        ))),
    }
}

/// Returns the address to connect to. A listener on `0.0.0.0` or `[::]` listens on all addresses. A
/// client cannot connect to these two addresses, so they are replaced by the loopback address.
fn to_connect(address: &ListenAddr) -> ListenAddr {
    if let ListenAddr::Tcp(text) = address
        && let Ok(socket) = text.parse::<SocketAddr>()
        && socket.ip().is_unspecified()
    {
        let host = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return ListenAddr::Tcp(format!("{host}:{}", socket.port()));
    }
    address.clone()
}

/// The longest time to wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
