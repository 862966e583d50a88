//! How much of one core's signatures become tokens?
//!
//! Core 0 signs with ring and nothing else; then core 0 serves and core 1 asks, with `wrk` and 32
//! connections. Machines drift by tens of per cent from minute to minute, so both are measured by
//! turns and each round has a ratio of its own.
//!
//! `cargo bench --bench throughput -- 9` does nine rounds instead of five. With `--test`, or run by
//! `cargo test`, there is one short round, and only what the answers say is checked. Needs Linux,
//! two cores, `wrk` and `taskset`.

#![expect(clippy::unwrap_used, reason = "a bench that fails has nobody to answer")]

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use client::Client;
use grantd::clock::Clock;
use grantd::config::Config;
use grantd::jose::key_life::Retention;
use grantd::store::key_directory;
use request::{MULTIPART, Payload, URLENCODED};
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;

#[path = "support/client.rs"]
mod client;
#[path = "support/demo.rs"]
mod demo;
#[path = "support/request.rs"]
mod request;
#[path = "support/token.rs"]
mod token;

const GOAL: f64 = 0.93;
const ROUNDS: usize = 5;
const SERVED: &str = "0";
const LOADED: &str = "1";
/// The first argument of the child process that signs.
const SIGN: &str = "sign";
/// As long as the signing input of the demo client's token.
const MESSAGE: [u8; 470] = [b'x'; 470];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, seconds, keys] = &arguments[..]
        && mode == SIGN
    {
        let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
        println!("{}", sign_for(seconds, Path::new(keys)));
        return ExitCode::SUCCESS;
    }
    for tool in ["wrk", "taskset"] {
        let mut version = Command::new(tool);
        if version.arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("throughput: {tool} is missing: apt-get install wrk util-linux");
            return ExitCode::FAILURE;
        }
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

/// What one round gave.
struct Round {
    signatures: Rate,
    urlencoded: Rate,
    multipart: Rate,
}

#[derive(Clone, Copy)]
struct Rate {
    /// For each second on the clock.
    wall: f64,
    /// For each second that a processor worked on it.
    cpu: f64,
}

fn measure(rounds: usize, sign_seconds: f64, load_seconds: u64) -> Vec<Round> {
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    key_directory::generate(&config.keys, 2048, &retention, now).unwrap();
    let server = Server::start(&config, directory.path());
    // Connections, the log's thread and the processor's clock are warm after this.
    server.load(&URLENCODED, 1);

    let round = |_| Round {
        signatures: ring_alone(sign_seconds, &config.keys),
        urlencoded: server.load(&URLENCODED, load_seconds),
        multipart: server.load(&MULTIPART, load_seconds),
    };
    (0..rounds).map(round).collect()
}

fn print(rounds: &[Round]) {
    println!("RSA-2048, one core for the server, 32 connections; {} rounds.\n", rounds.len());
    println!("per second              median     (min - max)");
    row("ring alone", 0, rounds.iter().map(|round| round.signatures.wall));
    row("tokens, urlencoded", 0, rounds.iter().map(|round| round.urlencoded.wall));
    row("tokens, multipart", 0, rounds.iter().map(|round| round.multipart.wall));
    println!("\ntokens / ring's signatures, round by round (goal: {GOAL})");
    row("urlencoded", 3, rounds.iter().map(|round| round.urlencoded.wall / round.signatures.wall));
    row("multipart", 3, rounds.iter().map(|round| round.multipart.wall / round.signatures.wall));
    println!("\nthe same for each second of processor time");
    row("urlencoded", 3, rounds.iter().map(|round| round.urlencoded.cpu / round.signatures.cpu));
    row("multipart", 3, rounds.iter().map(|round| round.multipart.cpu / round.signatures.cpu));
}

fn row(name: &str, digits: usize, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
    println!("{name:<20} {median:>9.digits$}     ({min:.digits$} - {max:.digits$})");
}

/// ring's rate in a process of its own on the server's core.
fn ring_alone(seconds: f64, keys: &Path) -> Rate {
    let bench = std::env::current_exe().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", SERVED]).arg(bench).args([SIGN, &seconds.to_string()]).arg(keys);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "signing failed");
    let output = String::from_utf8(output.stdout).unwrap();
    let (wall, cpu) = output.trim().split_once(' ').unwrap();
    Rate { wall: wall.parse().unwrap(), cpu: cpu.parse().unwrap() }
}

/// Signs on this thread until the time is over, and says how many that makes in a second on the
/// clock and in a second of processor time.
fn sign_for(time: Duration, keys: &Path) -> String {
    let keys = key_directory::load(keys).unwrap();
    let pair = keys[0].pair();
    #[expect(clippy::disallowed_methods, reason = "blinding, as in service")]
    let random = SystemRandom::new();
    let mut signature = vec![0; pair.public().modulus_len()];
    let watch = Stopwatch::start("self");
    let mut signed = 0;
    while watch.started.elapsed() < time {
        pair.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut signature).unwrap();
        signed += 1;
    }
    let Rate { wall, cpu } = watch.rate(f64::from(signed));
    format!("{wall} {cpu}")
}

/// The program on one core, its log to nowhere.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(config: &Config, directory: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new("taskset");
        command.args(["-c", SERVED, env!("CARGO_BIN_EXE_grantd"), "serve", "--workers", "1"]);
        command.args(["--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0"]);
        command.args(["--signer", "ring", "--log-format", "json", "--log-level", "info"]);
        command.arg("--clients").arg(&config.clients).arg("--keys").arg(&config.keys);
        command.arg("--state").arg(&config.state).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { process: command.spawn().unwrap(), address };
        while Client::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the server did not start");
            sleep(Duration::from_millis(20));
        }
        server
    }

    /// Tokens for `seconds`, after one of them has been verified.
    fn load(&self, payload: &Payload, seconds: u64) -> Rate {
        let mut client = Client::connect(self.address).unwrap();
        let key_set = client.exchange(client::GET_KEY_SET).to_vec();
        let request = client::post(payload.content_type, payload.body);
        token::verify(client.exchange(&request), &key_set, "demo-client");

        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load");
        let mut wrk = Command::new("taskset");
        wrk.args(["-c", LOADED, "wrk", "-t1", "-c32", &format!("-d{seconds}s"), "-s"]);
        wrk.arg(scripts.join(payload.name).with_extension("lua"));
        wrk.arg(format!("http://{}/connect/token", self.address));
        let watch = Stopwatch::start(&self.process.id().to_string());
        let output = wrk.stderr(Stdio::inherit()).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "wrk failed: {report}");
        for fault in ["Non-2xx", "Socket errors"] {
            assert!(!report.contains(fault), "not every answer was a token: {report}");
        }

        // "4711 requests in 3.00s, 6.21MB read"
        let total = report.lines().find_map(|line| line.split_once(" requests in ")).unwrap().0;
        let Rate { cpu, .. } = watch.rate(total.trim().parse().unwrap());
        let wall = report.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
        let wall: f64 = wall.trim().parse().unwrap();
        assert!(wall > 0.0, "no token came: {report}");
        Rate { wall, cpu }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody listens on at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Time since the start, on the clock and of the processor.
struct Stopwatch {
    process: String,
    started: Instant,
    busy: f64,
}

impl Stopwatch {
    fn start(process: &str) -> Self {
        let busy = busy_seconds(process).unwrap();
        Self { process: process.to_owned(), started: Clock::instant(), busy }
    }

    fn rate(&self, count: f64) -> Rate {
        let wall = count / self.started.elapsed().as_secs_f64();
        Rate { wall, cpu: count / (busy_seconds(&self.process).unwrap() - self.busy) }
    }
}

/// Seconds that all threads of a process have run: the first number of each `schedstat`, in
/// nanoseconds.
fn busy_seconds(process: &str) -> io::Result<f64> {
    let mut seconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanoseconds = times.split(' ').next().and_then(|first| first.parse::<f64>().ok());
        seconds += nanoseconds.ok_or(io::ErrorKind::InvalidData)? / 1e9;
    }
    Ok(seconds)
}
