//! Three servers behind nginx, through the faults of servers and of the database.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use grantd::clock::Clock;
use serde_json::json;

use crate::Plan;
use crate::load::{Load, Sent, wait_until_accepted};
use crate::nodes::{ask_for_token, at, cluster, put, start_at};
use crate::presenter::Presenter;
use crate::seconds::{Second, cell, seconds, sum};
use crate::support::home::secret_of;
use crate::support::nginx::Nginx;
use crate::support::ports::free_port;
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role, Stop};
use crate::support::registry::client_json;
use crate::support::{Home, Program};

const CLIENT: &str = "steady";
/// The lifetime of an assertion in seconds.
const LIFETIME: u64 = 60;
const GRANT_CONNECTIONS: u32 = 24;
const ASSERTION_CONNECTIONS: u32 = 12;

/// All requests have one address, which may otherwise not ask as often.
const ONE_SOURCE: [(&str, &str); 1] = [("rate=50r/s", "rate=100000r/s")];

/// The measurements through the faults.
pub(crate) struct Faults {
    pub(crate) grants: Vec<Second>,
    pub(crate) assertions: Vec<Second>,
    pub(crate) bands: Vec<Band>,
}

/// A fault, with its begin and its end in seconds since the begin of the load.
pub(crate) struct Band {
    pub(crate) label: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// The faults so far.
struct Timeline {
    begin: Instant,
    calm: Duration,
    bands: Vec<Band>,
}

impl Timeline {
    /// Waits a while, then lets a fault happen.
    fn then(&mut self, label: &'static str, fault: impl FnOnce()) {
        sleep(self.calm);
        let from = self.begin.elapsed().as_secs_f64();
        fault();
        let to = self.begin.elapsed().as_secs_f64();
        self.bands.push(Band { label, from, to });
    }
}

pub(crate) fn measure(plan: &Plan) -> Faults {
    let mut primary = cluster();
    let standby = primary.standby();
    let presenter = Presenter::new("asserting");
    let mut session = Session::open(&primary);
    put(&mut session, &client_json(CLIENT, &json!({})));
    put(&mut session, &presenter.client());
    drop(session);

    let url = Postgres::url_of(Role::Node, &[&primary, &standby]);
    let addresses = [(); 3].map(|()| ([127, 0, 0, 1], free_port()).into());
    let mut nodes =
        addresses.map(|address| Some(start_at(Home::without_key(), &url, Some(address))));
    let gate = Nginx::over(addresses, &ONE_SOURCE);

    wait_until_accepted(gate.plain, &|| presenter.request(LIFETIME));
    let is_over = AtomicBool::new(false);
    let begin = Clock::system().instant();
    let load = |rate: f64, connections: u32, repeats| {
        let rate = rate / f64::from(connections);
        Load { begin, is_over: &is_over, rate, repeats }
    };
    let secret = ask_for_token(CLIENT, &secret_of(CLIENT));
    let (secret, assertion) = (|| secret.clone(), || presenter.request(LIFETIME));
    let grants = load(plan.grants, GRANT_CONNECTIONS, false);
    let assertions = load(plan.assertions, ASSERTION_CONNECTIONS, true);
    let fault = Duration::from_secs_f64(plan.fault);
    let calm = Duration::from_secs_f64(plan.calm);
    let mut line = Timeline { begin, calm, bands: vec![] };
    let [grants, assertions] = thread::scope(|scope| {
        let grants = grants.send(scope, gate.plain, GRANT_CONNECTIONS, &secret);
        let assertions = assertions.send(scope, gate.plain, ASSERTION_CONNECTIONS, &assertion);
        line.then("a server killed", || {
            let home = nodes[0].take().map(Program::into_home).expect("a server");
            sleep(fault);
            nodes[0] = Some(start_at(home, &url, Some(addresses[0])));
        });
        line.then("a server hangs", || {
            let node = nodes[1].as_ref().expect("a server");
            node.stop();
            sleep(fault);
            node.go_on();
        });
        line.then("database stopped", || {
            primary.stop(Stop::Fast);
            sleep(fault);
            primary.start_again();
        });
        line.then("uses lost", || {
            primary.psql("truncate grantd.guard");
        });
        line.then("primary killed", || {
            standby.catch_up_with(&primary);
            primary.kill();
            sleep(fault);
            standby.promote();
        });
        sleep(calm);
        is_over.store(true, Ordering::Relaxed);
        [grants, assertions].map(|threads| {
            let sent = threads.into_iter().flat_map(|thread| thread.join().unwrap());
            sent.collect::<Vec<Sent>>()
        })
    });
    let faults =
        Faults { grants: seconds(&grants), assertions: seconds(&assertions), bands: line.bands };
    assert_eq!(sum(&faults.grants, |it| it.away + it.refused + it.failed), 0, "{faults}");
    assert_eq!(sum(&faults.assertions, |it| it.granted_again), 0, "{faults}");
    faults
}

impl Faults {
    /// Returns a line for each second.
    pub(crate) fn csv(&self) -> String {
        let mut csv = "second,fault,grants,grants_failed,grant_p50_ms,grant_p99_ms,\
                       assertions_accepted,assertions_503,assertions_refused,assertions_failed,\
                       repeated,repeated_and_accepted\n"
            .to_owned();
        for (second, (grants, uses)) in self.grants.iter().zip(&self.assertions).enumerate() {
            let is_in = |band: &&Band| band.from < second as f64 + 1.0 && second as f64 <= band.to;
            let fault = self.bands.iter().find(is_in).map_or("", |band| band.label);
            let failed = grants.away + grants.refused + grants.failed;
            let [p50, p99] = [0.5, 0.99].map(|share| cell(grants.time(share)));
            csv += &format!(
                "{second},{fault},{},{failed},{p50},{p99},{},{},{},{},{},{}\n",
                grants.granted,
                uses.granted,
                uses.away,
                uses.refused,
                uses.failed,
                uses.repeated,
                uses.granted_again
            );
        }
        csv
    }

    /// Returns the time in seconds from the end of a fault until assertions are accepted again and
    /// no longer refused. 0 if none was refused.
    fn until_accepted(&self, band: &Band) -> f64 {
        let next = self.bands.iter().map(|band| band.from).find(|from| *from > band.to);
        let end = next.unwrap_or(f64::MAX);
        let seconds = self.assertions.iter().enumerate();
        let mut last = seconds.filter(|(second, it)| {
            let second = *second as f64;
            second >= band.from && second + 1.0 <= end && it.refused + it.away > 0
        });
        last.next_back().map_or(0.0, |(second, _)| (second as f64 + 1.0 - band.to).max(0.0))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<f64> =
            self.grants.iter().flat_map(|second| &second.times).copied().collect();
        writeln!(
            f,
            "three servers behind nginx, {} s: {} secret grants, {} failed; ms p50 {:.1}, p99 {:.1}, \
             p99.9 {:.1}, max {:.1}",
            self.grants.len(),
            sum(&self.grants, |it| it.granted),
            sum(&self.grants, |it| it.away + it.refused + it.failed),
            at(&times, 0.5),
            at(&times, 0.99),
            at(&times, 0.999),
            at(&times, 1.0)
        )?;
        writeln!(
            f,
            "assertions: {} accepted, {} answered 503, {} refused, {} without an answer; \
             {} sent again, {} of them accepted again",
            sum(&self.assertions, |it| it.granted),
            sum(&self.assertions, |it| it.away),
            sum(&self.assertions, |it| it.refused),
            sum(&self.assertions, |it| it.failed),
            sum(&self.assertions, |it| it.repeated),
            sum(&self.assertions, |it| it.granted_again)
        )?;
        writeln!(
            f,
            "{:<20} {:>8} {:>8}  assertions refused after its end for",
            "", "from s", "to s"
        )?;
        for band in &self.bands {
            let Band { label, from, to } = band;
            let refused = self.until_accepted(band);
            writeln!(f, "{label:<20} {from:>8.1} {to:>8.1}  {refused:.0} s")?;
        }
        Ok(())
    }
}
