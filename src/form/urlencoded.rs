//! Parses `application/x-www-form-urlencoded` (URL Standard, section 5; RFC 6749, appendix B).
//!
//! serde_urlencoded splits and decodes the form. By itself, it would replace invalid UTF-8 and
//! accept `%zz` as text. So this module first refuses input with one of these faults.

use std::borrow::Cow;

use memchr::memchr_iter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::form::parameters::{BYTE_ORDER_MARK, FormError, Parameters};

/// Parses a body or a query string of at most `max_parameters` parameters.
///
/// # Errors
///
/// The variants `ByteOrderMark`, `NotUtf8`, `PercentEncoding`, `Repeated` and `TooMany` of
/// [`FormError`]. After an error, the caller must refuse the whole input.
pub fn parse(input: &[u8], max_parameters: usize) -> Result<Parameters<'_>, FormError> {
    if input.starts_with(BYTE_ORDER_MARK) {
        return Err(FormError::ByteOrderMark);
    }
    // Count the non-empty pairs only if there are enough separators to exceed the limit.
    let pairs = input.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty());
    if memchr_iter(b'&', input).count() >= max_parameters && pairs.count() > max_parameters {
        return Err(FormError::TooMany);
    }
    // One check of the whole input is enough for all names and values: `&`, `=` and `+` are ASCII,
    // so they are never a part of a longer UTF-8 sequence.
    percent_decode(input)?;
    // serde_urlencoded returns no error for input that passed the check above.
    let entries = serde_urlencoded::from_bytes(input).map_err(|_| FormError::NotUtf8)?;
    Parameters::new(entries)
}

/// Decodes one form-encoded value: `+` as a space, and `%xx`. `None` if a `%` is not followed by
/// two hexadecimal digits, or if the result is not UTF-8.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('+') {
        return decode_path(value);
    }
    let spaced = value.replace('+', " ");
    decode_path(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// Decodes `%xx` in one segment of a path, where `+` is an ordinary character (RFC 3986, section
/// 2.1). `None` if a `%` is not followed by two hexadecimal digits, or if the result is not UTF-8.
pub fn decode_path(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode(segment.as_bytes()).ok()
}

/// Encodes `value` for a form or for a segment of a path: each byte becomes `%xx`, except the
/// unreserved characters (RFC 3986, section 2.3).
pub fn encode(value: &str) -> String {
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(value, RESERVED).to_string()
}

fn percent_decode(input: &[u8]) -> Result<Cow<'_, str>, FormError> {
    let are_digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let is_triplet = |at: usize| input.get(at + 1..at + 3).is_some_and(are_digits);
    if !memchr_iter(b'%', input).all(is_triplet) {
        return Err(FormError::PercentEncoding);
    }
    percent_encoding::percent_decode(input).decode_utf8().map_err(|_| FormError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_a_browser_sends() {
        let parameters = parse(b"a=1+2&b=%C3%A9%26&&c&=x", 16).unwrap();
        assert_eq!(parameters.get("a"), Some("1 2"));
        assert_eq!(parameters.get("b"), Some("é&"));
        assert_eq!(parameters.get("c"), None);
        assert_eq!(parameters.count(), 4);
    }

    #[test]
    fn refuses_what_other_parsers_let_through() {
        for (body, error) in [
            (&b"a=%zz"[..], FormError::PercentEncoding),
            (b"a=%4", FormError::PercentEncoding),
            (b"a=%", FormError::PercentEncoding),
            (b"a=%+1", FormError::PercentEncoding),
            (b"a=%ff", FormError::NotUtf8),
            (b"a=%C3&%A9=b", FormError::NotUtf8),
            (b"a=\xff", FormError::NotUtf8),
            (b"a=\xc3%28", FormError::NotUtf8),
            (b"a=1&a=2", FormError::Repeated),
            (b"a=1&%61=2", FormError::Repeated),
            (b"\xEF\xBB\xBFa=1", FormError::ByteOrderMark),
        ] {
            assert_eq!(parse(body, 16).err(), Some(error), "{}", body.escape_ascii());
        }
        assert_eq!(parse(b"a&b&c", 2).err(), Some(FormError::TooMany));
        assert!(parse(b"&a&&b&", 2).is_ok());
    }

    #[test]
    fn reads_what_the_library_has_written() {
        use proptest::prelude::*;

        proptest!(|(values in prop::collection::vec(".{0,20}", 0..8))| {
            let names: Vec<_> = (0..values.len()).map(|number| format!("{number} é&=+%")).collect();
            let pairs: Vec<_> = names.iter().zip(&values).collect();
            let written = serde_urlencoded::to_string(&pairs).unwrap();
            let read = parse(written.as_bytes(), 8).unwrap();
            prop_assert!(read.names().eq(&names), "{written}");
            for (name, value) in pairs {
                let expected = Some(value.as_str()).filter(|value| !value.is_empty());
                prop_assert_eq!(read.get(name), expected, "{}", written);
            }
        });
    }
}
