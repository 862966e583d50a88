//! Free ports for programs that cannot choose their own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that a test run may use. All ports of all runs are below the ephemeral range
/// (`ip_local_port_range`), so no outgoing connection uses one of them.
const FIRST: u16 = 10_000;
/// The number of port ranges. The process id selects one, so that two test runs seldom share ports.
const RUNS: u16 = 40;
/// The number of ports in a range.
const EACH: u16 = 500;

/// Returns a port without a listener. Each call in a process returns a different port.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let run = u16::try_from(std::process::id() % u32::from(RUNS)).unwrap();
    loop {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(at < EACH, "no free port");
        let port = FIRST + run * EACH + at;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
