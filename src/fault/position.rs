//! Converts a byte offset in a text to its line and column.

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
}
