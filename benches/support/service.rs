//! A server as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::config::Config;

use super::client::Client;
use super::cores;

/// How often the bench checks, at most, whether a server has started. There is a check every 20 ms,
/// so a server has one minute to start.
const STARTING: u32 = 3000;

/// A process that listens. It is terminated on drop.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) process: Child,
}

impl Service {
    /// Runs `command` and waits until it listens on `address`.
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Self {
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut service = Self { address, process };
        for _ in 0..STARTING {
            if Client::connect(address).is_ok() {
                return service;
            }
            let ended = service.process.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} did not start");
            sleep(Duration::from_millis(20));
        }
        panic!("{command:?} runs but does not listen: is the core busy with real-time work?");
    }

    /// Starts grantd and discards its log. If the configuration has one worker, grantd runs on the
    /// contestant's core, otherwise on both cores.
    pub(crate) fn grantd(config: &Config, directory: &Path, signer: &str) -> Self {
        let address = cores::free_address();
        let core = if config.startup.workers == 1 { cores::MEASURED } else { cores::BOTH };
        let mut command = cores::on(core, env!("CARGO_BIN_EXE_grantd"));
        let workers = config.startup.workers.to_string();
        command.args(["serve", "--workers", &workers, "--signer", signer]);
        command.args(["--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0"]);
        command.args(["--log-format", "json", "--log-level", "info"]).stderr(Stdio::null());
        command.arg("--clients").arg(&config.live.clients).arg("--keys").arg(&config.live.keys);
        command.arg("--state").arg(&config.startup.state).current_dir(directory);
        Self::start(command, address)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGTERM is sent before SIGKILL, because the worker processes of a server that is killed
        // with SIGKILL continue to run.
        let ask = format!("kill -TERM {}", self.process.id());
        let _ = Command::new("sh").args(["-c", &ask]).status();
        for _ in 0..250 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
