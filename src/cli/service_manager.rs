//! What systemd does for a server and wants to be told by it: sockets that are open before the
//! server is, when it is ready, that it is alive, and that it stops.
//!
//! Without systemd nothing here does anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::http::event_loops::EventLoops;
use crate::server::Listener;

/// The sockets that were handed over (`LISTEN_FDS`), none if none were. They stay open while one
/// server ends and the next begins, so nobody is refused in between.
///
/// To be called once, before there are other threads.
#[cfg(unix)]
pub(super) fn sockets() -> io::Result<Vec<Socket>> {
    let mut handed_over = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        let tcp = handed_over.take_tcp_listener(index).ok().flatten();
        let socket = match tcp {
            Some(socket) => Some(Socket::Tcp(socket)),
            None => handed_over.take_unix_listener(index)?.map(Socket::Unix),
        };
        sockets.extend(socket);
    }
    Ok(sockets)
}

#[cfg(not(unix))]
pub(super) fn sockets() -> io::Result<Vec<Socket>> {
    Ok(Vec::new())
}

/// A socket before there is an event loop.
pub(super) enum Socket {
    #[cfg(unix)]
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// The same on the event loop of this thread.
    pub(super) fn listen(self) -> io::Result<Listener> {
        match self {
            #[cfg(unix)]
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(socket).map(Listener::from)
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(socket).map(Listener::from)
            }
        }
    }
}

/// Says that requests are answered from now on.
pub(super) fn ready() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Ready]);
}

/// Says that the server has begun to stop.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Stopping]);
}

/// Says that all event loops are alive for as long as they are, twice as often as it has to be said.
pub(super) async fn keep_alive(loops: Arc<EventLoops>) {
    #[cfg(target_os = "linux")]
    if let Some(at_most) = sd_notify::watchdog_enabled() {
        let mut ticks = tokio::time::interval((at_most / 2).max(LEAST_INTERVAL));
        loop {
            ticks.tick().await;
            loops.ping().await;
            tell(&[sd_notify::NotifyState::Watchdog]);
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
fn tell(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how the server is");
    }
}

/// Whoever asks for more would be told of nothing else.
#[cfg(target_os = "linux")]
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
