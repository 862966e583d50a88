//! Formats a log event as one line of JSON (RFC 8259) in one pass. Every request logs such a line.
//! A general serializer would take as long for the line as the server takes to parse the request.
//!
//! ```json
//! {"timestamp":"2026-01-31T23:59:59.000001Z","level":"INFO","status":200,"target":"grantd::request"}
//! ```

use std::cell::Cell;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;
use crate::time::UnixTime;

pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = LINE.take();
        line.has_failed = false;
        line.text.clear();
        line.text.push_str("{\"timestamp\":\"");
        line.push_time(Clock::unix_micros());
        line.text.push_str("\",\"level\":\"");
        line.text.push_str(event.metadata().level().as_str());
        line.text.push('"');
        event.record(&mut line);
        line.push_text("target", event.metadata().target());
        line.text.push_str("}\n");
        let result = if line.has_failed { Err(fmt::Error) } else { out.write_str(&line.text) };
        LINE.set(line);
        result
    }
}

thread_local! {
    /// The last line of this thread, whose buffers the next line uses again.
    static LINE: Cell<Line> = Cell::default();
}

/// A line that is being written. Each field becomes a member with a leading comma.
#[derive(Default)]
struct Line {
    text: String,
    /// Whether a value could not be formatted, which a visitor cannot return.
    has_failed: bool,
    /// The second of the time; `None` before the first line.
    second: Option<u64>,
    /// The text of that second up to and including the point before the fraction. It is kept,
    /// because thousands of lines have the same second.
    second_text: String,
}

impl Line {
    /// Writes the time in the format of RFC 3339, in UTC, with microseconds.
    fn push_time(&mut self, unix_micros: u64) {
        let (number, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
        if self.second != Some(number) {
            let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
            let date = UnixTime(number).date();
            self.second_text = format!("{date}T{hour:02}:{minute:02}:{second:02}.");
            self.second = Some(number);
        }
        self.text.push_str(&self.second_text);
        // Adding a million keeps the leading zeros of `micros`. The added first digit is cut off.
        self.text.push_str(&itoa::Buffer::new().format(1_000_000 + micros)[1..]);
        self.text.push('Z');
    }

    /// Writes the name of a member. Names are identifiers in the source code and need no escaping.
    fn push_name(&mut self, name: &str) {
        self.text.push_str(",\"");
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn push_text(&mut self, name: &str, value: &str) {
        self.push_name(name);
        self.text.push('"');
        self.push_escaped(value);
        self.text.push('"');
    }

    /// Writes the inside of a string (RFC 8259, section 7).
    fn push_escaped(&mut self, text: &str) {
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // The fold does not stop at the first special byte, so that the compiler can vectorize it.
        if !text.bytes().fold(false, |any, byte| any | is_special(byte)) {
            return self.text.push_str(text);
        }
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\0'..' ' => self.text.push_str(&format!("\\u{:04x}", u32::from(character))),
                plain => self.text.push(plain),
            }
        }
    }

    fn push_number(&mut self, name: &str, value: impl itoa::Integer) {
        self.push_name(name);
        self.text.push_str(itoa::Buffer::new().format(value));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_name(field.name());
        self.text.push_str(if value { "true" } else { "false" });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_number(field.name(), value);
    }

    /// Writes as strings all values for which this visitor has no other method: fields marked `?`
    /// and `%`, errors, and floating-point and 128-bit numbers, which JSON parsers might round.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push_name(field.name());
        self.text.push('"');
        self.has_failed |= write!(self, "{value:?}").is_err();
        self.text.push('"');
    }
}

/// Appends text in the escaped form of a JSON string.
impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_escaped(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_value_comes_back_from_a_json_parser() {
        let (lines, writer) = io::pipe().unwrap();
        let builder = tracing_subscriber::fmt().event_format(JsonLine);
        let subscriber = builder.with_writer(Mutex::new(writer)).finish();
        let odd = "\"quoted\" \\ \u{0}\u{1f}\n\r\t\u{7f} é \u{2028} 🦀";
        tracing::subscriber::with_default(subscriber, || {
            let error: &dyn std::error::Error = &io::Error::other(odd);
            tracing::warn!(
                target: "here", odd, yes = true, count = u64::MAX, below = i64::MIN, half = 0.5,
                display = %odd, debug = ?odd, error, "said {odd}"
            );
            tracing::info!("no field");
        });
        let text = io::read_to_string(lines).unwrap();
        // The time comes first, so that lines can be sorted as text.
        let timeless = |line: &str| {
            let (time, rest) = line.strip_prefix("{\"timestamp\":\"").unwrap().split_at(27);
            assert!(time.ends_with('Z'), "{time}");
            serde_json::from_str(&format!("{{\"timestamp\":\"noon{rest}")).unwrap()
        };
        let read: Vec<Value> = text.lines().map(timeless).collect();
        let expected = json!({
            "timestamp": "noon", "level": "WARN", "message": format!("said {odd}"), "odd": odd,
            "yes": true, "count": u64::MAX, "below": i64::MIN, "half": "0.5", "display": odd,
            "debug": format!("{odd:?}"), "error": odd, "target": "here",
        });
        let second = json!({
            "timestamp": "noon", "level": "INFO", "message": "no field", "target": module_path!(),
        });
        assert_eq!(read, [expected, second]);
    }

    #[test]
    fn a_time_is_told_to_the_microsecond() {
        let mut line = Line::default();
        for (micros, expected) in [
            (1, "1970-01-01T00:00:00.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
            (951_868_800_020_300, "2000-03-01T00:00:00.020300Z"),
        ] {
            line.text.clear();
            line.push_time(micros);
            assert_eq!(line.text, expected);
        }
    }
}
