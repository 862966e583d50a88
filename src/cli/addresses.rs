//! Faults and warnings about the addresses of a server.

use std::io;
use std::net::SocketAddr;

use crate::cli::error::CliError;
use crate::config::{Config, ListenAddr};
use crate::fs::whole_file::directory_of;
use crate::server::Listener;

/// The names of the setting `listen`: flag, environment variable, configuration file.
pub(super) const LISTEN: &str = "--listen (GRANTD_LISTEN, listen in the configuration file)";
/// The names of the setting `admin_listen`: flag, environment variable, configuration file.
pub(super) const ADMIN_LISTEN: &str =
    "--admin-listen (GRANTD_ADMIN_LISTEN, admin_listen in the configuration file)";
/// Advice about an issuer whose host is `0.0.0.0` or `[::]`.
pub(super) const ISSUER_ADVICE: &str = "pass --issuer (GRANTD_ISSUER, issuer in the configuration \
                                        file) with the URL that clients and verifiers use";

/// Returns the error for a failed bind. Its text says why the server cannot listen on `address`,
/// and names `setting`, with which the address can be changed.
pub(super) fn problem(address: &ListenAddr, setting: &str, error: &io::Error) -> CliError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it",
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        io::ErrorKind::PermissionDenied => match address {
            ListenAddr::Tcp(_) => {
                "a port below 1024 needs CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities)"
            }
            ListenAddr::Unix(_) => "this user may not write to its directory",
        },
        io::ErrorKind::NotFound => "its directory does not exist: create it",
        _ => {
            let problem =
                format!("{address}: cannot be listened on: {error}; it is set by {setting}");
            return CliError(problem);
        }
    };
    CliError(format!(
        "{address}: cannot be listened on: {error}: {advice}, or choose another with {setting}"
    ))
}

/// Finds the faults of the addresses of `config` without listening on them.
pub(super) fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut known: Vec<(&ListenAddr, Vec<SocketAddr>)> = Vec::new();
    let public = config.startup.listen.iter().map(|address| (address, LISTEN));
    for (address, setting) in public.chain([(&config.startup.admin_listen, ADMIN_LISTEN)]) {
        match Listener::check(address) {
            Ok(sockets) => {
                let is_same = |(other, theirs): &&(&ListenAddr, Vec<SocketAddr>)| {
                    *other == address && sockets.iter().all(|socket| socket.port() != 0)
                        || sockets.iter().any(|one| theirs.iter().any(|two| overlap(*one, *two)))
                };
                if let Some((other, _)) = known.iter().find(is_same) {
                    problems.push(format!(
                        "{address}: {other} takes this address too: choose another with {setting}"
                    ));
                }
                known.push((address, sockets));
            }
            Err(error) => problems.push(problem(address, setting, &error).0),
        }
    }
    problems
}

/// Returns a warning for each Unix socket of `config` whose directory does not exist.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let addresses = config.startup.listen.iter().chain([&config.startup.admin_listen]);
    let paths = addresses.filter_map(|address| match address {
        ListenAddr::Unix(path) => Some((address, directory_of(path))),
        ListenAddr::Tcp(_) => None,
    });
    paths
        .filter(|(_, directory)| !directory.exists())
        .map(|(address, directory)| {
            let directory = directory.display();
            format!("{address}: {directory} does not exist: `serve` needs it (systemd: RuntimeDirectory)")
        })
        .collect()
}

/// Whether a listener on `one` prevents a listener on `two`: the ports are equal and not 0, and the
/// IP addresses are equal or one of them includes the other, as `0.0.0.0` includes `127.0.0.1`.
fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    let is_every = |socket: SocketAddr| socket.ip().is_unspecified();
    let same_family = one.is_ipv4() == two.is_ipv4();
    let covers = |wide: SocketAddr| is_every(wide) && (same_family || wide.is_ipv6());
    one.port() == two.port()
        && one.port() != 0
        && (one.ip() == two.ip() || covers(one) || covers(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_listener() {
        for (one, two, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::1]:1", "127.0.0.1:1", false),
        ] {
            let [one, two] = [one, two].map(|text| text.parse().unwrap());
            assert_eq!(overlap(one, two), expected, "{one} {two}");
            assert_eq!(overlap(two, one), expected, "{two} {one}");
        }
    }
}
