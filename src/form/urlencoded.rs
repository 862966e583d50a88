//! `application/x-www-form-urlencoded` (URL Standard, section 5; RFC 6749, appendix B).
//!
//! The parser underneath replaces bad UTF-8 silently and lets `%zz` through as it stands. Both are
//! refused here first, on the raw bytes, so that what it then decodes is exactly what was sent.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

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
    let pairs = input.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).count();
    if pairs > max_parameters {
        return Err(FormError::TooMany);
    }
    check_encoding(input)?;
    // What the checks above let through can only fail in `Parameters::push`.
    serde_urlencoded::from_bytes(input).map_err(|_repeated| FormError::Repeated)
}

/// Decodes one form-encoded value: `+` and `%xx`. `None` if a triplet is bad or the result is not
/// UTF-8.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    String::from_utf8(decode_bytes(value.as_bytes(), b' ')?).ok().map(Cow::Owned)
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

/// Triplets must be whole, and the decoded text UTF-8.
///
/// Decoding the body in one piece gives the same verdict as decoding each value: `&` and `=` are
/// ASCII, so no UTF-8 sequence reaches across them.
fn check_encoding(input: &[u8]) -> Result<(), FormError> {
    if !input.contains(&b'%') {
        return std::str::from_utf8(input).map(|_| ()).map_err(|_| FormError::NotUtf8);
    }
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

impl<'de> Deserialize<'de> for Parameters<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Parameters<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("form parameters")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut parameters = Parameters::default();
        while let Some((Text(name), Text(value))) = map.next_entry()? {
            parameters.push(name, value).map_err(|_| M::Error::custom("repeated"))?;
        }
        Ok(parameters)
    }
}

/// Text that stays borrowed where the decoder had nothing to change; serde's own `Cow` always
/// copies.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
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
        assert_eq!(parameters.len(), 4);
    }

    #[test]
    fn refuses_what_the_parser_would_let_through() {
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
}
