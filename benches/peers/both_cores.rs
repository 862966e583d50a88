//! Measures a server with two workers. The server and the load generator share both cores.

use std::fs;
use std::path::Path;

use grantd::config::Config;

use crate::Plan;
use crate::support::request::URLENCODED;
use crate::support::service::Service;
use crate::support::{cores, raw, wrk};

/// The number of connections. Even if half of the requests are in transit, the other half fills a
/// batch of eight on each core.
const CONNECTIONS: u32 = 64;

pub(crate) struct BothCores(Service);

/// The results of one round.
pub(crate) struct Sample {
    /// Tokens per second.
    pub(crate) rate: f64,
    /// Signatures per second of batch signing on both cores together, without a server.
    pub(crate) raw: f64,
    /// The processor time that the load generator used, as a share of the time of both cores.
    pub(crate) load_share: f64,
}

impl BothCores {
    /// Starts the server. Returns `None` if this processor cannot sign in batches.
    pub(crate) fn start(config: &Config, directory: &Path, can_batch: bool) -> Option<Self> {
        let mut config = config.clone();
        config.startup.workers = 2;
        can_batch.then(|| Self(Service::grantd(&config, directory, "auto")))
    }

    pub(crate) fn measure(&self, plan: &Plan, keys: &Path) -> Sample {
        let alone = || raw::on_both_cores("batch", plan.raw_seconds, keys);
        let before = alone();
        let seconds = plan.load_seconds;
        let begun = children_seconds();
        let report = wrk::report(wrk::command(
            cores::BOTH,
            self.0.address,
            URLENCODED.name,
            "/connect/token",
            CONNECTIONS,
            seconds,
        ));
        let load_seconds = children_seconds() - begun;
        let raw = f64::midpoint(before, alone());
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let load_share = load_seconds / 2.0 / seconds as f64;
        Sample { rate: wrk::rate(&report), raw, load_share }
    }
}

/// Returns the processor time of all ended child processes in seconds (`proc_pid_stat(5)`).
fn children_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The process name is in brackets and may itself contain brackets. No field after the name
    // contains a bracket, so the last bracket ends the name.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(13).take(2).map(|it| it.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / TICKS_A_SECOND
}

/// The number of ticks per second (`USER_HZ`), which is the same on every Linux. The times in
/// `/proc/self/stat` are in ticks.
const TICKS_A_SECOND: f64 = 100.0;
