//! Text that a client made up, as the log shows it: short, and in visible ASCII.

use std::borrow::Cow;
use std::fmt::Write;

/// The beginning of `text` in at most `limit` bytes, where a byte outside visible ASCII is written
/// `\xNN`. No escape is cut in two.
pub fn excerpt(text: &[u8], limit: usize) -> Cow<'_, str> {
    if text.len() <= limit
        && text.iter().all(u8::is_ascii_graphic)
        && let Ok(whole) = std::str::from_utf8(text)
    {
        return Cow::Borrowed(whole);
    }
    let mut shown = String::with_capacity(limit);
    for &byte in text {
        let before = shown.len();
        if byte.is_ascii_graphic() {
            shown.push(char::from(byte));
        } else {
            // Writing to memory cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
        if shown.len() > limit {
            shown.truncate(before);
            break;
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_short_and_visible() {
        for (text, limit, shown) in [
            (&b"POST"[..], 4, "POST"),
            (b"POST", 3, "POS"),
            (b"", 3, ""),
            (b"/a b", 128, "/a\\x20b"),
            ("/\u{e9}\n\u{1b}[31m".as_bytes(), 128, "/\\xc3\\xa9\\x0a\\x1b[31m"),
            (b"/\xff", 4, "/"),
            (b"/\xff", 5, "/\\xff"),
            (b"/\xff", 128, "/\\xff"),
        ] {
            assert_eq!(excerpt(text, limit), shown, "{text:?} {limit}");
        }
        assert!(matches!(excerpt(b"POST", 32), Cow::Borrowed("POST")));
    }
}
