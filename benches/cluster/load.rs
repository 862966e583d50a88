//! Requests at a fixed rate, which does not depend on the answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use grantd::clock::Clock;

use crate::support::{Connection, Request, Response, wait_until};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a token.
    Granted,
    /// With status 503: the server cannot record the use.
    Away,
    /// With another refusal.
    Refused,
    /// Without an answer, or with another error of a server or of nginx.
    Failed,
}

/// The end of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// When the request was due, in seconds since the begin of the load.
    pub(crate) due: f64,
    /// From when the request was due to its end, in milliseconds. So a request that waits for the one
    /// before it counts with its wait.
    pub(crate) time: f64,
    pub(crate) outcome: Outcome,
    /// Whether the same assertion had been accepted before.
    pub(crate) is_repeated: bool,
}

/// Where requests go, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) begin: Instant,
    pub(crate) is_over: &'a AtomicBool,
    /// Requests in a second over each connection.
    pub(crate) rate: f64,
    /// Whether half of the requests repeat one that was granted.
    pub(crate) repeats: bool,
}

impl Load<'_> {
    /// Sends requests over `connections` connections to `server`, each from a thread of its own, until
    /// the load is over.
    pub(crate) fn send<'scope, 'env>(
        self,
        scope: &'scope thread::Scope<'scope, 'env>,
        server: SocketAddr,
        connections: u32,
        request: &'scope (impl Fn() -> Request + Sync),
    ) -> Vec<ScopedJoinHandle<'scope, Vec<Sent>>>
    where
        Self: 'scope,
    {
        let each = |place| {
            let first = f64::from(place) / f64::from(connections) / self.rate;
            scope.spawn(move || self.over_one(server, place, first, request))
        };
        (0..connections).map(each).collect()
    }

    fn over_one(
        self,
        server: SocketAddr,
        place: u32,
        first: f64,
        request: impl Fn() -> Request,
    ) -> Vec<Sent> {
        let mut connection = None;
        let mut granted = VecDeque::new();
        let mut sent = vec![];
        let mut due = first;
        // So the connections do not all repeat at once.
        let mut turn = place;
        while !self.is_over.load(Ordering::Relaxed) {
            let at = self.begin + Duration::from_secs_f64(due);
            sleep(at.saturating_duration_since(Clock::system().instant()));
            turn += 1;
            let again =
                if self.repeats && turn.is_multiple_of(2) { pick(&granted, turn) } else { None };
            let is_repeated = again.is_some();
            let asked = again.unwrap_or_else(&request);
            let outcome = outcome_of(ask(&mut connection, server, &asked).as_ref());
            if self.repeats && !is_repeated && outcome == Outcome::Granted {
                granted.push_back(asked);
                if granted.len() > KEPT {
                    granted.pop_front();
                }
            }
            let time = at.elapsed().as_secs_f64() * 1e3;
            sent.push(Sent { due, time, outcome, is_repeated });
            due += 1.0 / self.rate;
        }
        sent
    }
}

/// Waits until an assertion is accepted: what was signed up to 10 s after the birth of the record of
/// uses is refused.
pub(crate) fn wait_until_accepted(server: SocketAddr, request: &impl Fn() -> Request) {
    wait_until(|| {
        sleep(Duration::from_millis(200));
        request().send(server).status == 200
    });
}

/// Picks one of the requests, another one each time.
fn pick(granted: &VecDeque<Request>, turn: u32) -> Option<Request> {
    (!granted.is_empty()).then(|| granted[turn as usize * 7 % granted.len()].clone())
}

/// Asks on the open connection, or on a new one. `None` if there is no answer.
fn ask(open: &mut Option<Connection>, server: SocketAddr, request: &Request) -> Option<Response> {
    let mut connection = open.take().or_else(|| Connection::open_if_listening(server))?;
    connection.send_if_open(&request.to_bytes());
    let response = connection.read_if_answered()?;
    if response.header("connection") != Some("close") {
        *open = Some(connection);
    }
    Some(response)
}

fn outcome_of(response: Option<&Response>) -> Outcome {
    match response.map(|response| (response.status, response.header("x-request-id"))) {
        Some((200, _)) => Outcome::Granted,
        // Without this field, the answer is nginx's own.
        Some((503, Some(_))) => Outcome::Away,
        Some((400 | 401, _)) => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// The number of granted requests from which one is picked to be repeated: those of about a minute.
const KEPT: usize = 300;
