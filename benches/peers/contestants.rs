//! The libraries and servers that are measured.

use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use grantd::config::Config;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_store::StoredKeys;
use serde_json::Value;

use crate::Plan;
use crate::install::{self, Authlib, OidcProvider};
use crate::support::client::{self, Client};
use crate::support::request::{MULTIPART, Payload, URLENCODED};
use crate::support::service::Service;
use crate::support::{cores, empty_server, empty_service, raw, token, wrk};

pub(crate) const RING: &str = "ring";
pub(crate) const AWS_LC: &str = "aws-lc-rs";
pub(crate) const BATCH: &str = "eight at once, as grantd signs";
pub(crate) const AUTO: &str = "grantd";
pub(crate) const REUSE: &str = "grantd, token_reuse";
pub(crate) const VALIDATE: &str = "grantd, /connect/validate";
pub(crate) const INTROSPECT: &str = "grantd, /connect/introspect";
pub(crate) const EMPTY: &str = "hyper, 900 bytes and nothing else";
pub(crate) const OIDC_PROVIDER: &str = "oidc-provider";

/// The duration of the load that brings a server without a just-in-time compiler to its full speed,
/// in seconds.
const WARM_UP: u64 = 1;
/// The duration of the load that brings a server with a just-in-time compiler to its full speed, in
/// seconds.
const COMPILER_WARM_UP: u64 = 10;

/// The kind of a contestant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A library without a server: an upper bound.
    Bare,
    Grantd,
    Other,
}

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// The version of the program and of its runtime, or empty.
    pub(crate) version: String,
    pub(crate) kind: Kind,
    /// Whether a signature is computed for each answer.
    pub(crate) signs: bool,
    /// The name of this contestant's reference; `None` if it has no reference. The reference is
    /// another contestant, which is measured just before and just after this contestant.
    pub(crate) beside: Option<&'static str>,
    way: Way,
}

enum Way {
    Library(&'static str),
    OpenSsl,
    Server {
        service: Rc<Service>,
        payload: Payload,
        answer: Answer,
        warm_up: u64,
    },
    /// Requests about the status of one token. `wrk` sends them with the script of this name.
    Status {
        service: Rc<Service>,
        script: &'static str,
    },
}

/// The expected answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A new token.
    New,
    /// The token of the previous answer.
    Same,
    /// The answer of the empty service.
    Empty,
}

impl Contestant {
    /// Signatures or answers per second.
    pub(crate) fn rate(&self, plan: &Plan, keys: &Path) -> f64 {
        match &self.way {
            Way::Library(signer) => raw::alone(signer, plan.raw_seconds, keys).rate,
            Way::OpenSsl => open_ssl_rate(plan.open_ssl_seconds),
            Way::Server { .. } => wrk::rate(&self.load(32, plan.load_seconds)),
            Way::Status { service, script } => status_rate(service, script, plan.load_seconds),
        }
    }

    /// Sends load until the server has reached its full speed.
    pub(crate) fn warm_up(&self) {
        if let Way::Server { warm_up, .. } = self.way {
            self.load(32, warm_up);
        }
    }

    /// The median latency over one connection, in seconds.
    pub(crate) fn median_latency(&self, plan: &Plan) -> f64 {
        let report = self.load(1, plan.load_seconds);
        let median =
            report.lines().find_map(|line| line.trim().strip_prefix("50%")).unwrap().trim();
        let unit = median.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let (number, unit) = median.split_at(unit);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            _ => panic!("wrk counts in {unit}: {report}"),
        };
        number.parse::<f64>().unwrap() * seconds
    }

    /// First checks the server: one answer of the empty service, or two answers of a token server.
    /// Then sends load and returns the report of `wrk`.
    fn load(&self, connections: u32, seconds: u64) -> String {
        let Way::Server { service, payload, answer, .. } = &self.way else {
            panic!("{} gives no answer", self.name);
        };
        let mut client = Client::connect(service.address).unwrap();
        let request = client::post(payload.content_type, payload.body);
        if *answer == Answer::Empty {
            assert_eq!(client.exchange(&request).len(), empty_service::BYTES);
        } else {
            let key_set = client.exchange(client::GET_KEY_SET).to_vec();
            let [first, second]: [Value; 2] = std::array::from_fn(|_| {
                token::verify(client.exchange(&request), &key_set, "demo-client")
            });
            let is_same = first["jti"] == second["jti"];
            assert_eq!(is_same, *answer == Answer::Same, "{}: {first} {second}", self.name);
        }
        wrk::load(service.address, payload, connections, seconds)
    }
}

/// Starts all servers and returns the contestants that this processor can run.
pub(crate) fn all(config: &Config, directory: &Path) -> Vec<Contestant> {
    let grantd = |signer| Rc::new(Service::grantd(config, directory, signer));
    let auto = grantd("auto");
    let keys = StoredKeys::read(&mut KeyDirectory::new(&config.live.keys)).keys;
    let has_batches = keys[0].1.private_key.batch.is_some();

    let mut all = vec![
        library(RING, RING, install::crate_version("ring")),
        library(AWS_LC, "aws-lc", install::crate_version("aws-lc-rs")),
        Contestant { way: Way::OpenSsl, ..library("OpenSSL", "", &open_ssl_version()) },
    ];
    if has_batches {
        all.push(library(BATCH, "batch", ""));
    }
    let bound = has_batches.then_some(BATCH);
    all.push(Contestant { beside: bound, ..token_server(AUTO, &auto, URLENCODED) });
    all.push(token_server("grantd, multipart", &auto, MULTIPART));
    if has_batches {
        all.push(token_server("grantd --signer batch", &grantd("batch"), URLENCODED));
    }
    all.push(token_server("grantd --signer aws-lc", &grantd("aws-lc"), URLENCODED));
    all.push(token_server("grantd --signer ring", &grantd("ring"), URLENCODED));
    all.push(oidc_provider());
    all.push(authlib());
    all.push(empty());
    all.push(reuse(config, directory));
    all.extend([(VALIDATE, "validate"), (INTROSPECT, "introspect")].map(|(name, script)| {
        let way = Way::Status { service: Rc::clone(&auto), script };
        Contestant { signs: false, beside: Some(EMPTY), ..own(name, way) }
    }));
    all
}

fn library(name: &'static str, signer: &'static str, version: &str) -> Contestant {
    let version = version.to_owned();
    let way = Way::Library(signer);
    Contestant { name, version, kind: Kind::Bare, signs: true, beside: None, way }
}

/// Returns a contestant of the kind [`Kind::Grantd`].
fn own(name: &'static str, way: Way) -> Contestant {
    let (version, kind) = (String::new(), Kind::Grantd);
    Contestant { name, version, kind, signs: true, beside: None, way }
}

fn token_server(name: &'static str, service: &Rc<Service>, payload: Payload) -> Contestant {
    let service = Rc::clone(service);
    own(name, Way::Server { service, payload, answer: Answer::New, warm_up: WARM_UP })
}

/// Starts grantd with a changed copy of the registry: the demo client's tokens are reused.
fn reuse(config: &Config, directory: &Path) -> Contestant {
    let mut registry: Value =
        serde_json::from_slice(&std::fs::read(&config.live.clients).unwrap()).unwrap();
    registry["clients"][0]["token_reuse"] = 1800.into();
    let clients = directory.join("reuse.json");
    std::fs::write(&clients, registry.to_string()).unwrap();
    let mut config = config.clone();
    config.live.clients = clients;
    let service = Rc::new(Service::grantd(&config, directory, "auto"));
    let answer = Answer::Same;
    let way = Way::Server { service, payload: URLENCODED, answer, warm_up: WARM_UP };
    Contestant { signs: false, beside: Some(EMPTY), ..own(REUSE, way) }
}

fn oidc_provider() -> Contestant {
    let peer = OidcProvider::install();
    let address = cores::free_address();
    let mut command = cores::on(cores::MEASURED, peer.node.to_str().unwrap());
    command.arg(&peer.script).arg(address.port().to_string());
    let service = Rc::new(Service::start(command, address));
    let answer = Answer::New;
    let way = Way::Server { service, payload: URLENCODED, answer, warm_up: COMPILER_WARM_UP };
    let version = peer.version();
    let kind = Kind::Other;
    Contestant { name: OIDC_PROVIDER, version, kind, signs: true, beside: None, way }
}

fn authlib() -> Contestant {
    let peer = Authlib::install();
    let address = cores::free_address();
    let program = peer.programs.join("granian");
    let mut command = cores::on(cores::MEASURED, program.to_str().unwrap());
    command.args(["--workers", "1", "--http", "1", "--no-ws", "--log-level", "warning"]);
    command.args(["--port", &address.port().to_string(), "app:app"]);
    command.current_dir(&peer.application);
    let service = Rc::new(Service::start(command, address));
    let answer = Answer::New;
    let way = Way::Server { service, payload: URLENCODED, answer, warm_up: WARM_UP };
    let (version, kind) = (peer.version(), Kind::Other);
    Contestant { name: "Authlib", version, kind, signs: true, beside: None, way }
}

/// Starts the empty hyper service in a process of its own.
fn empty() -> Contestant {
    let service = Rc::new(empty_server::start());
    let answer = Answer::Empty;
    let way = Way::Server { service, payload: URLENCODED, answer, warm_up: WARM_UP };
    let version = install::crate_version("hyper").to_owned();
    Contestant { name: EMPTY, version, kind: Kind::Bare, signs: false, beside: None, way }
}

/// Sends requests about the status of one valid token and returns the answers per second.
fn status_rate(service: &Service, script: &str, seconds: u64) -> f64 {
    let mut client = Client::connect(service.address).unwrap();
    let request = client::post(URLENCODED.content_type, URLENCODED.body);
    let answer: Value = serde_json::from_slice(client.exchange(&request)).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let form = format!("{}&token={token}", URLENCODED.body);
    let request = client::post_to("/connect/introspect", URLENCODED.content_type, &form);
    assert!(client.exchange(&request).starts_with(b"{\"active\":true,"));
    let path = format!("/connect/{script}");
    let mut wrk = wrk::command(cores::LOAD, service.address, script, &path, 32, seconds);
    wrk.env("TOKEN", token);
    wrk::rate(&wrk::report(wrk))
}

/// Returns the number of RSA-2048 signatures per second that `openssl speed` reports. The program
/// `openssl` signs with its own key.
fn open_ssl_rate(seconds: u64) -> f64 {
    let mut command = cores::on(cores::MEASURED, "openssl");
    command.args(["speed", "-elapsed", "-seconds", &seconds.to_string(), "rsa2048"]);
    let output = command.stderr(Stdio::null()).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let line = report.lines().find(|line| line.starts_with("rsa")).unwrap();
    let (_, figures) = line.split_once("bits").unwrap();
    // Fields that end in `s` are times in seconds. The first field that does not end in `s` is the
    // number of signatures per second.
    let rate = figures.split_whitespace().find(|figure| !figure.ends_with('s')).unwrap();
    rate.parse().unwrap()
}

fn open_ssl_version() -> String {
    let line = install::first_line(Command::new("openssl").arg("version"));
    line.split(' ').nth(1).unwrap().to_owned()
}
