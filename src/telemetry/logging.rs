//! Log lines on standard error, in JSON or for eyes.
//!
//! Lines leave through a bounded queue and a thread of their own. If whoever reads them is slow or
//! the disk is full, lines are lost and counted; tokens are not.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Log, LogFormat, LogLevel};

/// Keeps logging alive; dropping it writes out what waits.
pub struct LogGuard {
    _worker: WorkerGuard,
    lost: ErrorCounter,
}

impl LogGuard {
    /// Counts the lines that were lost.
    pub fn lost_lines(&self) -> ErrorCounter {
        self.lost.clone()
    }
}

/// Installs the process's one subscriber. For the program, not for those who embed the library.
///
/// # Errors
///
/// If there is one already.
pub fn install(log: &Log) -> Result<LogGuard, tracing::dispatcher::SetGlobalDefaultError> {
    let (writer, worker) = NonBlockingBuilder::default().finish(stderr());
    let lost = writer.error_counter();
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let level = match log.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };

    let builder = tracing_subscriber::fmt()
        .with_timer(SystemTime)
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(human && stderr().is_terminal());
    if human {
        tracing::subscriber::set_global_default(builder.finish())?;
    } else {
        tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())?;
    }
    Ok(LogGuard { _worker: worker, lost })
}
