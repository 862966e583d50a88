//! Reads text files that operators write, and converts a byte offset in a text to its line and
//! column.

use std::io::Read;
use std::path::Path;

use crate::fault::Fault;

/// Reads a UTF-8 file. A leading byte order mark, which some editors write, is removed.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or is not UTF-8.
pub fn read(file: &Path) -> Result<String, Fault> {
    let bytes = std::fs::read(file).map_err(|error| Fault::cannot("read", file, &error))?;
    decode(file, bytes)
}

/// Reads UTF-8 text from `source` and removes a leading byte order mark. A [`Fault`] shows `name`
/// as the file.
///
/// # Errors
///
/// A [`Fault`] if `source` cannot be read or is not UTF-8.
pub fn read_from(mut source: impl Read, name: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).map_err(|error| Fault::cannot("read", name, &error))?;
    decode(name, bytes)
}

fn decode(file: &Path, bytes: Vec<u8>) -> Result<String, Fault> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Fault::new(file, "is in UTF-16: save it in UTF-8"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let error = error.utf8_error();
        let problem =
            format!("is not in UTF-8 from byte {} on: save it in UTF-8", error.valid_up_to() + 1);
        Fault::new(file, problem)
    })?;
    if text.starts_with(BOM) {
        text.drain(..BOM.len_utf8());
    }
    Ok(text)
}

/// Returns `text` without a leading byte order mark.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix(BOM).unwrap_or(text)
}

const BOM: char = '\u{feff}';

/// A position in a text, as line and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The number of the character in the line, counted from 1.
    pub column: usize,
}

impl Position {
    /// Returns the position of a byte offset in `text`.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let is_first = |byte: &&u8| **byte & 0xC0 != 0x80;
        Self {
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            column: before[line_begin..].iter().filter(is_first).count() + 1,
        }
    }

    /// Returns the position of serde_json's `error` in `text`.
    pub fn of_json(text: &str, error: &serde_json::Error) -> Self {
        let line_begin = text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum::<usize>();
        Self::of(text, line_begin + error.column().saturating_sub(1))
    }

    /// Converts a position in a part of a text to the position in the whole text. `begin` is the
    /// position at which the part begins.
    pub fn within(self, begin: Self) -> Self {
        Self {
            line: begin.line + self.line - 1,
            column: if self.line == 1 { begin.column + self.column - 1 } else { self.column },
        }
    }
}

/// Returns serde_json's message for a syntax error, without the position. Must not be called for
/// type errors, because their messages quote a value of the file.
pub fn json_problem(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    format!("is not valid JSON here: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_counted_in_characters() {
        let text = "a\nüb\n";
        for (offset, line, column) in [(0, 1, 1), (2, 2, 1), (4, 2, 2), (5, 2, 3), (9, 3, 1)] {
            assert_eq!(Position::of(text, offset), Position { line, column }, "{offset}");
        }
        let error = serde_json::from_str::<Vec<u8>>("[1,\n \"ü\" }").err();
        let place = error.map(|error| Position::of_json("[1,\n \"ü\" }", &error).line);
        assert_eq!(place, Some(2));
        let begin = Position { line: 4, column: 8 };
        assert_eq!(Position { line: 1, column: 2 }.within(begin), Position { line: 4, column: 9 });
        assert_eq!(Position { line: 2, column: 2 }.within(begin), Position { line: 5, column: 2 });
    }

    #[test]
    fn a_byte_order_mark_is_removed() {
        let file = Path::new("a");
        let read = |bytes: &[u8]| read_from(bytes, file).map_err(|fault| fault.problem);
        assert_eq!(read(b"\xef\xbb\xbf{}").as_deref(), Ok("{}"));
        assert!(read(b"\xff\xfe{\0").is_err_and(|problem| problem.contains("UTF-16")));
        assert!(read(b"{\xff").is_err_and(|problem| problem.contains("from byte 2 on")));
    }
}
