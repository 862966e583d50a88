//! The files in `deploy/cluster`, tested with the programs that read them: nginx over three nodes,
//! PgBouncer, a primary and a standby.

mod nginx;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    answers: AtomicUsize,
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
        Self { address, client, answers: AtomicUsize::new(0), is_over: AtomicBool::new(false) }
    }

    pub(crate) fn until_dropped(&self) -> StopOnDrop<'_> {
        StopOnDrop(&self.is_over)
    }

    /// Asks until the load is over.
    pub(crate) fn ask(&self) {
        let _stop = self.until_dropped();
        let secret = secret_of(self.client);
        let form = request_of(self.client, &secret, &[]);
        let request = Request::token(Encoding::Urlencoded, &form);
        let mut kept = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut connection = kept.take().unwrap_or_else(|| Connection::open(self.address));
            let answer = connection.ask(&request);
            assert_eq!(answer.status, 200, "{answer:?}");
            self.answers.fetch_add(1, Ordering::Relaxed);
            kept = (answer.header("connection") != Some("close")).then_some(connection);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for this many further answers.
    pub(crate) fn go_on(&self, answers: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until(|| {
            assert!(!self.is_over.load(Ordering::Relaxed), "a request has failed");
            self.answers.load(Ordering::Relaxed) >= before + answers
        });
    }
}
