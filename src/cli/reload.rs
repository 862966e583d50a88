//! When a running server reads its files again: at SIGHUP, and when one of them has changed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::cli::{CliError, ServeArgs};
use crate::config::{Config, ListenAddr};
use crate::server::Reloader;
use crate::store::file_watch::Stamp;

/// Where a server's configuration comes from, each time it is read.
pub(super) struct Source {
    args: ServeArgs,
    /// The addresses as they were written, where a port may be 0.
    as_configured: Vec<ListenAddr>,
    /// The addresses that became of them.
    in_force: Vec<ListenAddr>,
    /// How the files looked before they were read for the first time.
    at_start: Stamp,
}

impl Source {
    /// To be called before the files are read for the first time.
    pub(super) fn new(
        args: ServeArgs,
        as_configured: Vec<ListenAddr>,
        in_force: Vec<ListenAddr>,
    ) -> Self {
        let mut source = Self { args, as_configured, in_force, at_start: Stamp::default() };
        source.at_start = source.look();
        source
    }

    /// Reloads for ever. Any number of signals that come while it is at it are one.
    pub(super) fn reload(self, reloader: Reloader) -> Result<impl Future<Output = ()>, CliError> {
        let mut hangups =
            Hangups::new().map_err(|error| CliError(format!("no signals: {error}")))?;
        let mut known = self.at_start.clone();
        let this = Arc::new((self, reloader));
        Ok(async move {
            let mut looks = interval(BETWEEN_LOOKS);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = known.clone();
            loop {
                let by_signal = tokio::select! {
                    () = hangups.next() => true,
                    _ = looks.tick() => false,
                };
                let looking = Arc::clone(&this);
                let seen = spawn_blocking(move || {
                    let (source, reloader) = &*looking;
                    reloader.look_at_keys();
                    source.look()
                });
                // One that panicked has seen nothing new.
                let seen = seen.await.unwrap_or_else(|_| last.clone());
                // Half of a file is not read: only what has stood still for a while.
                let has_settled = seen == last;
                last = seen.clone();
                if !by_signal && (seen == known || !has_settled) {
                    continue;
                }
                known = seen;
                info!(
                    reason = if by_signal { "SIGHUP" } else { "a file has changed" },
                    "reading again"
                );
                let reading = Arc::clone(&this);
                let read = spawn_blocking(move || {
                    let (source, reloader) = &*reading;
                    match source.resolve() {
                        // It has logged what was wrong.
                        Ok(config) => drop(reloader.reload(config)),
                        Err(error) => reloader.refused(&error.0),
                    }
                });
                // One that panicked has changed nothing.
                let _ = read.await;
            }
        })
    }

    fn resolve(&self) -> Result<Config, CliError> {
        let mut config = self.args.clone().resolve()?;
        if config.listen == self.as_configured {
            config.listen.clone_from(&self.in_force);
        }
        Ok(config)
    }

    /// How the files look at this moment that the configuration names at this moment.
    fn look(&self) -> Stamp {
        let config = self.resolve().ok();
        let mut paths: Vec<&Path> = self.args.config.as_deref().into_iter().collect();
        if let Some(config) = &config {
            paths.extend([&*config.clients, &*config.keys]);
        }
        Stamp::of(&paths)
    }
}

/// SIGHUP, where there are such signals.
struct Hangups {
    #[cfg(unix)]
    signals: tokio::signal::unix::Signal,
}

impl Hangups {
    fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if self.signals.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// What is written at once stands still for so long, and nobody waits much longer for a new client.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
