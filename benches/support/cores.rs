//! One core for who is measured, another for who asks.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

/// The core of what is measured.
pub(crate) const MEASURED: &str = "0";
/// The core of the load.
pub(crate) const LOAD: &str = "1";

/// `program` on this core and no other, as all that it starts. It is told to end when this bench is
/// killed.
pub(crate) fn on(core: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", core, program]).stdin(Stdio::null());
    command
}

/// This bench again, as a process of its own on the measured core.
pub(crate) fn this_bench() -> Command {
    on(MEASURED, std::env::current_exe().unwrap().to_str().unwrap())
}

/// Which of these programs cannot be run: the Debian packages that have them.
pub(crate) fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let cannot_run = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_err()
    };
    programs
        .iter()
        .filter(|(program, _)| cannot_run(program))
        .map(|(_, package)| *package)
        .collect()
}

/// An address that nobody listens on at this moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
