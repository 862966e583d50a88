//! Secret grants at a fixed rate, and the stalls of a loop that only waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use grantd::clock::Clock;

use crate::nodes::ask_for_token;
use crate::support::Connection;
use crate::support::home::secret_of;

/// The number of connections to each server.
const CONNECTIONS: u32 = 8;

/// Times in milliseconds.
pub(crate) struct Waits {
    /// From when a grant was due to its answer.
    pub(crate) grants: Vec<f64>,
    /// By how much a loop woke too late that sleeps for a millisecond at a time: what the machine
    /// alone costs.
    pub(crate) stalls: Vec<f64>,
}

/// Has tokens granted to `client` by each server, `rate` in a second by each, until `during` is over.
/// Panics if one is not granted. Returns what `during` returned, too.
pub(crate) fn beside<T>(
    servers: &[SocketAddr],
    client: &str,
    rate: f64,
    during: impl FnOnce() -> T,
) -> (T, Waits) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stalls = scope.spawn(|| stalls(&is_over));
        let is_over = &is_over;
        let each = servers.iter().flat_map(|server| (0..CONNECTIONS).map(move |it| (*server, it)));
        let grants: Vec<_> = each
            .map(|(server, place)| {
                let between = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
                let first = between * place / CONNECTIONS;
                scope.spawn(move || grant(server, client, first, between, is_over))
            })
            .collect();
        let end = End(is_over);
        let result = during();
        drop(end);
        let grants = grants.into_iter().flat_map(|grants| grants.join().unwrap()).collect();
        (result, Waits { grants, stalls: stalls.join().unwrap() })
    })
}

/// Ends the load on drop, so that a panic does not wait for the load's end.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn grant(
    server: SocketAddr,
    client: &str,
    first: Duration,
    between: Duration,
    is_over: &AtomicBool,
) -> Vec<f64> {
    let request = ask_for_token(client, &secret_of(client));
    let mut connection = Connection::open(server);
    let mut waits = vec![];
    let mut due = Clock::system().instant() + first;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Clock::system().instant()));
        let response = connection.ask(&request);
        assert_eq!(response.status, 200, "{}", response.text());
        waits.push(due.elapsed().as_secs_f64() * 1e3);
        due += between;
    }
    waits
}

fn stalls(is_over: &AtomicBool) -> Vec<f64> {
    const SLEEP: Duration = Duration::from_millis(1);
    let mut stalls = vec![];
    while !is_over.load(Ordering::Relaxed) {
        let begin = Clock::system().instant();
        thread::sleep(SLEEP);
        stalls.push(begin.elapsed().saturating_sub(SLEEP).as_secs_f64() * 1e3);
    }
    stalls
}
