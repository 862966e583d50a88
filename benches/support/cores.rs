//! Runs the contestant on one core and the load generator on another.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The core of the contestant.
pub(crate) const MEASURED: &str = "0";
/// The core of the load generator.
pub(crate) const LOAD: &str = "1";
/// Both cores, for a contestant that shares them with the load.
pub(crate) const BOTH: &str = "0,1";

/// Returns a command that runs `program` and its children on these cores only. The kernel
/// terminates `program` when this bench ends.
pub(crate) fn on(core: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", core, program]).stdin(Stdio::null());
    command
}

/// Returns a command that runs this bench's program again, in a process of its own on this core.
pub(crate) fn this_bench(core: &str) -> Command {
    on(core, std::env::current_exe().unwrap().to_str().unwrap())
}

/// Keeps both cores busy with idle-priority loops until it is dropped. If a processor of a virtual
/// machine is idle, the host may suspend that processor, and may resume it up to a millisecond
/// late. This delay is as long as a signature takes, and would be counted as the contestant's time.
pub(crate) struct Awake([Child; 2]);

impl Awake {
    pub(crate) fn start() -> Self {
        Self([MEASURED, LOAD].map(|core| {
            let mut idle = on(core, "chrt");
            idle.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).spawn().unwrap()
        }))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the Debian packages of those programs that cannot be run.
pub(crate) fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs
        .iter()
        .filter(|(program, _)| !can_run(program.as_ref()))
        .map(|(_, package)| *package)
        .collect()
}

/// Whether `program` can be started.
pub(crate) fn can_run(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// Returns an address that is free at this moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
