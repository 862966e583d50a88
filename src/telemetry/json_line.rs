//! One event as one line of JSON (RFC 8259), written in one pass: every request is such a line, and
//! a general serializer's maps and keys take as long as reading the request does.
//!
//! ```json
//! {"timestamp":"2026-01-31T23:59:59.000001Z","level":"INFO","status":200,"target":"grantd::request"}
//! ```

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events; `T` tells the time.
pub(super) struct JsonLine<T>(pub(super) T);

impl<S, N, T> FormatEvent<S, N> for JsonLine<T>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    T: FormatTime,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        out.write_str("{\"timestamp\":\"")?;
        self.0.format_time(&mut out)?;
        out.write_str("\",\"level\":\"")?;
        out.write_str(event.metadata().level().as_str())?;
        out.write_str("\"")?;
        let mut members = Members { out, result: Ok(()) };
        event.record(&mut members);
        members.text("target", event.metadata().target())?;
        members.result?;
        members.out.write_str("}\n")
    }
}

/// Writes fields as members, each with its leading comma.
struct Members<'w> {
    out: Writer<'w>,
    /// The first failure; visitors cannot return one.
    result: fmt::Result,
}

impl Members<'_> {
    /// Names are identifiers of this program's source: nothing in them needs escaping.
    fn name(&mut self, name: &str) -> fmt::Result {
        self.out.write_str(",\"")?;
        self.out.write_str(name)?;
        self.out.write_str("\":")
    }

    fn text(&mut self, name: &str, value: &str) -> fmt::Result {
        self.name(name)?;
        self.out.write_str("\"")?;
        Escaped(&mut self.out).write_str(value)?;
        self.out.write_str("\"")
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        self.name(name)?;
        write!(self.out, "{value}")
    }

    fn debug(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        self.name(name)?;
        self.out.write_str("\"")?;
        write!(Escaped(&mut self.out), "{value:?}")?;
        self.out.write_str("\"")
    }
}

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.result = self.result.and_then(|()| self.text(field.name(), value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.result = self.result.and_then(|()| self.plain(field.name(), value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.result = self.result.and_then(|()| self.plain(field.name(), value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.result = self.result.and_then(|()| self.plain(field.name(), value));
    }

    /// Everything else is text: what `?` and `%` mark, errors, and numbers that JSON's readers
    /// would round.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.result = self.result.and_then(|()| self.debug(field.name(), value));
    }
}

/// Escapes text for a JSON string (RFC 8259, section 7), on its way.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        // All that needs escaping is ASCII, and no byte of a longer character looks like it.
        for (at, byte) in text.bytes().enumerate() {
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.0.write_str(&text[plain..at])?;
            plain = at + 1;
            match byte {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                _ => write!(self.0, "\\u{byte:04x}")?,
            }
        }
        self.0.write_str(&text[plain..])
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Noon;

    impl FormatTime for Noon {
        fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
            out.write_str("noon")
        }
    }

    #[test]
    fn every_value_comes_back_from_a_json_parser() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLine(Noon))
            .with_writer(move || writer.clone())
            .finish();
        let odd = "\"quoted\" \\ \u{0}\u{1f}\n\r\t\u{7f} é \u{2028} 🦀";
        tracing::subscriber::with_default(subscriber, || {
            let error: &dyn std::error::Error = &io::Error::other(odd);
            tracing::warn!(
                target: "here", odd, yes = true, count = u64::MAX, below = i64::MIN, half = 0.5,
                display = %odd, debug = ?odd, error, "said {odd}"
            );
            tracing::info!("no field");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let read: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = json!({
            "timestamp": "noon", "level": "WARN", "message": format!("said {odd}"), "odd": odd,
            "yes": true, "count": u64::MAX, "below": i64::MIN, "half": "0.5", "display": odd,
            "debug": format!("{odd:?}"), "error": odd, "target": "here",
        });
        let second = json!({
            "timestamp": "noon", "level": "INFO", "message": "no field", "target": module_path!(),
        });
        assert_eq!(read, [expected, second]);
        // One event, one line, and the time first, for whoever sorts lines.
        assert!(text.lines().all(|line| line.starts_with("{\"timestamp\":\"noon\",\"level\":")));
    }
}
