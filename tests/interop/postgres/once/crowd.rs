//! Clients that use fresh assertions and proofs all the time, and used ones again at other servers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use grantd::clock::Clock;
use serde_json::{Value, json};

use super::history::{Attempt, Back, History, Window};
use crate::postgres::nodes::asserting;
use crate::support::home::secret_of;
use crate::support::postgres::Postgres;
use crate::support::program::Log;
use crate::support::registry::client_json;
use crate::support::status::ISSUER;
use crate::support::{
    Connection, Encoding, Program, Request, Signer, StopOnDrop, request_of, wait_until,
};

/// An assertion or a proof.
pub(super) struct Signed {
    pub(super) id: String,
    pub(super) signed_at: u64,
    pub(super) request: Request,
    /// The server that is asked first.
    home: usize,
}

/// Signs assertions and proofs.
pub(super) struct Maker {
    signer: Signer,
    next: AtomicU64,
}

impl Maker {
    pub(super) fn new() -> Self {
        Self { signer: Signer::es256(), next: AtomicU64::new(0) }
    }

    /// The clients of the assertions and of the proofs.
    pub(super) fn clients(&self) -> [Value; 2] {
        [asserting(&self.signer), client_json("proving", &json!({}))]
    }

    /// Makes an assertion (if the number of those so far is even) or a proof that says that it was
    /// signed at `signed_at`, and that ends `life` seconds later if it is an assertion.
    pub(super) fn make(&self, signed_at: u64, life: u64, home: usize) -> Signed {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("use-{number}");
        let request = if number.is_multiple_of(2) {
            self.assertion(&json!({ "jti": id, "iat": signed_at, "exp": signed_at + life }))
        } else {
            self.proof(&json!({ "jti": id, "iat": signed_at }))
        };
        Signed { id, signed_at, request, home }
    }

    /// Returns a request with an assertion that has these claims besides `iss`, `sub` and `aud`.
    pub(super) fn assertion(&self, claims: &Value) -> Request {
        let mut all = json!({ "iss": "asserting", "sub": "asserting", "aud": ISSUER });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({ "alg": self.signer.algorithm, "typ": "JWT" });
        let form = [
            ("grant_type", "client_credentials".to_owned()),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
            ),
            ("client_assertion", self.signer.sign(&header, &all)),
        ];
        Request::token(Encoding::Urlencoded, &form)
    }

    fn proof(&self, claims: &Value) -> Request {
        let url = format!("{ISSUER}/connect/token");
        let mut all = json!({ "htm": "POST", "htu": url });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let signer = &self.signer;
        let header = json!({ "typ": "dpop+jwt", "alg": signer.algorithm, "jwk": signer.jwk() });
        let secret = secret_of("proving");
        let form = request_of("proving", &secret, &[]);
        Request::token(Encoding::Urlencoded, &form).header("DPoP", signer.sign(&header, &all))
    }
}

/// Returns the time (Unix seconds).
pub(super) fn now() -> u64 {
    Clock::unix_micros() / 1_000_000
}

/// The clients of some servers, and their history.
pub(super) struct Crowd {
    name: &'static str,
    pub(super) maker: Maker,
    nodes: Mutex<Vec<SocketAddr>>,
    sent: Mutex<Vec<Arc<Signed>>>,
    history: Mutex<Vec<Attempt>>,
    windows: Mutex<Vec<Window>>,
    logs: Mutex<Vec<Arc<Log>>>,
    is_over: AtomicBool,
}

impl Crowd {
    /// The servers are known by their position in `nodes`.
    pub(super) fn new(name: &'static str, maker: Maker, nodes: &[SocketAddr]) -> Self {
        Self {
            name,
            maker,
            nodes: Mutex::new(nodes.to_vec()),
            sent: Mutex::default(),
            history: Mutex::default(),
            windows: Mutex::default(),
            logs: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn of<'n>(
        name: &'static str,
        maker: Maker,
        nodes: impl IntoIterator<Item = &'n Program>,
    ) -> Self {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
        let crowd = Self::new(name, maker, &addresses);
        nodes.iter().for_each(|node| crowd.watch(node));
        crowd
    }

    /// Looks in the log of a server whether the database was slow.
    pub(super) fn watch(&self, node: &Program) {
        self.logs.lock().unwrap().push(Arc::clone(&node.log));
    }

    /// Moves the clients of a server to the one that was started in its place.
    pub(super) fn move_to(&self, node: usize, again: &Program) {
        self.nodes.lock().unwrap()[node] = again.address;
        self.watch(again);
    }

    /// Runs `faults` while the clients go on. Then checks their history, and prints what it shows.
    pub(super) fn run(&self, faults: impl FnOnce()) {
        let count = self.nodes.lock().unwrap().len();
        thread::scope(|scope| {
            // A panic of the faults ends the clients, too.
            let stop = StopOnDrop(&self.is_over);
            (0..count).for_each(|node| drop(scope.spawn(move || self.go_on(node))));
            faults();
            drop(stop);
        });
        self.replay_all();
        let (history, windows) = (self.history.lock().unwrap(), self.windows.lock().unwrap());
        let is_late = |line: &Value| {
            let problem = line["error"].as_str().unwrap_or_default();
            problem.contains("did not answer within") || problem.contains("no answer from")
        };
        let is_slow = self.logs.lock().unwrap().iter().any(|log| log.count(is_late) > 0);
        let (attempts, windows) = (&history[..], &windows[..]);
        let history = History { name: self.name, attempts, windows, nodes: count, is_slow };
        println!("{}", history.check().unwrap_or_else(|problem| panic!("{problem}")));
    }

    /// Notes a window in which fresh assertions are refused: while `fault` runs, which returns when
    /// what was away is back, and for 15 s afterwards. `node`: by this server alone.
    pub(super) fn during(&self, name: &str, node: Option<usize>, fault: impl FnOnce() -> Back) {
        let from = Clock::unix_micros();
        let index = {
            let mut windows = self.windows.lock().unwrap();
            windows.push(Window { name: name.to_owned(), node, from, back: None });
            windows.len() - 1
        };
        let back = fault();
        self.windows.lock().unwrap()[index].back = Some(back);
        self.replay_all();
        let count = self.nodes.lock().unwrap().len();
        let nodes = node.map_or(0..count, |node| node..node + 1);
        let begin = Clock::unix_micros().max(back.at);
        for node in nodes {
            wait_until(|| self.accepts_since(node, begin));
        }
    }

    /// Waits until each server accepts what is fresh: the guard's birth is a window, too.
    pub(super) fn wait_for_the_first(&self, cluster: &Postgres) {
        self.during("birth of the guard", None, || back(cluster));
    }

    /// Whether the server has accepted some fresh ones of clients whose clocks are right.
    fn accepts_since(&self, node: usize, begin: u64) -> bool {
        let history = self.history.lock().unwrap();
        let is_it = |one: &&Attempt| {
            one.node == node
                && one.is_first
                && one.sent > begin
                && one.signed_at <= one.sent / 1_000_000
                && one.is_accepted()
        };
        history.iter().rev().filter(is_it).take(10).count() == 10
    }

    /// One client of the server `node`: uses what is fresh, and what other clients have used.
    fn go_on(&self, node: usize) {
        let mut turn = node;
        while !self.is_over.load(Ordering::Relaxed) {
            turn += 1;
            // Clocks of clients differ: some are ahead of the servers'.
            let ahead = if turn.is_multiple_of(4) { 9 } else { 0 };
            let fresh = Arc::new(self.maker.make(now() + ahead, 60, node));
            self.sent.lock().unwrap().push(Arc::clone(&fresh));
            self.attempt(node, &fresh, true);
            let others = {
                let sent = self.sent.lock().unwrap();
                // The newest one of another client, which may wait for its answer, and an old one.
                let newest = sent.iter().rev().find(|one| one.home != node).cloned();
                let old = sent.get(turn * 7919 % sent.len()).cloned();
                [newest, old.filter(|old| old.home != node)]
            };
            others.into_iter().flatten().for_each(|one| self.attempt(node, &one, false));
            thread::sleep(PAUSE);
        }
    }

    /// Uses everything of the last five minutes again, each at all other servers.
    pub(super) fn replay_all(&self) {
        let sent = self.sent.lock().unwrap().clone();
        let oldest = now() - 300;
        let count = self.nodes.lock().unwrap().len();
        thread::scope(|scope| {
            for node in 0..count {
                let old = sent.iter().filter(|one| one.home != node && one.signed_at > oldest);
                let old: Vec<_> = old.collect();
                scope.spawn(move || old.into_iter().for_each(|one| self.attempt(node, one, false)));
            }
        });
    }

    pub(super) fn attempt(&self, node: usize, signed: &Signed, is_first: bool) {
        let address = self.nodes.lock().unwrap()[node];
        let sent = Clock::unix_micros();
        let answer = Connection::open_if_listening(address).and_then(|mut connection| {
            connection.send_if_open(&signed.request.to_bytes());
            connection.read_if_answered()
        });
        let answer = answer.map(|answer| {
            let error = if answer.status == 200 {
                String::new()
            } else {
                answer.json()["error"].as_str().unwrap_or_default().to_owned()
            };
            (answer.status, error)
        });
        let answered = Clock::unix_micros();
        let (id, signed_at) = (signed.id.clone(), signed.signed_at);
        let attempt = Attempt { id, node, is_first, signed_at, sent, answered, answer };
        self.history.lock().unwrap().push(attempt);
    }
}

/// Returns the time by the clock of the database, and when its guard was born.
pub(super) fn back(cluster: &Postgres) -> Back {
    let micros = |time: &str, of: &str| {
        let sql = format!("select (extract(epoch from {time}) * 1000000)::bigint {of}");
        cluster.psql(&sql)
    };
    let at = micros("clock_timestamp()", "").parse().unwrap();
    let born = || micros("since", "from grantd.epoch");
    wait_until(|| !born().is_empty());
    Back { at, born: born().parse().unwrap() }
}

/// What was not the database's is back now.
pub(super) fn back_now() -> Back {
    Back { at: Clock::unix_micros(), born: 0 }
}

const PAUSE: Duration = Duration::from_millis(80);
