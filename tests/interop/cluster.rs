//! The files in `deploy/cluster`, tested with the programs that read them: nginx over three nodes,
//! PgBouncer, a primary and a standby.

mod nginx;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crate::postgres::nodes::start_in;
use crate::support::home::secret_of;
use crate::support::ports::free_port;
use crate::support::{Connection, Encoding, Home, Program, Request, request_of, wait_until};

/// A node behind nginx, which has the same address after each start.
pub(crate) struct Node {
    pub(crate) program: Program,
    url: String,
}

impl Node {
    pub(crate) fn start(url: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { program: Self::run(Home::without_key(), url, address), url: url.to_owned() }
    }

    fn run(home: Home, url: &str, address: SocketAddr) -> Program {
        let listen = ["--listen", &*address.to_string()];
        start_in(home, url, &listen, &[("GRANTD_TRUSTED_PROXIES", "127.0.0.1")])
    }

    pub(crate) fn three(url: &str) -> [Self; 3] {
        std::thread::scope(|scope| {
            let starts = [(); 3].map(|()| scope.spawn(|| Self::start(url)));
            starts.map(|start| start.join().unwrap())
        })
    }

    /// Kills the node, as `kill -9` does, if it still runs, and starts it again.
    pub(crate) fn start_again(self) -> Self {
        let Self { program, url } = self;
        let address = program.address;
        Self { program: Self::run(program.into_home(), &url, address), url }
    }
}

/// Clients that ask for tokens with a secret all the time. Each request must be granted.
pub(crate) struct Load {
    address: SocketAddr,
    client: &'static str,
    /// The answers that each client has got.
    answers: [AtomicUsize; 4],
    is_over: AtomicBool,
}

/// Ends the load when dropped, even by a panic.
pub(crate) struct StopOnDrop<'l>(&'l AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
