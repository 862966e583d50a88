//! Sends load with the load generator `wrk`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cores;
use super::request::Payload;

/// Returns `wrk`'s report after `seconds` of token requests over this many connections. Panics
/// unless every answer has a 2xx status and no socket failed.
pub(crate) fn load(
    address: SocketAddr,
    payload: &Payload,
    connections: u32,
    seconds: u64,
) -> String {
    report(command(cores::LOAD, address, payload.name, "/connect/token", connections, seconds))
}

/// Returns the command that sends load with the script of this name in `benches/load`.
pub(crate) fn command(
    core: &str,
    address: SocketAddr,
    script: &str,
    path: &str,
    connections: u32,
    seconds: u64,
) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load");
    let mut wrk = cores::on(core, "wrk");
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"]);
    // A shared machine can pause for longer than wrk's default timeout of two seconds.
    wrk.args(["--timeout", "10s", "-s"]).arg(scripts.join(script).with_extension("lua"));
    wrk.arg(format!("http://{address}{path}"));
    wrk
}

/// Runs `wrk` and returns its report. Panics unless every answer has a 2xx status and no socket
/// failed.
pub(crate) fn report(mut wrk: Command) -> String {
    let output = wrk.stderr(Stdio::inherit()).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "wrk failed: {report}");
    for fault in ["Non-2xx", "Socket errors"] {
        assert!(!report.contains(fault), "not every answer was good: {report}");
    }
    report
}

/// Returns the answers per second.
pub(crate) fn rate(report: &str) -> f64 {
    let rate = report.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
    let rate: f64 = rate.trim().parse().unwrap();
    assert!(rate > 0.0, "no answer came: {report}");
    rate
}
