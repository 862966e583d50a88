//! Log lines on standard error, in JSON or for eyes.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal, stderr};

use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::log_queue::{LogQueue, LogWriter};

/// Installs the process's one subscriber. For the program, not for those who embed the library.
/// Dropping the [`LogWriter`] writes what waits.
///
/// # Errors
///
/// If there is one already, or no thread to write.
pub fn install(log: &Log) -> io::Result<(LogQueue, LogWriter)> {
    let (queue, writer) = LogQueue::to(stderr())?;
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
        let lines = builder.with_timer(Timestamp).with_max_level(level).with_writer(queue.clone());
        tracing::subscriber::set_global_default(lines.finish())
    } else {
        tracing::subscriber::set_global_default(json_lines(queue.clone(), level))
    }
    .map_err(io::Error::other)?;
    Ok((queue, writer))
}

/// One JSON object a line, into `queue`.
pub fn json_lines(queue: LogQueue, level: Level) -> impl Subscriber + Send + Sync {
    let builder = tracing_subscriber::fmt().json().flatten_event(true);
    builder.with_timer(Timestamp).with_max_level(level).with_writer(queue).finish()
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
