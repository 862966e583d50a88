//! Makes a running server read its files again at SIGHUP and when one of the files has changed.
//!
//! A [`Stamp`] holds the metadata of files at one time. Different stamps mean that a file has
//! changed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::cli::error::CliError;
use crate::cli::settings::ServeArgs;
use crate::config::{Config, ListenAddr, Live};
use crate::fault::Fault;
use crate::fs::file_watch::Stamp;
use crate::server::Reloader;

/// The triggers of a reload: SIGHUP, and a change of a file.
pub(super) struct Reloads {
    source: Source,
    hangups: Hangups,
    /// The stamp of the files. It is taken before the server first reads them, so a change during
    /// the start is noticed by the first checks.
    at_start: Stamp,
}

impl Reloads {
    /// Starts to watch for SIGHUP. After this call, SIGHUP does not end the process. Must be called
    /// before the server first reads the files, so that no later change of a file is missed.
    pub(super) fn of(source: Source) -> Result<Self, CliError> {
        let hangups = Hangups::new()
            .map_err(|error| CliError(format!("signals cannot be received: {error}")))?;
        let at_start = source.look(Live::default);
        Ok(Self { source, hangups, at_start })
    }

    /// Reloads at each trigger and never returns. If one or more signals arrive during a reload,
    /// exactly one further reload follows.
    pub(super) async fn run(self, reloader: Arc<Reloader>) {
        let Self { source, mut hangups, at_start } = self;
        let mut known = (at_start, reloader.client_keys());
        let this = Arc::new((source, reloader));
        let mut looks = interval(BETWEEN_LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = known.clone();
        let mut retry_in = this.1.has_fault().then_some(LOOKS_TO_A_RETRY);
        let mut moving = 0;
        loop {
            let by_signal = tokio::select! {
                () = hangups.next() => true,
                _ = looks.tick() => false,
            };
            let looking = Arc::clone(&this);
            let seen = spawn_blocking(move || {
                let (source, reloader) = &*looking;
                reloader.look_at_keys();
                (source.look(|| reloader.settings()), reloader.client_keys().again())
            });
            // `None` if the task panicked.
            let seen = seen.await.ok();
            moving = if seen.as_ref() == Some(&last) { 0 } else { moving + 1 };
            let has_changed = has_changed(seen.as_ref(), &last, &known, moving);
            last = seen.unwrap_or(last);
            retry_in = retry_in.map(|looks: u32| looks.saturating_sub(1));
            let reason = match retry_in {
                _ if by_signal => "SIGHUP",
                _ if has_changed => "a file has changed",
                Some(0) => "what was wrong may have been mended",
                _ => continue,
            };
            known.0 = last.0.clone();
            moving = 0;
            info!(reason, "reading again");
            let reading = Arc::clone(&this);
            let read = spawn_blocking(move || {
                let (source, reloader) = &*reading;
                // Do not log the faults here: `reload` has already logged them.
                reloader.reload(source.resolve().map_err(|error| error.0)).faults.is_empty()
            });
            // If the task panicked, the reload counts as failed.
            let is_right = read.await.unwrap_or(false);
            // The clients may name other key files now. The reload took the stamp of those files
            // before it read them, so a change during the reload is noticed at the next check.
            known.1 = this.1.client_keys();
            retry_in = (!is_right).then_some(LOOKS_TO_A_RETRY);
        }
    }
}

/// The stamps of the files that the configuration names and of those that the clients name.
type Stamps = (Stamp, Stamp);

/// Whether the files differ from the `known` ones and are complete: a check has `seen` the same
/// stamps as the `last` check, so no file is still being written. If some file was `moving` at many
/// checks, the files are read all the same: one file that never rests must not hold up the others.
/// Without stamps, nothing has changed.
fn has_changed(seen: Option<&Stamps>, last: &Stamps, known: &Stamps, moving: u32) -> bool {
    seen.is_some_and(|seen| seen != known && (seen == last || moving >= LOOKS_AT_MOVING_FILES))
}

/// The flags from which a reload resolves the configuration, and the listen addresses of the
/// running server.
pub(super) struct Source {
    pub(super) args: ServeArgs,
    /// The listen addresses as configured. A port may be 0.
    pub(super) as_configured: Vec<ListenAddr>,
    /// The listen addresses that are bound, with the ports that the system chose for port 0.
    pub(super) in_force: Vec<ListenAddr>,
    /// Whether the configuration file may be empty, because it was at the start.
    pub(super) may_be_empty: bool,
}

impl Source {
    fn resolve(&self) -> Result<Config, CliError> {
        if let Some(file) = &self.args.config
            && !self.may_be_empty
            && is_empty(file)
        {
            // Probably, an editor has truncated the file and not written it yet. All settings would
            // have their defaults.
            let problem = "is empty: write at least a comment if the defaults are meant";
            return Err(Fault::new(file, problem).into());
        }
        let mut config = self.args.clone().resolve()?;
        if config.startup.listen == self.as_configured {
            config.startup.listen.clone_from(&self.in_force);
        }
        Ok(config)
    }

    /// Returns the present stamp of the files that the configuration names. If the configuration
    /// has a fault, these are the files of the settings `in_force`.
    fn look(&self, in_force: impl FnOnce() -> Live) -> Stamp {
        let live = self.resolve().map_or_else(|_| in_force(), |config| config.live);
        let mut paths: Vec<&Path> = self.args.config.as_deref().into_iter().collect();
        paths.extend([&*live.clients, &*live.keys]);
        paths.extend(live.admin_token_file.as_deref());
        Stamp::of(&paths)
    }
}

/// Whether the file exists and has no contents.
pub(super) fn is_empty(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

/// Receives SIGHUP on Unix. Waits forever on other systems.
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

/// The time between two checks of the files. Writing a file takes less time. Two equal stamps
/// therefore mean that the file is complete. A new client can get tokens after about two checks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// If some file differs at this number of successive checks, the files are read.
const LOOKS_AT_MOVING_FILES: u32 = 5;
/// A failed reload is tried again after this number of checks. There is one check per second. A
/// reload can fail for a reason outside of the files, such as too few file descriptors.
const LOOKS_TO_A_RETRY: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_two_checks_have_seen_it() {
        let [old, new] =
            ["old", "new"].map(|file| (Stamp::of(&[Path::new(file)]), Stamp::default()));
        assert!(has_changed(Some(&new), &new, &old, 0));
        assert!(!has_changed(Some(&new), &old, &old, 4), "it may still be written");
        assert!(has_changed(Some(&new), &old, &old, 5), "it never rests");
        assert!(!has_changed(Some(&old), &old, &old, 0));
        assert!(!has_changed(Some(&old), &new, &old, 5), "it is as it was");
        assert!(!has_changed(None, &new, &old, 5), "the check has panicked");
    }
}
