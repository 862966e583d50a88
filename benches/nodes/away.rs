//! Three servers under load while the database is away.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use grantd::clock::Clock;
use serde_json::json;

use crate::grants::{self, Waits};
use crate::nodes::{at, cluster, put, revoke, three, time_until, token_of};
use crate::presenter::Presenter;
use crate::support::home::secret_of;
use crate::support::postgres::session::Session;
use crate::support::postgres::{Role, Stop};
use crate::support::registry::client_json;
use crate::support::{Connection, Program, Request, Response};

/// Grants in a second by each of the three servers.
const RATE: f64 = 100.0;

const CLIENT: &str = "steady";
/// The lifetime of an assertion in seconds.
const LIFETIME: u64 = 60;

pub(crate) fn measure(seconds: f64) {
    let mut cluster = cluster();
    let presenter = Presenter::new("asserting");
    let mut session = Session::open(&cluster);
    put(&mut session, &client_json(CLIENT, &json!({})));
    put(&mut session, &presenter.client());
    drop(session);
    let nodes = three(&cluster.url(Role::Node));
    let token = token_of(&mut Connection::open(nodes[0].address), CLIENT, &secret_of(CLIENT));
    let revoked = token_of(&mut Connection::open(nodes[0].address), CLIENT, &secret_of(CLIENT));
    times_until_well(&nodes, &presenter, &revoked, Clock::system().instant());
    let addresses = nodes.each_ref().map(|node| node.address);
    let ((refused, slowest, [revoking, ready, accepting]), Waits { grants, stalls }) =
        grants::beside(&addresses, CLIENT, RATE, || {
            cluster.stop(Stop::Fast);
            let begin = Clock::system().instant();
            let (refused, slowest) = refuse(&addresses, &presenter, &token, begin, seconds);
            let started = Clock::system().instant();
            cluster.start_again();
            let serves = Clock::system().instant();
            println!(
                "\nthree servers, {RATE} grants a second each; the database away for {:.0} s, and started \
                 in {:.1} s",
                (started - begin).as_secs_f64(),
                (serves - started).as_secs_f64()
            );
            (refused, slowest, times_until_well(&nodes, &presenter, &token, serves))
        });
    println!(
        "grants: {} and no failure; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        grants.len(),
        at(&grants, 0.5),
        at(&grants, 0.99),
        at(&grants, 0.999),
        at(&grants, 1.0)
    );
    println!(
        "stalls of a bare loop: p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        at(&stalls, 0.99),
        at(&stalls, 0.999),
        at(&stalls, 1.0)
    );
    println!(
        "revocations and assertions meanwhile: {refused}, each 503 with Retry-After, the slowest in \
         {slowest:.1} ms"
    );
    println!(
        "since the database serves, on all three: revocations after {revoking:.2} s, ready after {ready:.2} s, \
         assertions after {accepting:.2} s"
    );
}

/// Sends revocations and assertions until the time is over. Returns their number and the slowest
/// answer's time in milliseconds. Panics unless each is refused as it should be.
fn refuse(
    servers: &[SocketAddr],
    presenter: &Presenter,
    token: &str,
    begin: Instant,
    seconds: f64,
) -> (usize, f64) {
    let (mut refused, mut slowest) = (0, 0.0_f64);
    while begin.elapsed().as_secs_f64() < seconds {
        for server in servers {
            let requests = [revoke(CLIENT, token), presenter.request(LIFETIME)];
            for request in requests {
                let sent = Clock::system().instant();
                let response: Response = request.send(*server);
                slowest = slowest.max(sent.elapsed().as_secs_f64() * 1e3);
                assert_eq!(response.status, 503, "{}", response.text());
                assert!(response.header("retry-after").is_some(), "{}", response.text());
                refused += 1;
            }
        }
        sleep(Duration::from_millis(50));
    }
    (refused, slowest)
}

/// Returns the times in seconds from `begin` until every server accepts revocations, is ready, and
/// accepts assertions. What was signed just after the birth of the record of used assertions is
/// refused, so each assertion is new.
fn times_until_well(
    nodes: &[Program],
    presenter: &Presenter,
    token: &str,
    begin: Instant,
) -> [f64; 3] {
    let is_revoked = |node: &Program| revoke(CLIENT, token).send(node.address).status == 200;
    let is_ready = |node: &Program| {
        let response = Request::get("/readyz").send(node.admin);
        (response.status, response.text()) == (200, "ok\n")
    };
    let accepts = |node: &Program| presenter.request(LIFETIME).send(node.address).status == 200;
    let mut times = [None; 3];
    time_until(begin, || {
        let checks: [&dyn Fn(&Program) -> bool; 3] = [&is_revoked, &is_ready, &accepts];
        for (time, is_well) in times.iter_mut().zip(checks) {
            if time.is_none() && nodes.iter().all(is_well) {
                *time = Some(begin.elapsed().as_secs_f64());
            }
        }
        times.iter().all(Option::is_some)
    });
    times.map(|time| time.expect("all is well"))
}
