//! The interface to systemd: socket activation, and notifications that the server is ready, alive
//! or stopping.
//!
//! Without systemd, the functions of this module do nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::http::event_loops::EventLoops;
use crate::server::Listener;

/// Returns the sockets that systemd has passed (`LISTEN_FDS`), registered with the event loop of this
/// thread. systemd keeps these sockets open across a restart of the server, so that no connection is
/// refused.
///
/// Must be called once, before other threads are started.
#[cfg(unix)]
pub(super) fn sockets() -> io::Result<Vec<Listener>> {
    let mut handed_over = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        if let Some(socket) = handed_over.take_tcp_listener(index).ok().flatten() {
            socket.set_nonblocking(true)?;
            sockets.push(tokio::net::TcpListener::from_std(socket)?.into());
        } else if let Some(socket) = handed_over.take_unix_listener(index)? {
            socket.set_nonblocking(true)?;
            sockets.push(tokio::net::UnixListener::from_std(socket)?.into());
        }
    }
    Ok(sockets)
}

#[cfg(not(unix))]
pub(super) fn sockets() -> io::Result<Vec<Listener>> {
    Ok(Vec::new())
}

/// Notifies systemd that the server is ready.
pub(super) fn ready() {
    #[cfg(target_os = "linux")]
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Notifies systemd that the server has begun to stop.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    notify(&[sd_notify::NotifyState::Stopping]);
}

/// Sends watchdog notifications to systemd, twice per watchdog interval, while all event loops
/// respond.
pub(super) async fn keep_alive(loops: Arc<EventLoops>) {
    #[cfg(target_os = "linux")]
    if let Some(at_most) = sd_notify::watchdog_enabled() {
        let mut ticks = tokio::time::interval((at_most / 2).max(LEAST_INTERVAL));
        loop {
            ticks.tick().await;
            loops.ping().await;
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

/// The shortest interval between two watchdog notifications.
#[cfg(target_os = "linux")]
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
