//! The server as a library in this process, with a clock that the test sets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use grantd::clock::{Clock, ManualClock};
use grantd::config::{Config, SignerChoice};
use grantd::random::Random;
use grantd::server::{Listener, Reloader, Server};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::support::Home;
use crate::support::home::SIGNER;

/// A running server on a thread.
pub(crate) struct Library {
    pub(crate) address: SocketAddr,
    pub(crate) clock: ManualClock,
    pub(crate) reloader: Arc<Reloader>,
    /// Returns the server's metrics in the Prometheus text format.
    metrics: Box<dyn Fn() -> String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) home: Home,
}

impl Library {
    /// Starts a server with the clock at `now` (Unix seconds) and random bytes that count upwards
    /// from 1.
    pub(crate) fn start(home: Home, issuer: &str, now: u64) -> Self {
        Self::start_with(home, issuer, now, Random::counting(1))
    }

    /// Starts a server with the clock at `now` (Unix seconds) and random bytes from `random`.
    pub(crate) fn start_with(home: Home, issuer: &str, now: u64, random: Random) -> Self {
        let mut config = Self::config(&home);
        config.live.issuer = Some(issuer.parse().expect("an issuer"));
        Self::start_configured(home, &config, now, random)
    }

    /// Returns the configuration of a server with the files in `home`.
    pub(crate) fn config(home: &Home) -> Config {
        let signer = std::env::var(SIGNER).map_or(SignerChoice::Auto, |name| {
            serde_json::from_value(name.into()).expect("a signer")
        });
        let mut config = Config::default();
        config.startup.state = home.path("state");
        config.startup.workers = 1;
        config.startup.signer = signer;
        config.live.clients = home.clients();
        config.live.keys = home.keys();
        config.live.allow_demo_clients = true;
        config
    }

    /// Starts a server with the clock at `now` (Unix seconds) and random bytes from `random`.
    pub(crate) fn start_configured(home: Home, config: &Config, now: u64, random: Random) -> Self {
        let (clock, manual) = Clock::manual(now);
        let server = Server::new(config, clock, random).expect("a server");
        let (reloader, metrics) = (server.reloader(), Arc::clone(server.metrics()));
        let metrics = Box::new(move || metrics.to_text().expect("metrics"));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Listener::from(TcpListener::from_std(socket).unwrap());
                let stopped = async {
                    // The server stops when the sender sends or is dropped.
                    let _ = stopped.await;
                };
                server.serve(vec![listener], None, stopped).await;
            });
        });
        Self {
            address,
            clock: manual,
            reloader,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
            home,
        }
    }

    /// Returns the value of a metric; `None` if it has no such series.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = (self.metrics)();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(line?.parse().expect("a number"))
    }

    /// Stops the server and starts another server with the same files.
    pub(crate) fn restart(mut self, issuer: &str, now: u64) -> Self {
        self.end();
        let home = std::mem::replace(&mut self.home, Home::without_key());
        Self::start(home, issuer, now)
    }

    fn end(&mut self) {
        self.stop.take();
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the server panicked");
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.end();
    }
}
