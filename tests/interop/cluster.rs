//! The files in `deploy/cluster`, tested with the programs that read them: nginx over three nodes,
//! PgBouncer, a primary and a standby.

mod backup;
mod databases;
mod faults;
mod nginx;
mod page;
mod survival;

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crate::deploy::text_of;
use crate::postgres::store::MASTER_KEY;
use crate::support::home::{secret_of, set_mode};
use crate::support::ports::free_port;
use crate::support::status::ISSUER;
use crate::support::{
    Connection, Encoding, Home, Program, Request, StopOnDrop, request_of, wait_until,
};

/// A node behind nginx with the shipped configuration. It has the same address after each start.
pub(crate) struct Node {
    pub(crate) program: Program,
}

impl Node {
    /// Starts a node with the store at `url`. `office` has the master key, and the authority of the
    /// database's certificate; `None` if it is [`MASTER_KEY`], and the database has none.
    pub(crate) fn start(url: &str, office: Option<&Home>) -> Self {
        let key = |office: &Home| fs::read_to_string(office.path("master.key")).unwrap();
        let key = office.map_or_else(|| MASTER_KEY.to_owned(), key);
        let authority = office.map(|office| office.path("database-ca.pem"));
        let authority = authority.map(|file| format!("ca_file = \"{}\"\n", file.display()));
        let edits = [
            ("https://auth.example.com", ISSUER),
            ("/var/lib/grantd/state", "state"),
            ("/etc/grantd/admin-token", "admin-token"),
            ("/etc/grantd/master.key", "master.key"),
            ("ca_file = \"/etc/grantd/database-ca.pem\"\n", &*authority.unwrap_or_default()),
            ("\"10.0.0.5\"", "\"127.0.0.1\""),
            (URL, url),
        ];
        Self::configured(&text_of("cluster/grantd.toml"), &edits, &key)
    }

    /// Starts a node with this configuration, in which the first text of each pair is replaced by the
    /// second, and this master key.
    pub(crate) fn configured(configuration: &str, edits: &[(&str, &str)], key: &str) -> Self {
        let home = Home::without_key();
        set_mode(&home.write("master.key", key), 0o600);
        set_mode(&home.write("admin-token", &secret_of("admin")), 0o600);
        let mut text = configuration.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, to);
        }
        set_mode(&home.write("grantd.toml", &text), 0o600);
        Self::run(home, SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    pub(crate) fn run(home: Home, address: SocketAddr) -> Self {
        let listen = address.to_string();
        Self { program: Program::start(home, &["--config", "grantd.toml", "--listen", &listen]) }
    }

    pub(crate) fn three(url: &str, office: Option<&Home>) -> [Self; 3] {
        std::thread::scope(|scope| {
            let starts = [(); 3].map(|()| scope.spawn(|| Self::start(url, office)));
            starts.map(|start| start.join().unwrap())
        })
    }

    /// Kills the node, as `kill -9` does, if it still runs, and starts it again.
    pub(crate) fn start_again(self) -> Self {
        let address = self.program.address;
        Self::run(self.program.into_home(), address)
    }
}

/// The URL in `grantd.toml`.
const URL: &str =
    "postgres://grantd_node@db1.example:5432,db2.example:5432/grantd?passfile=/etc/grantd/pgpass";

/// Clients that ask for tokens with a secret all the time. Each request must be granted.
pub(crate) struct Load {
    address: SocketAddr,
    client: &'static str,
    /// The answers that each client has got.
    answers: [AtomicUsize; 4],
    is_over: AtomicBool,
}

impl Load {
    pub(crate) fn on(address: SocketAddr, client: &'static str) -> Self {
        Self { address, client, answers: Default::default(), is_over: AtomicBool::new(false) }
    }

    /// Starts the clients. They ask until the returned value is dropped.
    pub(crate) fn start<'l>(&'l self, scope: &'l Scope<'l, '_>) -> StopOnDrop<'l> {
        for answers in &self.answers {
            scope.spawn(|| self.ask(answers));
        }
        StopOnDrop(&self.is_over)
    }

    fn ask(&self, answers: &AtomicUsize) {
        let _stop = StopOnDrop(&self.is_over);
        let secret = secret_of(self.client);
        let form = request_of(self.client, &secret, &[]);
        let request = Request::token(Encoding::Urlencoded, &form);
        let mut kept = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut connection = kept.take().unwrap_or_else(|| Connection::open(self.address));
            let answer = connection.ask(&request);
            assert_eq!(answer.status, 200, "{answer:?}");
            answers.fetch_add(1, Ordering::Relaxed);
            kept = (answer.header("connection") != Some("close")).then_some(connection);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until each client has got this many further answers.
    pub(crate) fn go_on(&self, more: usize) {
        let before = self.answers.each_ref().map(|answers| answers.load(Ordering::Relaxed));
        wait_until(|| {
            assert!(!self.is_over.load(Ordering::Relaxed), "a request has failed");
            let mut now = self.answers.iter().zip(before);
            now.all(|(answers, before)| answers.load(Ordering::Relaxed) >= before + more)
        });
    }
}
