//! Log lines on standard error, in JSON or for eyes.
//!
//! Lines leave through a bounded queue and a thread of their own. If whoever reads them is slow or
//! the disk is full, lines are lost and counted; tokens are not.

use std::fmt::{self, Write};
use std::io::{IsTerminal, stderr};

use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

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

    if human {
        let builder = tracing_subscriber::fmt().with_ansi(stderr().is_terminal());
        let lines = builder.with_timer(Timestamp).with_max_level(level).with_writer(writer);
        tracing::subscriber::set_global_default(lines.finish())?;
    } else {
        tracing::subscriber::set_global_default(json_lines(writer, level))?;
    }
    Ok(LogGuard { _worker: worker, lost })
}

/// One JSON object a line, to `writer`.
pub fn json_lines(writer: NonBlocking, level: Level) -> impl Subscriber + Send + Sync {
    let builder = tracing_subscriber::fmt().json().flatten_event(true);
    builder.with_timer(Timestamp).with_max_level(level).with_writer(writer).finish()
}

/// The time in one piece: the JSON format collects it in a string of its own, which grows three
/// times under the pieces that [`SystemTime`] writes.
struct Timestamp;

impl FormatTime for Timestamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut text = Piece::default();
        SystemTime.format_time(&mut Writer::new(&mut text))?;
        writer.write_str(text.as_str())
    }
}

/// Text on the stack, with room for a timestamp.
#[derive(Default)]
struct Piece {
    bytes: [u8; 32],
    length: usize,
}

impl Piece {
    fn as_str(&self) -> &str {
        // Whole strings were written.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for Piece {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
