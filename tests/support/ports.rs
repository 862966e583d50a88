//! Ports for programs that have to be told theirs.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Where the ports of this process begin: below all that the system hands out by itself
/// (`ip_local_port_range`), so that no connection of another test comes to be there meanwhile, and
/// not where another run of the tests looks first.
const FIRST: u16 = 10_000;
const RUNS: u16 = 100;
const EACH: u16 = 200;

/// A port of this machine that nobody listens on, given to nobody else in this process.
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
