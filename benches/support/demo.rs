//! The files of a server: a registry with the demo clients, and no key yet.

use grantd::config::{Config, ListenAddr, SignerChoice};
use tempfile::TempDir;

/// Returns a directory that is removed on drop, and a configuration for one worker. All files that
/// the configuration names are in this directory.
pub(crate) fn demo() -> (TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let clients = directory.path().join("clients.json");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/clients.json"), &clients).unwrap();
    let mut config = Config::default();
    config.startup.listen = vec![ListenAddr::Tcp("127.0.0.1:0".to_owned())];
    config.startup.state = directory.path().join("state");
    config.startup.workers = 1;
    config.startup.signer = SignerChoice::Ring;
    config.live.clients = clients;
    config.live.keys = directory.path().join("keys");
    (directory, config)
}
