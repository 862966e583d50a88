//! How much of one core's signatures become tokens?
//!
//! Core 0 signs with ring and nothing else; then core 0 serves and core 1 asks, with `wrk` and 32
//! connections. Machines drift by tens of per cent from minute to minute, so both are measured by
//! turns and each pair has a ratio of its own. Beside it stands what no drift can touch: the share
//! of the server's processor time that its signing threads had.
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
use std::time::Duration;

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

/// Tokens in one encoding, and ring alone just before.
struct Pair {
    /// Signatures a second.
    ring: f64,
    /// Tokens a second.
    tokens: f64,
    /// The signing threads' part of the server's processor time.
    share: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.tokens / self.ring
    }
}

/// All pairs of both encodings signed by ring, and of one as the machine signs best.
type Measured = [(String, Vec<Pair>); 3];

fn measure(rounds: usize, sign_seconds: f64, load_seconds: u64) -> Measured {
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    key_directory::generate(&config.keys, 2048, &retention, now).unwrap();
    let servers = ["ring", "auto"].map(|signer| {
        let server = Server::start(&config, directory.path(), signer);
        // Connections, the log's thread and the processor's clock are warm after this.
        server.load(&URLENCODED, 1);
        server
    });
    let [ring_server, auto_server] = &servers;

    let loads = [(ring_server, URLENCODED), (ring_server, MULTIPART), (auto_server, URLENCODED)];
    let mut measured = loads
        .each_ref()
        .map(|(server, load)| (format!("{}, {}", load.name, server.signer), vec![]));
    for _ in 0..rounds {
        for ((server, payload), (_, pairs)) in loads.iter().zip(&mut measured) {
            let ring = ring_alone(sign_seconds, &config.keys);
            let (tokens, share) = server.load(payload, load_seconds);
            pairs.push(Pair { ring, tokens, share });
        }
    }
    measured
}

fn print(measured: &Measured) {
    println!("RSA-2048, one core for the server, 32 connections; median (min - max)");
    println!("\na second");
    let all = measured.iter().flat_map(|(_, pairs)| pairs);
    row("ring alone", 0, all.map(|pair| pair.ring));
    for (name, pairs) in measured {
        row(name, 0, pairs.iter().map(|pair| pair.tokens));
    }
    println!("\ntokens / signatures of ring alone (goal with ring: {GOAL})");
    for (name, pairs) in measured {
        row(name, 3, pairs.iter().map(Pair::ratio));
    }
    println!("\nsigning threads' share of the server's processor time");
    for (name, pairs) in measured {
        row(name, 3, pairs.iter().map(|pair| pair.share));
    }
}

fn row(name: &str, digits: usize, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
    println!("{name:<18} {median:>7.digits$}  ({min:.digits$} - {max:.digits$})");
}

/// ring's signatures a second, in a process of its own on the server's core.
fn ring_alone(seconds: f64, keys: &Path) -> f64 {
    let bench = std::env::current_exe().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", SERVED]).arg(bench).args([SIGN, &seconds.to_string()]).arg(keys);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "signing failed");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Signs on this thread until the time is over, and says how many signatures that makes a second.
fn sign_for(time: Duration, keys: &Path) -> f64 {
    let keys = key_directory::load(keys).unwrap();
    let pair = keys[0].ring();
    #[expect(clippy::disallowed_methods, reason = "blinding, as in service")]
    let random = SystemRandom::new();
    let mut signature = vec![0; pair.public().modulus_len()];
    let started = Clock::instant();
    let mut signed = 0;
    while started.elapsed() < time {
        pair.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut signature).unwrap();
        signed += 1;
    }
    f64::from(signed) / started.elapsed().as_secs_f64()
}

/// The program on one core, its log to nowhere.
struct Server {
    signer: &'static str,
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(config: &Config, directory: &Path, signer: &'static str) -> Self {
        let address = free_address();
        let mut command = Command::new("taskset");
        command.args(["-c", SERVED, env!("CARGO_BIN_EXE_grantd"), "serve", "--workers", "1"]);
        command.args(["--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0"]);
        command.args(["--signer", signer, "--log-format", "json", "--log-level", "info"]);
        command.arg("--clients").arg(&config.clients).arg("--keys").arg(&config.keys);
        command.arg("--state").arg(&config.state).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { signer, process: command.spawn().unwrap(), address };
        while Client::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the server did not start");
            sleep(Duration::from_millis(20));
        }
        server
    }

    /// Tokens a second and the signing threads' share, for `seconds`, after one token has been
    /// verified.
    fn load(&self, payload: &Payload, seconds: u64) -> (f64, f64) {
        let mut client = Client::connect(self.address).unwrap();
        let key_set = client.exchange(client::GET_KEY_SET).to_vec();
        let request = client::post(payload.content_type, payload.body);
        token::verify(client.exchange(&request), &key_set, "demo-client");

        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load");
        let mut wrk = Command::new("taskset");
        wrk.args(["-c", LOADED, "wrk", "-t1", "-c32", &format!("-d{seconds}s"), "-s"]);
        wrk.arg(scripts.join(payload.name).with_extension("lua"));
        wrk.arg(format!("http://{}/connect/token", self.address));
        let before = self.busy().unwrap();
        let output = wrk.stderr(Stdio::inherit()).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "wrk failed: {report}");
        for fault in ["Non-2xx", "Socket errors"] {
            assert!(!report.contains(fault), "not every answer was a token: {report}");
        }

        let after = self.busy().unwrap();
        let rate = report.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
        let rate: f64 = rate.trim().parse().unwrap();
        assert!(rate > 0.0, "no token came: {report}");
        (rate, (after.signing - before.signing) / (after.all - before.all))
    }

    /// What the threads have run so far: the first number of each `schedstat`, in nanoseconds.
    fn busy(&self) -> io::Result<Busy> {
        let mut busy = Busy::default();
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
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

#[derive(Default)]
struct Busy {
    all: f64,
    signing: f64,
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
