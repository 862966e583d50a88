//! Accepts connections, and drains them at shutdown. While the number of open connections is at its
//! limit, or the process is out of file descriptors, each new connection evicts an open one that
//! waits for its client.

mod open;

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use crate::clock::Clock;
use crate::config::StartupLimits;
use crate::http::accept::open::Open;
use crate::http::connection::{self, Handler, NotHttp, Phase, Watch};
use crate::http::descriptors::Reserve;
use crate::http::event_loops::EventLoops;
use crate::http::listener::{Accepted, Listener, Peer};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::once_a_second::OnceASecond;

/// The open connections of a server, from all its listeners.
pub(crate) struct Connections {
    clock: Clock,
    limits: StartupLimits,
    metrics: Arc<Metrics>,
    loops: Arc<EventLoops>,
    open: Mutex<Open>,
    is_draining: Arc<AtomicBool>,
    /// Notified when a connection has ended and its descriptor is closed.
    ended: Notify,
    /// Descriptors for connections that are accepted while the process is out of descriptors.
    reserve: Reserve,
    /// Limits log lines about peers that do not send HTTP/1: at most one line per second.
    not_http: OnceASecond,
    /// Limits log lines about connections that cannot be accepted.
    accept_errors: Arc<OnceASecond>,
}

impl Connections {
    pub(crate) fn new(
        clock: Clock,
        limits: StartupLimits,
        metrics: Arc<Metrics>,
        loops: Arc<EventLoops>,
    ) -> Self {
        metrics::init(&metrics.not_http, NotHttp::ALL.map(|it| it.words().0));
        Self {
            clock,
            limits,
            metrics,
            loops,
            open: Mutex::default(),
            is_draining: Arc::default(),
            ended: Notify::new(),
            reserve: Reserve::new(0),
            not_http: OnceASecond::default(),
            accept_errors: Arc::default(),
        }
    }

    /// Creates the connections of the admin listener. They have descriptors of their own, and share
    /// only the limit of log lines with the connections in `self`.
    pub(crate) fn for_admin(&self, metrics: Arc<Metrics>) -> Self {
        let limits = StartupLimits { connections: ADMIN_CONNECTIONS, ..self.limits.clone() };
        Self {
            reserve: Reserve::new(ADMIN_RESERVE),
            accept_errors: Arc::clone(&self.accept_errors),
            ..Self::new(self.clock.clone(), limits, metrics, EventLoops::accepting_only())
        }
    }

    /// Accepts connections and serves them until the sender of `stop` is dropped.
    pub(crate) async fn accept(
        self: Arc<Self>,
        listener: Listener,
        handler: Arc<impl Handler>,
        mut stop: watch::Receiver<()>,
    ) {
        let mut stop = pin!(async { while stop.changed().await.is_ok() {} });
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((accepted, peer)) => {
                    self.reserve.fill();
                    if self.make_room().await {
                        self.serve(accepted, peer, Arc::clone(&handler));
                    } else {
                        self.metrics.connections_shed.inc();
                        tokio::spawn(connection::reject(accepted.on_this_loop()));
                    }
                }
                Err(error) if is_connection_error(&error) => {
                    debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    if !self.reserve.give_up() {
                        self.log_accept_error(&error, OUT_OF_DESCRIPTORS);
                        if !self.evict_one().await {
                            sleep(RETRY_INTERVAL).await;
                        }
                    }
                }
                Err(error) => {
                    self.log_accept_error(&error, "cannot accept connections");
                    // An immediate retry would most likely fail again, and take processor time from
                    // the open connections.
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// If the number of open connections is at its limit, evicts one. Returns `false` if all of
    /// them wait for the server.
    async fn make_room(&self) -> bool {
        let is_full = self.open.lock().len() >= self.limits.connections;
        !is_full || self.evict_one().await
    }

    /// Evicts a connection that waits for its client, and waits until its descriptor is closed.
    /// Returns `false` if all connections wait for the server.
    ///
    /// Waits for [`RETRY_INTERVAL`] at most: the event loop of the connection may be busy, and a
    /// request that has become complete is answered first.
    async fn evict_one(&self) -> bool {
        let ended = self.ended.notified();
        let is_evicted = self.open.lock().evict_one(self.clock.instant());
        if is_evicted {
            self.metrics.connections_shed.inc();
            let _ = timeout(RETRY_INTERVAL, ended).await;
        }
        is_evicted
    }

    /// Makes every connection close after its next answer, and waits until all connections have
    /// ended or the drain time is over. Then closes the remaining connections, and returns how many
    /// of them had an unfinished request or answer.
    pub(crate) async fn drain(&self) -> usize {
        self.is_draining.store(true, Ordering::Relaxed);
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                if self.open.lock().len() == 0 {
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
                left.iter().for_each(Watch::end);
                // An idle connection has no request that could be lost.
                left.iter().filter(|watch| watch.phase() != Phase::Idle).count()
            }
        }
    }

    fn serve(self: &Arc<Self>, accepted: Accepted, peer: Peer, handler: Arc<impl Handler>) {
        let watch = Watch::new(&self.limits, self.clock.clone(), Arc::clone(&self.is_draining));
        let watch = Arc::new(watch);
        self.open.lock().insert(Arc::clone(&watch));
        self.metrics.connections.inc();
        // The guard is moved into the task, so it is dropped even if serving panics or never
        // begins.
        let guard = OpenGuard { watch, connections: Arc::clone(self) };
        let served = self.loops.serve(accepted, move |stream| async move {
            let (connections, watch) = (&guard.connections, Arc::clone(&guard.watch));
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
        let (kind, explanation) = not_http.words();
        self.metrics.not_http.with_label_values(&[kind]).inc();
        if let Some(more) = self.not_http.is_due(self.clock.now()) {
            warn!(%peer, kind, more = (more > 0).then_some(more), "{explanation}");
        }
    }

    /// Logs at most one line per second, because the listener is ready until the error is gone.
    fn log_accept_error(&self, error: &io::Error, explanation: &str) {
        if let Some(more) = self.accept_errors.is_due(self.clock.now()) {
            error!(%error, more = (more > 0).then_some(more), "{explanation}");
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}

/// Counts a connection as open until the guard is dropped.
struct OpenGuard {
    watch: Arc<Watch>,
    connections: Arc<Connections>,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let Self { watch, connections } = self;
        connections.metrics.connections.dec();
        // The reserve comes first: otherwise, another connection could use the descriptor.
        connections.reserve.fill();
        connections.open.lock().remove(watch);
        connections.ended.notify_waiters();
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

/// Whether `accept` failed because this process has as many open files as it may have. If the whole
/// system is out of files or memory, closing connections of this process would not help.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    return rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::MFILE);
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

const OUT_OF_DESCRIPTORS: &str = "out of file descriptors: for each new connection, one that waits \
                                  for its client is closed; raise the limit of open files \
                                  (LimitNOFILE= in the systemd unit, ulimit -n in a shell)";

/// The maximum number of open connections of the admin listener. It is low, so that these
/// connections fit into the descriptors that the public connections leave.
const ADMIN_CONNECTIONS: usize = 8;
/// The number of connections that the admin listener can accept even if the process is out of
/// descriptors.
const ADMIN_RESERVE: usize = 4;
/// The maximum time until the next attempt to accept a connection.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn connections_are_evicted_only_if_the_process_is_out_of_descriptors() {
        use rustix::io::Errno;
        for (error, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, false),
            (Errno::NOMEM, false),
            (Errno::NOBUFS, false),
        ] {
            assert_eq!(is_out_of_descriptors(&error.into()), expected, "{error}");
            assert!(!is_connection_error(&error.into()), "{error}");
        }
    }
}
