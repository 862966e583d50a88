//! Assertions at a high rate over three servers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use grantd::clock::Clock;

use crate::Plan;
use crate::load::{Load, Sent, wait_until_accepted};
use crate::nodes::{at, cluster, put, three};
use crate::presenter::Presenter;
use crate::seconds::{Second, cell, seconds, sum};
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role};

/// Connections to each server.
const CONNECTIONS: u32 = 16;
/// Each holds a share of each server's record, so that none has used its share up.
const CLIENTS: usize = 16;

/// The measurements under load.
pub(crate) struct Uses {
    pub(crate) assertions: Vec<Second>,
    pub(crate) samples: Vec<Sample>,
    /// The assertions in a second.
    pub(crate) rate: f64,
    lifetime: u64,
}

/// The state of the database at one time.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Since the begin of the load, in seconds.
    pub(crate) at: f64,
    /// The transactions that have been committed so far, this question's included.
    pub(crate) commits: f64,
    pub(crate) rows: f64,
    /// The size of the table of uses with its indexes, in bytes.
    pub(crate) bytes: f64,
}

pub(crate) fn measure(plan: &Plan) -> Uses {
    let cluster = cluster();
    let presenters: Vec<_> = (0..CLIENTS).map(|it| Presenter::new(&format!("c{it}"))).collect();
    let mut session = Session::open(&cluster);
    presenters.iter().for_each(|presenter| put(&mut session, &presenter.client()));
    drop(session);
    let nodes = three(&cluster.url(Role::Node));

    let next = std::sync::atomic::AtomicUsize::new(0);
    let request = || {
        let place = next.fetch_add(1, Ordering::Relaxed) % CLIENTS;
        presenters[place].request(plan.uses_lifetime)
    };
    wait_until_accepted(nodes[0].address, &request);
    let is_over = AtomicBool::new(false);
    let begin = Clock::system().instant();
    let rate = plan.uses / 3.0 / f64::from(CONNECTIONS);
    let load = Load { begin, is_over: &is_over, rate, repeats: false };
    let mut samples = vec![sample(&cluster, 0.0)];
    let sent: Vec<Sent> = thread::scope(|scope| {
        let servers = nodes.each_ref().map(|node| node.address);
        let threads: Vec<_> = servers
            .into_iter()
            .flat_map(|server| load.send(scope, server, CONNECTIONS, &request))
            .collect();
        while begin.elapsed().as_secs_f64() < plan.uses_seconds {
            sleep(Duration::from_secs(1));
            samples.push(sample(&cluster, begin.elapsed().as_secs_f64()));
        }
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let (rate, lifetime) = (plan.uses, plan.uses_lifetime);
    let uses = Uses { assertions: seconds(&sent), samples, rate, lifetime };
    assert_eq!(sum(&uses.assertions, |it| it.away + it.refused + it.failed), 0, "{uses}");
    uses
}

fn sample(cluster: &Postgres, at: f64) -> Sample {
    let row = cluster.psql(
        "select xact_commit, (select count(*) from grantd.guard), \
         pg_total_relation_size('grantd.guard') \
         from pg_stat_database where datname = current_database()",
    );
    let numbers: Vec<f64> = row.split('|').map(|number| number.parse().unwrap()).collect();
    Sample { at, commits: numbers[0], rows: numbers[1], bytes: numbers[2] }
}

impl Uses {
    /// Returns a line for each second.
    pub(crate) fn csv(&self) -> String {
        let mut csv =
            "second,accepted,not_accepted,p50_ms,p99_ms,commits,rows,table_bytes\n".to_owned();
        let states = self.samples.windows(2);
        for (second, (uses, states)) in self.assertions.iter().zip(states).enumerate() {
            let [p50, p99] = [0.5, 0.99].map(|share| cell(uses.time(share)));
            let lost = uses.away + uses.refused + uses.failed;
            let (commits, last) = (states[1].commits - states[0].commits, states[1]);
            csv += &format!(
                "{second},{},{lost},{p50},{p99},{commits},{},{}\n",
                uses.granted, last.rows, last.bytes
            );
        }
        csv
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<f64> =
            self.assertions.iter().flat_map(|second| &second.times).copied().collect();
        let (first, last) = (self.samples[0], self.samples[self.samples.len() - 1]);
        writeln!(
            f,
            "{} assertions a second over three servers for {:.0} s, each valid for {} s: {} accepted, \
             {} not; ms p50 {:.1}, p99 {:.1}, max {:.1}",
            self.rate,
            last.at,
            self.lifetime,
            sum(&self.assertions, |it| it.granted),
            sum(&self.assertions, |it| it.away + it.refused + it.failed),
            at(&times, 0.5),
            at(&times, 0.99),
            at(&times, 1.0)
        )?;
        let commits = (last.commits - first.commits) / (last.at - first.at);
        writeln!(f, "commits a second: {commits:.0}, the samples' included")?;
        // Sizes at a quarter, a half, three quarters and the end.
        write!(f, "rows and bytes of the table of uses:")?;
        for quarter in 1..=4 {
            let sample = self.samples[(self.samples.len() - 1) * quarter / 4];
            write!(f, " after {:.0} s {} {:.1} MB;", sample.at, sample.rows, sample.bytes / 1e6)?;
        }
        writeln!(f)
    }
}
