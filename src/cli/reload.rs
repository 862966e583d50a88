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

/// Everything that makes a running server read its files again.
pub(super) struct Reloads {
    source: Source,
    hangups: Hangups,
    /// How the files looked before they were read for the first time.
    at_start: Stamp,
}

impl Reloads {
    /// To be called before the files are read for the first time. From then on a signal that comes
    /// too early is not the end of the process.
    pub(super) fn of(source: Source) -> Result<Self, CliError> {
        let hangups = Hangups::new().map_err(|error| CliError(format!("no signals: {error}")))?;
        let at_start = source.look();
        Ok(Self { source, hangups, at_start })
    }

    /// Reloads for ever. Any number of signals that come while it is at it are one.
    pub(super) async fn run(self, reloader: Arc<Reloader>) {
        let Self { source, mut hangups, at_start: mut known } = self;
        let mut known_keys = reloader.key_files();
        let this = Arc::new((source, reloader));
        let mut looks = interval(BETWEEN_LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = (known.clone(), known_keys.clone());
        let mut retry_in = None;
        loop {
            let by_signal = tokio::select! {
                () = hangups.next() => true,
                _ = looks.tick() => false,
            };
            let looking = Arc::clone(&this);
            let seen = spawn_blocking(move || {
                let (source, reloader) = &*looking;
                reloader.look_at_keys();
                (source.look(), reloader.key_files().again())
            });
            // One that panicked has seen nothing new.
            let seen = seen.await.unwrap_or_else(|_| last.clone());
            // Half of a file is not read: only what has stood still for a while.
            let is_other = seen.0 != known || seen.1 != known_keys;
            let has_changed = is_other && seen == last;
            last = seen.clone();
            retry_in = retry_in.map(|looks: u32| looks.saturating_sub(1));
            let reason = match retry_in {
                _ if by_signal => "SIGHUP",
                _ if has_changed => "a file has changed",
                Some(0) => "what was wrong may have been mended",
                _ => continue,
            };
            (known, known_keys) = seen;
            info!(reason, "reading again");
            let reading = Arc::clone(&this);
            let read = spawn_blocking(move || {
                let (source, reloader) = &*reading;
                match source.resolve() {
                    // It has logged what was wrong.
                    Ok(config) => reloader.reload(config).is_ok(),
                    Err(error) => {
                        reloader.refused(&error.0);
                        false
                    }
                }
            });
            // One that panicked has changed nothing.
            let is_right = read.await.unwrap_or(false);
            if is_right {
                // Others may be named now; they were looked at before they were read.
                known_keys = this.1.key_files();
            }
            retry_in = (!is_right).then_some(LOOKS_TO_A_RETRY);
        }
    }
}

/// Where a server's configuration comes from, each time it is read.
pub(super) struct Source {
    pub(super) args: ServeArgs,
    /// The addresses as they were written, where a port may be 0.
    pub(super) as_configured: Vec<ListenAddr>,
    /// The addresses that became of them.
    pub(super) in_force: Vec<ListenAddr>,
}

impl Source {
    fn resolve(&self) -> Result<Config, CliError> {
        let mut config = self.args.clone().resolve()?;
        if config.startup.listen == self.as_configured {
            config.startup.listen.clone_from(&self.in_force);
        }
        Ok(config)
    }

    /// How the files look at this moment that the configuration names at this moment.
    fn look(&self) -> Stamp {
        let config = self.resolve().ok();
        let mut paths: Vec<&Path> = self.args.config.as_deref().into_iter().collect();
        if let Some(config) = &config {
            paths.extend([&*config.live.clients, &*config.live.keys]);
            paths.extend(config.live.admin_token_file.as_deref());
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
/// What fails for want of something else, as file descriptors, is tried again after half a minute.
const LOOKS_TO_A_RETRY: u32 = 30;
