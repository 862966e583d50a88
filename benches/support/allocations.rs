//! Counts the heap allocations for each request over a real connection.
//!
//! The allocator counts all allocations of the process, so the client must not allocate, and no
//! other work may run in the process during a count. Reallocations count as allocations.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use grantd::clock::Clock;
use grantd::config::Config;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_store::StoredKeys;
use grantd::internal::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner};
use grantd::internal::telemetry::log_queue::{LogQueue, LogWriter};
use grantd::internal::telemetry::logging::json_lines;
use grantd::random::Random;
use grantd::server::{Listener, Server};
use multer::Multipart;
use ring::rand::SystemRandom;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::client::{self, Client};
use support::request::{MULTIPART, Payload, URLENCODED};
use support::{demo, empty_service, token};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tracing::Level;

#[path = "mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
pub(crate) mod support;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The number of requests after which connections, thread-locals, queues and hash tables have their
/// final size.
const WARM_UP: usize = 200;
const REQUESTS: usize = 1000;

/// The maximum number of allocations of a token request. The allocations of an empty service, of
/// multer and of ring are not included.
pub(crate) const GOAL: f64 = 8.0;

/// Heap allocations for each request, on average.
pub(crate) struct Allocations {
    pub(crate) encoding: &'static str,
    /// The allocations of hyper with a service that reads the body and answers 900 bytes.
    pub(crate) empty: f64,
    /// All allocations of a token request to grantd.
    pub(crate) token: f64,
    /// The allocations of multer; 0 for the URL encoding.
    pub(crate) multer: f64,
    /// The allocations of ring for one signature.
    pub(crate) ring: f64,
}

impl Allocations {
    /// Returns the allocations of grantd's own code, without those of hyper, multer and ring.
    pub(crate) fn own(&self) -> f64 {
        self.token - self.empty - self.multer - self.ring
    }
}

/// Measures both encodings, with logging on. May be called only once in a process, because it
/// installs the global tracing subscriber.
pub(crate) fn measure() -> [Allocations; 2] {
    let _log = install_log();
    let empty = Running::start(|listener, stop| async move {
        tokio::select! {
            () = empty_service::serve(listener) => {}
            _ = stop => {}
        }
    });
    let (_directory, config) = demo::demo();
    let [urlencoded, multipart] = of_tokens(&config);
    let ring = ring_alone(&config);
    let all = [(URLENCODED, urlencoded, 0.0), (MULTIPART, multipart, multer_alone())];
    let counts = all.map(|(payload, token, multer)| {
        let request = client::post(payload.content_type, payload.body);
        Allocations {
            encoding: payload.name,
            empty: count(&mut Client::connect(empty.address).unwrap(), &request),
            token,
            multer,
            ring,
        }
    });
    empty.stop();
    counts
}

/// Counts all allocations of a token request in both encodings to a server with this configuration.
pub(crate) fn of_tokens(config: &Config) -> [f64; 2] {
    let server = Server::new(config, Clock::system(), Random::system()).unwrap();
    let tokens = Running::start(|listener, stop| async move {
        let stop = async {
            let _ = stop.await;
        };
        server.serve(vec![Listener::from(listener)], None, stop).await;
    });
    let key_set = Client::connect(tokens.address).unwrap().exchange(client::GET_KEY_SET).to_vec();
    let counts = [URLENCODED, MULTIPART].map(|payload| {
        let request = client::post(payload.content_type, payload.body);
        let answer = Client::connect(tokens.address).unwrap().exchange(&request).to_vec();
        token::verify(&answer, &key_set, "demo-client");
        count(&mut Client::connect(tokens.address).unwrap(), &request)
    });
    tokens.stop();
    counts
}

/// Installs a subscriber that writes JSON lines to the program's log queue. The writer of the queue
/// discards the lines.
fn install_log() -> LogWriter {
    let (queue, writer) = LogQueue::to(io::sink()).unwrap();
    tracing::subscriber::set_global_default(json_lines(queue, Level::INFO)).unwrap();
    writer
}

fn count(client: &mut Client, request: &[u8]) -> f64 {
    for _ in 0..WARM_UP {
        client.exchange(request);
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        client.exchange(request);
    }
    per_request(&region)
}

/// Returns the number of allocations that multer makes to read [`MULTIPART`] once. As in
/// `form::multipart`, the body is one chunk and no read has to wait. The parts are dropped.
fn multer_alone() -> f64 {
    let Payload { content_type, body, .. } = MULTIPART;
    let boundary = content_type.split_once("boundary=").unwrap().1;
    let body = Bytes::from_static(body.as_bytes());
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        let once = stream::iter([Ok::<_, Infallible>(body.clone())]);
        let mut multipart = Multipart::new(once, boundary);
        let mut cx = Context::from_waker(Waker::noop());
        let mut parts = 0;
        while let Poll::Ready(Ok(Some(mut field))) = multipart.poll_next_field(&mut cx) {
            while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut field).poll_next(&mut cx) {}
            parts += 1;
        }
        assert_eq!(parts, 4);
    }
    per_request(&region)
}

/// Returns the number of allocations that ring makes for one signature with the server's key.
fn ring_alone(config: &Config) -> f64 {
    let keys = StoredKeys::read(&mut KeyDirectory::new(&config.live.keys)).keys;
    #[expect(clippy::disallowed_methods, reason = "blinding, as in service")]
    let random = SystemRandom::new();
    let mut signature = [0; MAX_SIGNATURE_BYTES];
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        SingleSigner::Ring
            .sign(&keys[0].1.private_key, &[b'x'; 470], &random, &mut signature)
            .unwrap();
    }
    per_request(&region)
}

#[expect(clippy::cast_precision_loss, reason = "counts of some thousand")]
fn per_request(region: &Region<'_, std::alloc::System>) -> f64 {
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / REQUESTS as f64
}

/// A server with an event loop on a thread of its own.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    fn start<S, F>(serve: S) -> Self
    where
        S: FnOnce(TcpListener, oneshot::Receiver<()>) -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, stopped).await;
            });
        });
        Self { address: address.recv().unwrap(), stop, thread }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
