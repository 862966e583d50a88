//! Accepting connections, counting them, and letting them finish at the end.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// All connections of a server.
pub(crate) struct Connections {
    limits: StartupLimits,
    metrics: Arc<Metrics>,
    loops: Arc<EventLoops>,
    open: Mutex<HashMap<u64, Arc<Watch>>>,
    next: AtomicU64,
    is_draining: Arc<AtomicBool>,
    ended: Notify,
    /// Lines about bytes that were no request.
    not_http: OnceASecond,
}

impl Connections {
    pub(crate) fn new(
        limits: StartupLimits,
        metrics: Arc<Metrics>,
        loops: Arc<EventLoops>,
    ) -> Arc<Self> {
        metrics.name_not_http(NotHttp::ALL.map(NotHttp::label));
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

    /// Accepts and serves until `stop`.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        listener: Listener,
        handler: Arc<impl Handler>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = pin!(stop);
        let mut last_complaint: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((accepted, peer)) => self.admit(accepted, peer, Arc::clone(&handler)),
                Err(error) if is_the_clients(&error) => debug!(%error, "a connection was lost"),
                Err(error) => {
                    // Most likely there are no file descriptors left. The connections that hold
                    // them go on; asking again at once would only burn the processor they need.
                    let now = Clock::instant();
                    if last_complaint.is_none_or(|then| now - then >= COMPLAINT_INTERVAL) {
                        error!(%error, "cannot accept connections; raise the limit of open files");
                        last_complaint = Some(now);
                    }
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Tells every connection that its next answer is the last, and waits until all have ended or
    /// the time for it is up. Says how many were left.
    pub(crate) async fn drain(&self) -> usize {
        self.is_draining.store(true, Ordering::Relaxed);
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                if self.lock().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let time = Duration::from_secs(self.limits.drain_seconds);
        match timeout(time, all_ended).await {
            Ok(()) => 0,
            Err(_elapsed) => {
                let left = self.lock();
                left.values().for_each(|watch| watch.evict());
                // One that waits for its client's next request lost nothing.
                left.values().filter(|watch| watch.phase() != Phase::Idle).count()
            }
        }
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, peer: Peer, handler: Arc<impl Handler>) {
        let mut open = self.lock();
        if open.len() >= self.limits.connections {
            self.metrics.connections_shed.inc();
            match slowest(&open) {
                // Its place is taken at once; it finds out at its next turn.
                Some((id, watch)) => {
                    watch.evict();
                    open.remove(&id);
                }
                None => {
                    tokio::spawn(connection::turn_away(accepted.here()));
                    return;
                }
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch::new(&self.limits, Arc::clone(&self.is_draining)));
        open.insert(id, Arc::clone(&watch));
        drop(open);

        self.metrics.connections.inc();
        // Dropped even if serving panics, or never begins.
        let place = Place { id, connections: Arc::clone(self) };
        let served = self.loops.serve(accepted, move |stream| async move {
            let connections = &place.connections;
            let served = connection::serve(stream, peer, watch, &connections.limits, &*handler);
            if let Err(not_http) = served.await {
                connections.note(not_http, peer);
            }
        });
        if let Err(error) = served {
            debug!(%error, "a connection was lost");
        }
    }

    /// Counts bytes that were no request, and logs some of them: a scanner sends many.
    fn note(&self, not_http: NotHttp, peer: Peer) {
        self.metrics.count_not_http(not_http.label());
        let now = Clock::unix_micros() / 1_000_000;
        if let Some(more) = self.not_http.is_due(now) {
            let (kind, more) = (not_http.label(), (more > 0).then_some(more));
            warn!(%peer, kind, more, "{}", not_http.explanation());
        }
    }

    /// The map is whole between any two statements, so a panic elsewhere cannot have broken it.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watch>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who goes when there is no room: the client that has kept the server waiting longest. Of those in
/// the middle of something, where an honest client takes milliseconds, and of those that idle, the
/// larger part gives one up: it is the one that fills the places. But first goes a client that has been
/// in the middle for [`SUSPICIOUS`]. A request that was read whole stays.
fn slowest(open: &HashMap<u64, Arc<Watch>>) -> Option<(u64, Arc<Watch>)> {
    type Slowest<'w> = Option<(Duration, u64, &'w Arc<Watch>)>;
    let [mut idle, mut in_the_middle]: [(usize, Slowest<'_>); 2] = [(0, None); 2];
    for (id, watch) in open {
        let (count, slowest) = match watch.phase() {
            Phase::Serving if watch.has_whole_request() => continue,
            Phase::Idle => &mut idle,
            Phase::Head | Phase::Serving | Phase::Writing => &mut in_the_middle,
        };
        *count += 1;
        let waited = watch.waited();
        if slowest.is_none_or(|(longest, ..)| waited > longest) {
            *slowest = Some((waited, *id, watch));
        }
    }
    let is_suspicious = in_the_middle.1.is_some_and(|(waited, ..)| waited >= SUSPICIOUS);
    let from = if is_suspicious || in_the_middle.0 > idle.0 {
        in_the_middle.1
    } else {
        idle.1.or(in_the_middle.1)
    };
    from.map(|(_, id, watch)| (id, Arc::clone(watch)))
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.lock().len()).finish_non_exhaustive()
    }
}

/// A connection's place among the open ones, given up when it ends.
struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.metrics.connections.dec();
        let mut open = self.connections.lock();
        open.remove(&self.id);
        if open.is_empty() {
            self.connections.ended.notify_waiters();
        }
    }
}

/// Errors of one connection that died in the queue, not of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);
/// No honest client takes this long over one request's bytes when others wait for its place.
const SUSPICIOUS: Duration = Duration::from_secs(1);
