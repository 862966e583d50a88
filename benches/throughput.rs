//! Compares the tokens per second of a server on one core with the signatures per second of ring
//! alone.
//!
//! First, core 0 signs with ring alone; then core 0 runs the server and core 1 sends requests, with
//! `wrk` and 32 connections. The speed of machines drifts by tens of per cent from minute to
//! minute, so the two measurements alternate, and each pair has its own ratio. The report also has
//! a figure that does not depend on the drift: the share of the server's processor time that the
//! signing threads used.
//!
//! `cargo bench --bench throughput -- 9` does nine rounds instead of five. With `--test`, and under
//! `cargo test`, there is one short round, and only the answers are checked. Needs Linux, two
//! cores, `wrk` and `taskset`.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::fs;
use std::io;
use std::process::ExitCode;

use grantd::clock::Clock;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::time::UnixTime;
use support::client::{self, Client};
use support::raw::{self, Alone};
use support::request::{MULTIPART, Payload, URLENCODED};
use support::service::Service;
use support::spread::Spread;
use support::{cores, demo, token, wrk};

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

const GOAL: f64 = 0.93;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if raw::is_child(&arguments) {
        return ExitCode::SUCCESS;
    }
    let missing = cores::missing(&[("wrk", "wrk"), ("taskset", "util-linux")]);
    if !missing.is_empty() {
        eprintln!("throughput: something is missing: apt-get install {}", missing.join(" "));
        return ExitCode::FAILURE;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--bench") && !has("--test") {
        let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
        print(&measure(rounds.unwrap_or(ROUNDS), 2.0, 3));
    } else {
        measure(1, 0.2, 1);
        println!("throughput: tokens came and are valid");
    }
    ExitCode::SUCCESS
}

/// A measurement of ring alone, and a measurement of tokens in one encoding just after it.
struct Pair {
    ring: Alone,
    /// Tokens per second.
    tokens: f64,
    /// The share of the server's processor time that the signing threads used.
    share: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.tokens / self.ring.rate
    }
}

/// Three loads: both encodings with ring as the signer, and the URL encoding with the default
/// signer.
type Measured = [(String, Vec<Pair>); 3];

fn measure(rounds: usize, sign_seconds: f64, load_seconds: u64) -> Measured {
    let _awake = cores::Awake::start();
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    change::generate(&mut KeyDirectory::new(&config.live.keys), 2048, &retention, UnixTime(now))
        .unwrap();
    let servers = ["ring", "auto"].map(|signer| {
        let server = Service::grantd(&config, directory.path(), signer);
        // This second of load is not part of the results. It sets up connections and the log
        // thread, and raises the processor's clock rate.
        load(&server, &URLENCODED, 1);
        (signer, server)
    });
    let [ring, auto] = &servers;

    let loads = [(ring, URLENCODED), (ring, MULTIPART), (auto, URLENCODED)];
    let mut measured = loads
        .each_ref()
        .map(|((signer, _), payload)| (format!("{}, {signer}", payload.name), vec![]));
    for _ in 0..rounds {
        for (((_, server), payload), (_, pairs)) in loads.iter().zip(&mut measured) {
            let ring = raw::alone("ring", sign_seconds, &config.live.keys);
            let (tokens, share) = load(server, payload, load_seconds);
            pairs.push(Pair { ring, tokens, share });
        }
    }
    measured
}

fn print(measured: &Measured) {
    println!("RSA-2048, one core for the server, 32 connections; median (min - max)");
    println!("\na second");
    let all = measured.iter().flat_map(|(_, pairs)| pairs);
    row("ring alone", 0, all.map(|pair| pair.ring.rate));
    for (name, pairs) in measured {
        row(name, 0, pairs.iter().map(|pair| pair.tokens));
    }
    println!("\ntokens / signatures of ring alone (goal with ring: {GOAL})");
    for (name, pairs) in measured {
        row(name, 3, pairs.iter().map(Pair::ratio));
    }
    println!("\nring alone's share of its core (near 1, or others took part of every figure here)");
    let all = measured.iter().flat_map(|(_, pairs)| pairs);
    row("ring alone", 3, all.map(|pair| pair.ring.share));
    println!("\nsigning threads' share of the server's processor time");
    for (name, pairs) in measured {
        row(name, 3, pairs.iter().map(|pair| pair.share));
    }
}

fn row(name: &str, digits: usize, values: impl Iterator<Item = f64>) {
    println!("{name:<18} {:.digits$}", Spread::of(values));
}

/// Verifies one token, then sends load for `seconds`. Returns the tokens per second, and the share
/// of the server's processor time that the signing threads used.
fn load(server: &Service, payload: &Payload, seconds: u64) -> (f64, f64) {
    let mut client = Client::connect(server.address).unwrap();
    let key_set = client.exchange(client::GET_KEY_SET).to_vec();
    let request = client::post(payload.content_type, payload.body);
    token::verify(client.exchange(&request), &key_set, "demo-client");

    let before = Busy::of(server).unwrap();
    let rate = wrk::rate(&wrk::load(server.address, payload, 32, seconds));
    let after = Busy::of(server).unwrap();
    (rate, (after.signing - before.signing) / (after.all - before.all))
}

/// The processor time that a server's threads have used so far, in nanoseconds: the first number of
/// each thread's `schedstat`.
#[derive(Default)]
struct Busy {
    all: f64,
    signing: f64,
}

impl Busy {
    fn of(server: &Service) -> io::Result<Self> {
        let mut busy = Self::default();
        for thread in fs::read_dir(format!("/proc/{}/task", server.process.id()))? {
            let thread = thread?.path();
            let times = fs::read_to_string(thread.join("schedstat"))?;
            let ran = times.split(' ').next().and_then(|first| first.parse::<f64>().ok());
            let ran = ran.ok_or(io::ErrorKind::InvalidData)?;
            busy.all += ran;
            if fs::read_to_string(thread.join("comm"))?.starts_with("sign-") {
                busy.signing += ran;
            }
        }
        Ok(busy)
    }
}
