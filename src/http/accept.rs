//! Accepts connections, and drains them at shutdown. While the number of open connections is at its
//! limit, each new connection evicts an open one, or is rejected if all open connections wait for
//! the server.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use crate::clock::Clock;
use crate::config::StartupLimits;
use crate::http::connection::{self, Handler, NotHttp, Phase, Watch};
use crate::http::event_loops::EventLoops;
use crate::http::listener::{Accepted, Listener, Peer};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::once_a_second::OnceASecond;

/// The open connections of a server, from all its listeners.
pub(crate) struct Connections {
    limits: StartupLimits,
    metrics: Arc<Metrics>,
    loops: Arc<EventLoops>,
    open: Mutex<HashMap<u64, Arc<Watch>>>,
    next: AtomicU64,
    is_draining: Arc<AtomicBool>,
    /// Notified when the last open connection has ended.
    ended: Notify,
    /// Limits log lines about peers that do not send HTTP/1: at most one line per second.
    not_http: OnceASecond,
}

impl Connections {
    pub(crate) fn new(
        limits: StartupLimits,
        metrics: Arc<Metrics>,
        loops: Arc<EventLoops>,
    ) -> Arc<Self> {
        metrics.init_not_http(NotHttp::ALL.map(NotHttp::label));
        Arc::new(Self {
            limits,
            metrics,
            loops,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            is_draining: Arc::default(),
            ended: Notify::new(),
            not_http: OnceASecond::default(),
        })
    }

    /// Accepts connections and serves them until `stop` completes.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        listener: Listener,
        handler: Arc<impl Handler>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = pin!(stop);
        let mut last_error_log: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((accepted, peer)) => self.admit(accepted, peer, Arc::clone(&handler)),
                Err(error) if is_connection_error(&error) => {
                    debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => {
                    // Most likely the process is out of file descriptors. The accept loop pauses,
                    // because an immediate retry would fail again and take processor time from the
                    // open connections.
                    let now = Clock::instant();
                    if last_error_log.is_none_or(|then| now - then >= ERROR_LOG_INTERVAL) {
                        error!(%error, "cannot accept connections; raise the limit of open files");
                        last_error_log = Some(now);
                    }
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Makes every connection close after its next answer, and waits until all connections have
    /// ended or the drain time is over. Then closes the remaining connections, and returns how many
    /// of them had an unfinished request or answer.
    pub(crate) async fn drain(&self) -> usize {
        self.is_draining.store(true, Ordering::Relaxed);
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                if self.open.lock().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let time = Duration::from_secs(self.limits.drain_seconds);
        match timeout(time, all_ended).await {
            Ok(()) => 0,
            Err(_elapsed) => {
                let left = self.open.lock();
                left.values().for_each(|watch| watch.evict());
                // An idle connection has no request that could be lost.
                left.values().filter(|watch| watch.phase() != Phase::Idle).count()
            }
        }
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, peer: Peer, handler: Arc<impl Handler>) {
        let mut open = self.open.lock();
        if open.len() >= self.limits.connections {
            self.metrics.connections_shed.inc();
            match eviction_candidate(&open) {
                // The connection ends at its next poll. Its entry is removed now to make room for
                // the new connection.
                Some((id, watch)) => {
                    watch.evict();
                    open.remove(&id);
                }
                None => {
                    tokio::spawn(connection::reject(accepted.on_this_loop()));
                    return;
                }
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch::new(&self.limits, Arc::clone(&self.is_draining)));
        open.insert(id, Arc::clone(&watch));
        drop(open);

        self.metrics.connections.inc();
        // The guard is moved into the task, so it is dropped even if serving panics or never
        // begins.
        let guard = OpenGuard { id, connections: Arc::clone(self) };
        let served = self.loops.serve(accepted, move |stream| async move {
            let connections = &guard.connections;
            let served = connection::serve(stream, peer, watch, &connections.limits, &*handler);
            if let Err(not_http) = served.await {
                connections.record_not_http(not_http, peer);
            }
        });
        if let Err(error) = served {
            debug!(%error, "cannot hand a connection to its event loop");
        }
    }

    /// Counts a connection on which the peer did not send HTTP/1. Logs at most one line per second
    /// about such connections, because a scanner opens many.
    fn record_not_http(&self, not_http: NotHttp, peer: Peer) {
        self.metrics.count_not_http(not_http.label());
        let now = Clock::unix_micros() / 1_000_000;
        if let Some(more) = self.not_http.is_due(now) {
            let (kind, more) = (not_http.label(), (more > 0).then_some(more));
            warn!(%peer, kind, more, "{}", not_http.explanation());
        }
    }
}

/// Chooses the connection to evict when the limit is reached; `None` if all connections wait for
/// the server.
///
/// A connection that waits for its client is either idle (between requests) or busy (within a
/// request or its answer). If a busy connection has waited for [`SUSPICIOUS`] or longer, the busy
/// connection that has waited longest is chosen. Otherwise, the larger of the two groups is used,
/// and the connection of this group that has waited longest is chosen.
fn eviction_candidate(open: &HashMap<u64, Arc<Watch>>) -> Option<(u64, Arc<Watch>)> {
    type LongestWait<'w> = Option<(Duration, u64, &'w Arc<Watch>)>;
    let [mut idle, mut busy]: [(usize, LongestWait<'_>); 2] = [(0, None); 2];
    for (id, watch) in open {
        let (count, slowest) = match watch.phase() {
            // This connection waits for the server, so it is not a candidate.
            Phase::Serving if watch.has_whole_request() => continue,
            Phase::Idle => &mut idle,
            Phase::Head | Phase::Serving | Phase::Writing => &mut busy,
        };
        *count += 1;
        let waited = watch.waited();
        if slowest.is_none_or(|(longest, ..)| waited > longest) {
            *slowest = Some((waited, *id, watch));
        }
    }
    let is_suspicious = busy.1.is_some_and(|(waited, ..)| waited >= SUSPICIOUS);
    let candidate = if is_suspicious || busy.0 > idle.0 { busy.1 } else { idle.1.or(busy.1) };
    candidate.map(|(_, id, watch)| (id, Arc::clone(watch)))
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}

/// Counts a connection as open until the guard is dropped.
struct OpenGuard {
    id: u64,
    connections: Arc<Connections>,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.connections.metrics.connections.dec();
        let mut open = self.connections.open.lock();
        open.remove(&self.id);
        if open.is_empty() {
            self.connections.ended.notify_waiters();
        }
    }
}

/// Whether `accept` failed because the connection ended before it was accepted, and not because of
/// the listener.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(1);
/// A busy connection that has waited this long or longer is evicted before idle connections. An
/// honest client needs less time to send a request or to read an answer.
const SUSPICIOUS: Duration = Duration::from_secs(1);
