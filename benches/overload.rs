//! How long does one wait when the server does not set the pace?
//!
//! Core 0 serves, with batches where the processor has them; core 1 asks, with `oha`, so many
//! requests a second as it is told, whether or not they are answered. First at half the rate that the
//! server can keep up (`wrk` in a closed loop finds it), then at four times that rate: what does not
//! fit into the signing queue has to be refused at once, and what does fit may wait only as long as
//! the queue is. Waits are given in batches of eight signatures, timed alone on core 0 in the same
//! round, because machines drift by tens of per cent from minute to minute. Beside half of the rate
//! stands how long the same load waits for hyper that does nothing: machines and load generators
//! make one wait, too.
//!
//! `cargo bench --bench overload -- 9` does nine rounds instead of five. With `--test`, or run by
//! `cargo test`, there is one short round, and only what the answers say is checked. Needs Linux,
//! two cores, `wrk`, `taskset`, and `oha` as `tests/run` installs it.
//!
//! Where others use the machine too, give the session weight (`/proc/self/autogroup`), but no
//! realtime policy: under one the server's two threads would take turns of tens of milliseconds on
//! their core, which they do not in service.

#![expect(clippy::unwrap_used, reason = "a bench that fails has nobody to answer")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use client::Client;
use grantd::clock::Clock;
use grantd::config::Limits;
use grantd::jose::key_life::Retention;
use grantd::store::key_directory;
use oha::{Answer, Load};
use probe::Probe;
use raw::Alone;
use request::URLENCODED;
use rsa_x8::{BATCH, BatchKey};
use service::Service;
use spread::Spread;

#[path = "support/client.rs"]
mod client;
#[path = "support/cores.rs"]
mod cores;
#[path = "support/demo.rs"]
mod demo;
#[path = "support/empty_server.rs"]
mod empty_server;
#[path = "support/empty_service.rs"]
mod empty_service;
#[path = "support/oha.rs"]
mod oha;
#[path = "support/probe.rs"]
mod probe;
#[expect(dead_code, reason = "one core is measured")]
#[path = "support/raw.rs"]
mod raw;
#[expect(dead_code, reason = "how a form is written makes no difference to a queue")]
#[path = "support/request.rs"]
mod request;
#[path = "support/service.rs"]
mod service;
#[path = "support/spread.rs"]
mod spread;
#[path = "support/token.rs"]
mod token;
#[path = "support/wrk.rs"]
mod wrk;

const ROUNDS: usize = 5;
/// Of signing alone.
const SIGN_SECONDS: f64 = 0.3;
/// The first argument of this program once it is on the load's core, where all it starts stays too.
const ASK: &str = "ask";
/// At half of saturation; more than ever are under way.
const FEW: usize = 64;
/// Beyond saturation: twice the queue, nearly, so that it overflows while it is full.
const MANY: usize = 1000;

/// Requests a second where nothing is timed: fewer than the queue has places for, and more than
/// connections, of which each answer but the first counts.
const SAFE: f64 = 200.0;
/// The same beyond saturation, at least: more than the queue has places for, however slow the machine.
const FLOOD: f64 = 2000.0;

/// At half of saturation 99 of 100 wait at most so many batches.
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

/// What one round has found. All times in milliseconds.
struct Round {
    /// A batch of eight signatures, alone.
    batch: f64,
    /// Of its core, that signing alone had.
    share: f64,
    /// Tokens a second in a closed loop.
    saturation: f64,
    half: Waits,
    /// hyper that does nothing, as often asked: what the machine and the load make of it.
    empty: Waits,
    /// Of what was asked for at half of saturation, sent in time.
    half_sent: f64,
    /// Since they were sent: before that, they waited for one of the connections.
    admitted: Waits,
    admitted_since_due: Waits,
    /// Since they were sent.
    refused: Waits,
    /// The same at four times saturation.
    over_sent: f64,
    /// Tokens a second meanwhile.
    over_rate: f64,
    /// The longest that one of the connections, all of them opened at once, took to open.
    over_connect: f64,
    /// Of [`MANY`] that asked at the same moment, refused with a `Retry-After`; the others were not.
    burst: usize,
}

impl Round {
    /// What a full queue takes to sign.
    fn bound(&self) -> f64 {
        self.batch * (Limits::default().signing_queue as f64 / BATCH as f64)
    }

    /// What a full queue takes at the rate at which tokens did come.
    fn bound_as_served(&self) -> f64 {
        Limits::default().signing_queue as f64 / self.over_rate * 1e3
    }
}

fn since_due(answer: &Answer) -> f64 {
    answer.latency
}

fn since_sent(answer: &Answer) -> f64 {
    answer.answered - answer.sent
}

/// How long answers of one kind took.
struct Waits {
    count: usize,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Waits {
    /// Of the answers with this status, of which there must be one. Those that had to wait for a new
    /// connection are counted, but tell nothing of the queue.
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

/// How long everything is measured.
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
    key_directory::generate(&config.keys, 2048, &retention, now).unwrap();
    let server = Server(Service::grantd(&config, directory.path(), "auto"));
    server.verify_one();
    // Connections, the log's thread and the processor's clock are warm after this.
    server.saturate(1);
    let empty = empty_server::start();
    (0..plan.rounds).map(|_| server.round(empty.address, &config.keys, plan)).collect()
}

struct Server(Service);

impl Server {
    fn round(&self, empty: SocketAddr, keys: &Path, plan: &Plan) -> Round {
        let Plan { find_seconds, seconds, timed, .. } = *plan;
        let can_batch =
            BatchKey::from_pkcs8(key_directory::load(keys).unwrap()[0].document()).is_some();
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
        assert_eq!(half.count, answers.len(), "somebody was refused though there was room");
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

    /// Many ask at the same moment. Gives the number of refusals; each has to say when to come back.
    ///
    /// The server stands still until all have asked, so that it cannot keep up however slow they are.
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
        assert_ne!(refused, 0, "nobody was refused");
        refused
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.process.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Panics unless the server gives out a token that its key set verifies.
    fn verify_one(&self) {
        let mut client = Client::connect(self.0.address).unwrap();
        let key_set = client.exchange(client::GET_KEY_SET).to_vec();
        let request = client::post(URLENCODED.content_type, URLENCODED.body);
        token::verify(client.exchange(&request), &key_set, "demo-client");
    }

    /// Tokens a second when 64 clients ask again as soon as they have been answered.
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
