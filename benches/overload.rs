//! Measures how long requests wait in an open loop: the client sends requests at a fixed rate,
//! without waiting for answers.
//!
//! Core 0 runs the server, which signs in batches if the processor supports them; core 1 runs
//! `oha`. First, `wrk` finds the rate that the server can sustain in a closed loop. The first load
//! of `oha` has half of this sustained rate. The second load has four times the sustained rate. The
//! server must immediately refuse the requests for which the signing queue has no place. The other
//! requests must not wait longer than the server takes to sign a full queue. The unit of the
//! reported waits is the time of a batch of eight signatures. That time is measured on core 0 in
//! the same round, because the speed of machines drifts by tens of per cent from minute to minute.
//! The first load is also sent to an empty hyper service. The waits for that service show how much
//! of a wait is due to the machine and the load generator.
//!
//! `cargo bench --bench overload -- 9` does nine rounds instead of five. With `--test`, and under
//! `cargo test`, there is one short round, and only the answers are checked. Needs Linux, two
//! cores, `wrk`, `taskset` and `oha`. `tests/run` installs `oha`.
//!
//! If other processes use the machine, raise the priority of the session's autogroup
//! (`/proc/self/autogroup`), but do not use a realtime policy. Under a realtime policy, each of the
//! server's two threads keeps the core for tens of milliseconds before the other thread runs. Under
//! the default policy, the threads alternate faster.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use grantd::clock::Clock;
use grantd::config::StartupLimits;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_store::StoredKeys;
use grantd::internal::keys::life::Retention;
use grantd::internal::time::UnixTime;
use rsa_x8::BATCH;
use support::client::{self, Client};
use support::oha::{self, Answer, Load};
use support::probe::Probe;
use support::raw::{self, Alone};
use support::request::URLENCODED;
use support::service::Service;
use support::spread::Spread;
use support::{cores, demo, empty_server, token, wrk};

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

const ROUNDS: usize = 5;
/// The duration of each measurement of signing without a server, in seconds.
const SIGN_SECONDS: f64 = 0.3;
/// The first argument of the child process that sends the load. The child process runs this
/// bench's program on the load generator's core. The program replaces itself by `oha`, which stays
/// on that core.
const ASK: &str = "ask";
/// The number of connections of the load at half of saturation. At least one of them is always
/// free, so no request waits for a connection.
const FEW: usize = 64;
/// The number of connections of the load beyond saturation. It is nearly twice the capacity of the
/// signing queue, so the queue overflows.
const MANY: usize = 1000;

/// The rate of the first load in the untimed run, in requests per second. The load lasts one
/// second. The number of requests is smaller than the capacity of the queue, so the server refuses
/// none of them. It is larger than the number of connections, because the statistics leave out the
/// first request of each connection.
const SAFE: f64 = 200.0;
/// The minimum rate of the load beyond saturation in the untimed run, in requests per second. With
/// this rate, the requests of one second overflow the queue even if the machine is slow.
const FLOOD: f64 = 2000.0;

/// The goal at half of saturation: 99 per cent of the requests must be answered within the time of
/// this number of batches.
const GOAL_BATCHES: f64 = 4.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if raw::is_child(&arguments) || empty_server::is_child(&arguments) {
        return ExitCode::SUCCESS;
    }
    match &arguments[..] {
        [mode, arguments @ ..] if mode == ASK => ask(arguments),
        _ => {
            let mut this =
                cores::on(cores::LOAD, std::env::current_exe().unwrap().to_str().unwrap());
            let error = this.arg(ASK).args(arguments).exec();
            eprintln!("overload: setpriv: {error}: apt-get install util-linux");
            ExitCode::FAILURE
        }
    }
}

fn ask(arguments: &[String]) -> ExitCode {
    let missing = cores::missing(&[("wrk", "wrk"), ("taskset", "util-linux")]);
    if !missing.is_empty() {
        eprintln!("overload: something is missing: apt-get install {}", missing.join(" "));
        return ExitCode::FAILURE;
    }
    if !cores::can_run(&oha::program()) {
        eprintln!("overload: oha is missing: run tests/run");
        return ExitCode::FAILURE;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--bench") && !has("--test") {
        let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
        let rounds = rounds.unwrap_or(ROUNDS);
        print(&measure(&Plan { rounds, find_seconds: 2, seconds: 5.0, timed: true }));
    } else {
        measure(&Plan { rounds: 1, find_seconds: 1, seconds: 1.0, timed: false });
        println!("overload: few are all answered, too many are refused as they should be");
    }
    ExitCode::SUCCESS
}

/// The results of one round. All times are in milliseconds.
struct Round {
    /// The time that the signing of eight messages in a batch takes without a server.
    batch: f64,
    /// While a process signed without a server, it got this share of the time of core 0.
    share: f64,
    /// Tokens per second in a closed loop.
    saturation: f64,
    half: Waits,
    /// The waits for answers of the empty hyper service, at the rate of `half`. Only the machine
    /// and the load generator cause these waits.
    empty: Waits,
    /// The achieved rate as a share of the wanted rate, at half of saturation.
    half_sent: f64,
    /// The waits for tokens at four times saturation, measured from when the request was sent. The
    /// preceding wait for a free connection is not included.
    admitted: Waits,
    admitted_since_due: Waits,
    /// The waits for refusals at four times saturation, measured from when the request was sent.
    refused: Waits,
    /// The achieved rate as a share of the wanted rate, at four times saturation.
    over_sent: f64,
    /// Tokens per second at four times saturation.
    over_rate: f64,
    /// The longest time to open a connection at four times saturation. All connections are opened
    /// at once.
    over_connect: f64,
    /// The number of refused requests among [`MANY`] concurrent requests. All refusals had a
    /// `Retry-After`, and all requests that were not refused got a token.
    burst: usize,
}

impl Round {
    /// The time to sign a full queue at the rate of signing without a server.
    fn bound(&self) -> f64 {
        self.batch * (StartupLimits::default().signing_queue as f64 / BATCH as f64)
    }

    /// The time to sign a full queue at the rate at which the server issued tokens at four times
    /// saturation.
    fn bound_as_served(&self) -> f64 {
        StartupLimits::default().signing_queue as f64 / self.over_rate * 1e3
    }
}

fn since_due(answer: &Answer) -> f64 {
    answer.latency
}

fn since_sent(answer: &Answer) -> f64 {
    answer.answered - answer.sent
}

/// The waits for answers of one kind.
struct Waits {
    count: usize,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Waits {
    /// Returns the waits for answers with this status; panics if there is none. If `oha` had to
    /// open a connection for a request, `count` includes the answer, but the statistics do not
    /// include the wait for this answer.
    fn of(answers: &[Answer], status: u16, wait: fn(&Answer) -> f64) -> Self {
        let of_status = || answers.iter().filter(|answer| answer.status == status);
        let mut waits: Vec<f64> = of_status()
            .filter(|answer| answer.connect == 0.0)
            .map(|answer| wait(answer) * 1e3)
            .collect();
        waits.sort_by(f64::total_cmp);
        assert!(!waits.is_empty(), "no answer was {status}");
        let at = |share: f64| waits[((waits.len() as f64 * share) as usize).min(waits.len() - 1)];
        let count = of_status().count();
        Self { count, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// The number of rounds and the durations of the measurements.
struct Plan {
    rounds: usize,
    find_seconds: u64,
    seconds: f64,
    timed: bool,
}

fn measure(plan: &Plan) -> Vec<Round> {
    let _awake = cores::Awake::start();
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    change::generate(&mut KeyDirectory::new(&config.live.keys), 2048, &retention, UnixTime(now))
        .unwrap();
    let server = Server(Service::grantd(&config, directory.path(), "auto"));
    server.verify_one();
    // This second of load is not part of the results. It sets up connections and the log thread,
    // and raises the processor's clock rate.
    server.saturate(1);
    let empty = empty_server::start();
    (0..plan.rounds).map(|_| server.round(empty.address, &config.live.keys, plan)).collect()
}

struct Server(Service);

impl Server {
    fn round(&self, empty: SocketAddr, keys: &Path, plan: &Plan) -> Round {
        let Plan { find_seconds, seconds, timed, .. } = *plan;
        let can_batch =
            StoredKeys::read(&mut KeyDirectory::new(keys)).keys[0].1.private_key.batch.is_some();
        let signer = if can_batch { "batch" } else { "ring" };
        let Alone { rate, share } = raw::alone(signer, SIGN_SECONDS, keys);
        let batch = BATCH as f64 / rate;

        let saturation = self.saturate(find_seconds);
        let load = |connections, rate| Load {
            address: self.0.address,
            payload: &URLENCODED,
            connections,
            rate,
            seconds,
        };

        let below = load(FEW, if timed { saturation / 2.0 } else { SAFE });
        let answers = below.run();
        let half = Waits::of(&answers, 200, since_due);
        assert_eq!(half.count, answers.len(), "a request was refused although the queue had room");
        let half_sent = below.sent_share(&answers);
        let empty = Waits::of(&Load { address: empty, ..below }.run(), 200, since_due);

        let flood = saturation * 4.0;
        let beyond = load(MANY, if timed { flood } else { flood.max(FLOOD) });
        let answers = beyond.run();
        let admitted = Waits::of(&answers, 200, since_sent);
        let refused = Waits::of(&answers, 503, since_sent);
        let told = admitted.count + refused.count;
        assert_eq!(told, answers.len(), "an answer was neither 200 nor 503");
        let admitted_since_due = Waits::of(&answers, 200, since_due);
        let over_sent = beyond.sent_share(&answers);
        let longest = |of: fn(&Answer) -> f64| answers.iter().map(of).fold(0.0, f64::max);
        let over_rate = admitted.count as f64 / longest(|answer| answer.answered);
        let over_connect = longest(|answer| answer.connect) * 1e3;
        Round {
            batch: batch * 1e3,
            share,
            saturation,
            half,
            empty,
            half_sent,
            admitted,
            admitted_since_due,
            refused,
            over_sent,
            over_rate,
            over_connect,
            burst: self.burst(),
        }
    }

    /// Sends [`MANY`] requests at once and returns the number of refusals. Panics if a refusal has
    /// no `Retry-After`.
    ///
    /// The server is stopped (SIGSTOP) until all requests are sent, so that the queue overflows
    /// even if the bench sends them slowly.
    fn burst(&self) -> usize {
        let request = client::post(URLENCODED.content_type, URLENCODED.body);
        let mut probes: Vec<Probe> =
            (0..MANY).map(|_| Probe::connect(self.0.address).unwrap()).collect();
        self.signal("-STOP");
        for probe in &mut probes {
            probe.send(&request);
        }
        self.signal("-CONT");
        let says_when = |mut probe: Probe| {
            let answer = probe.receive();
            match (answer.status, answer.retry_after) {
                (200, None) => false,
                (503, Some(seconds)) if seconds.parse::<u32>().is_ok() => true,
                other => panic!("a wrong answer: {other:?}"),
            }
        };
        let refused = probes.into_iter().map(says_when).filter(|refused| *refused).count();
        assert_ne!(refused, 0, "no request was refused");
        refused
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.process.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Gets a token and verifies it with the server's key set. Panics if this fails.
    fn verify_one(&self) {
        let mut client = Client::connect(self.0.address).unwrap();
        let key_set = client.exchange(client::GET_KEY_SET).to_vec();
        let request = client::post(URLENCODED.content_type, URLENCODED.body);
        token::verify(client.exchange(&request), &key_set, "demo-client");
    }

    /// Returns the tokens per second in a closed loop of 64 connections: each sends its next
    /// request when it has received the answer to the previous one.
    fn saturate(&self, seconds: u64) -> f64 {
        wrk::rate(&wrk::load(self.0.address, &URLENCODED, 64, seconds))
    }
}

fn print(rounds: &[Round]) {
    let row = |name: &str, digits: usize, goal: &str, value: &dyn Fn(&Round) -> f64| {
        let Spread { median, min, max } = Spread::of(rounds.iter().map(value));
        let spread = format!("({min:.digits$} - {max:.digits$})");
        println!("{name:<42} {median:>8.digits$}  {spread:<20} {goal}");
    };
    println!(
        "RSA-2048, one core for the server, one for the load; {} rounds, median (min - max)",
        rounds.len()
    );
    println!();
    row("a batch of eight alone, ms", 2, "", &|it| it.batch);
    row("of its core, that this had", 3, "", &|it| it.share);
    row("saturation, tokens a second", 0, "", &|it| it.saturation);

    println!("\nhalf of saturation, {FEW} connections; waits since a request was due");
    row("sent in time, of what was due", 3, "", &|it| it.half_sent);
    row("p50, ms", 2, "", &|it| it.half.p50);
    row("p99, ms", 2, "", &|it| it.half.p99);
    row("p99.9, ms", 2, "", &|it| it.half.p999);
    let goal = format!("goal: <= {GOAL_BATCHES}");
    row("p99, batches", 2, &goal, &|it| it.half.p99 / it.batch);
    row("p99 of hyper doing nothing, ms", 2, "", &|it| it.empty.p99);

    println!("\nfour times saturation, {MANY} connections; waits since a request was sent");
    row("sent in time, of what was due", 3, "", &|it| it.over_sent);
    row("refused, of all", 3, "", &|it| {
        it.refused.count as f64 / (it.refused.count + it.admitted.count) as f64
    });
    row("tokens, of saturation", 3, "", &|it| it.over_rate / it.saturation);
    row("tokens: p50, ms", 2, "", &|it| it.admitted.p50);
    row("tokens: p99, ms", 2, "", &|it| it.admitted.p99);
    row("tokens: longest, ms", 2, "", &|it| it.admitted.max);
    row("tokens: p99, of the queue's signing time", 2, "goal: <= 1", &|it| {
        it.admitted.p99 / it.bound()
    });
    row("tokens: p99, of a queue as it was served", 2, "", &|it| {
        it.admitted.p99 / it.bound_as_served()
    });
    row("tokens: p99 since due, ms", 2, "", &|it| it.admitted_since_due.p99);
    row("refusals: p50, ms", 2, "", &|it| it.refused.p50);
    row("refusals: p99, ms", 2, "", &|it| it.refused.p99);
    row("refusals: p99, batches", 2, "", &|it| it.refused.p99 / it.batch);
    row("longest to connect, ms", 1, "", &|it| it.over_connect);
    row("refused of as many at once, all told when", 0, "", &|it| it.burst as f64);
}
