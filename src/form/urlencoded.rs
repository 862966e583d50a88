//! `application/x-www-form-urlencoded` (URL Standard, section 5; RFC 6749, appendix B).
//!
//! Parsers elsewhere replace bad UTF-8 silently and let `%zz` through as it stands. Both are refused
//! here, so that what a client is known by is exactly what it sent.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};

use crate::form::parameters::{BYTE_ORDER_MARK, FormError, Parameters};

/// Reads a body or a query string of at most `max_parameters` parameters.
///
/// # Errors
///
/// Any [`FormError`] but the multipart ones; nothing of the body may be used then.
pub fn parse(input: &[u8], max_parameters: usize) -> Result<Parameters<'_>, FormError> {
    if input.starts_with(BYTE_ORDER_MARK) {
        return Err(FormError::ByteOrderMark);
    }
    // No more than one pair more than there are separators; only then is it worth counting.
    let pairs = || Pairs { rest: input };
    if memchr_iter(b'&', input).count() >= max_parameters && pairs().count() > max_parameters {
        return Err(FormError::TooMany);
    }
    // All of it is text before any of it is a parameter, as in the other encoding.
    if memchr2(b'%', b'+', input).is_some() {
        check_encoding(input)?;
    } else {
        std::str::from_utf8(input).map_err(|_| FormError::NotUtf8)?;
    }
    let mut parameters = Parameters::default();
    for (name, value) in pairs() {
        parameters.push(text(name)?, text(value)?)?;
    }
    Ok(parameters)
}

/// Names and values as they were sent, without what stands between them.
struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let [b'&', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr(b'&', self.rest).unwrap_or(self.rest.len());
        let (pair, rest) = self.rest.split_at(end);
        self.rest = rest;
        let (name, value) = pair.split_at(memchr(b'=', pair).unwrap_or(end));
        Some((name, value.get(1..).unwrap_or_default()))
    }
}

/// Decodes one form-encoded value: `+` and `%xx`. `None` if a triplet is bad or the result is not
/// UTF-8.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    text(value.as_bytes()).ok()
}

/// Decodes one segment of a path, where `+` is itself (RFC 3986, section 2.1). `None` as above.
pub fn decode_path(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    String::from_utf8(decode_bytes(segment.as_bytes(), b'+')?).ok().map(Cow::Owned)
}

/// Encodes a value for a form or a segment of a path: all but unreserved characters as `%xx` (RFC
/// 3986, section 2.3).
pub fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(b"0123456789ABCDEF"[usize::from(half)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

/// A name or a value, decoded where it has to be.
fn text(encoded: &[u8]) -> Result<Cow<'_, str>, FormError> {
    if memchr2(b'%', b'+', encoded).is_none() {
        return std::str::from_utf8(encoded).map(Cow::Borrowed).map_err(|_| FormError::NotUtf8);
    }
    let decoded = decode_bytes(encoded, b' ').ok_or(FormError::PercentEncoding)?;
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| FormError::NotUtf8)
}

/// Triplets must be whole, and the decoded text UTF-8.
///
/// Decoding the body in one piece gives the same verdict as decoding each value: `&` and `=` are
/// ASCII, so no UTF-8 sequence reaches across them.
fn check_encoding(input: &[u8]) -> Result<(), FormError> {
    let decoded = decode_bytes(input, b' ').ok_or(FormError::PercentEncoding)?;
    std::str::from_utf8(&decoded).map(|_| ()).map_err(|_| FormError::NotUtf8)
}

/// `plus` is what a `+` stands for.
fn decode_bytes(input: &[u8], plus: u8) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match byte {
            b'+' => plus,
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                rest = tail;
                hex_digit(digits[0])? << 4 | hex_digit(digits[1])?
            }
            other => other,
        });
    }
    Some(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    char::from(byte).to_digit(16).map(|digit| digit as u8)
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
    fn reads_what_a_well_known_library_has_written() {
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
