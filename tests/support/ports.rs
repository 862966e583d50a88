//! Free ports for programs that cannot choose their own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port of this process: below the ephemeral range (`ip_local_port_range`), so that no
/// outgoing connection takes one of these ports, and apart from the ports of another test run.
const FIRST: u16 = 10_000;
const RUNS: u16 = 100;
const EACH: u16 = 200;

/// A port without a listener; each is returned only once in a process.
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
