//! The log on standard error, as JSON or as text for people.

use std::io::{self, IsTerminal, stderr};

use tracing::{Level, Subscriber};

use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::json_line::JsonLine;
use crate::telemetry::log_queue::{LogQueue, LogWriter};

/// Installs the global subscriber of the crate tracing. Only the program calls this function, never
/// the library. Dropping the returned [`LogWriter`] writes the queued lines.
///
/// # Errors
///
/// If a global subscriber is installed already, or if the writing thread cannot be started.
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
        // No colors if `NO_COLOR` is not empty (https://no-color.org).
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let has_colors = stderr().is_terminal() && !is_plain;
        let builder = tracing_subscriber::fmt().with_ansi(has_colors);
        let writer = queue.clone();
        let lines = builder.with_max_level(level).with_writer(move || writer.clone());
        tracing::subscriber::set_global_default(lines.finish())
    } else {
        tracing::subscriber::set_global_default(json_lines(queue.clone(), level))
    }
    .map_err(io::Error::other)?;
    Ok((queue, writer))
}

/// Returns a subscriber that writes one line of JSON for each event to `queue`.
pub fn json_lines(queue: LogQueue, level: Level) -> impl Subscriber + Send + Sync {
    let builder = tracing_subscriber::fmt().event_format(JsonLine);
    builder.with_max_level(level).with_writer(move || queue.clone()).finish()
}
