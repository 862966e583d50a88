//! Parses the JSON bodies of the `vision` and `firstvision` dialects.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::form::parameters::{BYTE_ORDER_MARK, FormError, Parameters};
use crate::form::repeated_name::RepeatedName;

/// Parses a JSON object of at most `max_parameters` members. The value of a member named in `known`
/// must be a string or null. The value of any other member is replaced by an empty string if it is
/// not a string.
///
/// # Errors
///
/// A [`FormError`] if the body must be refused as a whole.
pub fn parse<'a>(
    body: &'a [u8],
    known: &[&str],
    max_parameters: usize,
) -> Result<Parameters<'a>, FormError> {
    read(body, known, None, max_parameters)
}

/// Parses a JSON object like [`parse`], but the value of the member `scope` may also be a list of
/// strings. The parameter `scope` then holds them as tokens, separated by spaces.
///
/// # Errors
///
/// A [`FormError`] if the body must be refused as a whole.
pub fn parse_with_scope_list<'a>(
    body: &'a [u8],
    known: &[&str],
    max_parameters: usize,
) -> Result<Parameters<'a>, FormError> {
    read(body, known, Some("scope"), max_parameters)
}

/// Parses an object in which the member `list` may be a list of tokens.
fn read<'a>(
    body: &'a [u8],
    known: &[&str],
    list: Option<&str>,
    max_parameters: usize,
) -> Result<Parameters<'a>, FormError> {
    check(body)?;
    let mut parameters = Parameters::default();
    read_members(body, |name, value| {
        if parameters.count() == max_parameters {
            return Err(FormError::TooMany);
        }
        // In a form, `resource` may be repeated.
        if parameters.contains(&name) {
            return Err(FormError::Repeated);
        }
        let is_list = list == Some(&*name);
        let value = match value {
            Value::Text(text) => text,
            Value::Tokens(tokens) if is_list => Cow::Owned(tokens),
            Value::Repeats => return Err(FormError::Repeated),
            Value::Tokens(_) | Value::Other if is_list || known.contains(&&*name) => {
                return Err(FormError::JsonType);
            }
            Value::Tokens(_) | Value::Null | Value::Other => Cow::Borrowed(""),
        };
        parameters.push(name, value)
    })?;
    Ok(parameters)
}

fn check(body: &[u8]) -> Result<(), FormError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(FormError::Empty);
    }
    if body.starts_with(BYTE_ORDER_MARK) {
        return Err(FormError::ByteOrderMark);
    }
    std::str::from_utf8(body).map(|_| ()).map_err(|_| FormError::NotUtf8)
}

/// Calls `each` with the name and value of each member of the object in `body`, in order.
fn read_members<'a>(
    body: &'a [u8],
    each: impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), FormError>,
) -> Result<(), FormError> {
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    deserializer
        .deserialize_map(Members { each, fault: &mut fault })
        .and_then(|()| deserializer.end())
        .map_err(|error| match fault {
            Some(fault) => fault,
            None if error.is_data() => FormError::JsonShape,
            None => FormError::JsonSyntax,
        })
}

/// Puts quotes around the unquoted keys of the outermost object. Changes nothing else. The example in
/// the documentation of `firstvision` has no quotes around its keys.
pub fn quote_keys(body: &[u8]) -> Cow<'_, [u8]> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$-".contains(byte);
    let mut quoted = Vec::new();
    let mut copied = 0;
    let mut depth = 0_usize;
    let mut key_may_follow = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => {
                at += string_length(&body[at..]);
                key_may_follow = false;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                key_may_follow = depth == 1 && byte == b'{';
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => key_may_follow = depth == 1,
            _ if key_may_follow && is_name(&byte) => {
                let length = body[at..].iter().take_while(|byte| is_name(byte)).count();
                quoted.extend_from_slice(&body[copied..at]);
                quoted.push(b'"');
                quoted.extend_from_slice(&body[at..at + length]);
                quoted.push(b'"');
                at += length;
                copied = at;
                key_may_follow = false;
                continue;
            }
            _ => key_may_follow &= byte.is_ascii_whitespace(),
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(body);
    }
    quoted.extend_from_slice(&body[copied..]);
    Cow::Owned(quoted)
}

/// Returns the length in bytes, with the quotes, of the string literal at the start of `body`. If
/// the closing quote is missing, returns the length of `body`.
fn string_length(body: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

/// Passes each member of an object to `each`. An error that `each` returns is stored in `fault`,
/// because an error of serde contains only text.
struct Members<'f, F> {
    each: F,
    fault: &'f mut Option<FormError>,
}

impl<'de, F> Visitor<'de> for Members<'_, F>
where
    F: FnMut(Cow<'de, str>, Value<'de>) -> Result<(), FormError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        // The pattern matches every name: names in JSON are strings.
        while let Some((Value::Text(name), value)) = map.next_entry()? {
            (self.each)(name, value).map_err(|fault| {
                *self.fault = Some(fault);
                M::Error::custom("refused")
            })?;
        }
        Ok(())
    }
}

/// A JSON value, as far as the dialects read one.
enum Value<'a> {
    /// A string. Without escapes, it is borrowed from the body.
    Text(Cow<'a, str>),
    /// The strings of a list, separated by spaces. No string has a space inside.
    Tokens(String),
    Null,
    /// Any other value.
    Other,
    /// A value in which an object repeats a name.
    Repeats,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfValue)
    }
}

struct OfValue;

impl<'de> Visitor<'de> for OfValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut tokens = String::new();
        let (mut are_tokens, mut repeats, mut is_first) = (true, false, true);
        while let Some(element) = list.next_element()? {
            match element {
                Value::Text(token) if !token.trim_matches(' ').contains(' ') => {
                    if !is_first {
                        tokens.push(' ');
                    }
                    tokens.push_str(token.trim_matches(' '));
                }
                Value::Repeats => repeats = true,
                _ => are_tokens = false,
            }
            is_first = false;
        }
        Ok(match (repeats, are_tokens) {
            (true, _) => Value::Repeats,
            (false, true) => Value::Tokens(tokens),
            (false, false) => Value::Other,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        let RepeatedName(repeated) = RepeatedName::deserialize(MapAccessDeserializer::new(object))?;
        Ok(repeated.map_or(Value::Other, |_| Value::Repeats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 1] = ["scope"];

    #[test]
    fn reads_text_members_and_ignores_others() {
        let body = br#" {"scope": "a\u0062", "x": [1, {"scope": 2}], "y": null} "#;
        let parameters = parse(body, &KNOWN, 16).unwrap();
        assert_eq!(parameters.get("scope"), Some("ab"));
        assert!(parameters.contains("x"));
        assert_eq!(parameters.get("x"), None);
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let body = br#"{"scope": "all"}"#;
        let parameters = parse(body, &KNOWN, 16).unwrap();
        for text in parameters.names().chain(parameters.get("scope")) {
            assert!(body.as_ptr_range().contains(&text.as_ptr()), "{text}");
        }
    }

    #[test]
    fn every_fault_has_its_name() {
        for (body, error) in [
            (&b""[..], FormError::Empty),
            (b" \r\n", FormError::Empty),
            (b"{", FormError::JsonSyntax),
            (b"{scope: \"a\"}", FormError::JsonSyntax),
            (b"{} {}", FormError::JsonSyntax),
            (b"{\"scope\":\"\\ud800\"}", FormError::JsonSyntax),
            (b"[]", FormError::JsonShape),
            (b"\"scope\"", FormError::JsonShape),
            (b"{\"scope\":1}", FormError::JsonType),
            (b"{\"scope\":[\"a\"]}", FormError::JsonType),
            (b"{\"scope\":\"a\",\"scope\":\"a\"}", FormError::Repeated),
            (b"{\"x\":1,\"\\u0078\":2}", FormError::Repeated),
            (b"{\"resource\":\"a\",\"resource\":\"b\"}", FormError::Repeated),
            (b"{\"x\":{\"a\":1,\"a\":1}}", FormError::Repeated),
            (b"{\"x\":[[],{\"y\":{\"a\":1,\"a\":1}},1]}", FormError::Repeated),
            (b"{\"scope\":{\"a\":1,\"a\":1}}", FormError::Repeated),
            (b"{\"scope\":\"\xff\"}", FormError::NotUtf8),
            (b"\xEF\xBB\xBF{}", FormError::ByteOrderMark),
        ] {
            assert_eq!(parse(body, &KNOWN, 16).err(), Some(error), "{}", body.escape_ascii());
        }
        assert_eq!(parse(b"{\"a\":1,\"b\":2}", &KNOWN, 1).err(), Some(FormError::TooMany));
    }

    #[test]
    fn reads_the_documented_scope_list_as_written() {
        let documented = br#"{scope: ["firstvision.accountmanagement.read"]}"#;
        for (body, scope) in [
            (&documented[..], Some("firstvision.accountmanagement.read")),
            (b"{\"scope\":[\"a\",\"b\"]}", Some("a b")),
            (b"{ x : {y: 1}, scope : \"a b\" }", None),
            (b"{ x : \"}{,y:\\\"\", scope : \"a b\" }", Some("a b")),
            (b"{x: [1, [{\"a\": 1}, {\"a\": 1}]], scope : [\" a \"] }", Some("a")),
            (b"{scope: []}", None),
            (b"{}", None),
        ] {
            let body = quote_keys(body);
            let read = parse_with_scope_list(&body, &["client_id"], 16).ok();
            let read = read.as_ref().and_then(|parameters| parameters.get("scope"));
            assert_eq!(read, scope, "{}", body.escape_ascii());
        }
        for (body, error) in [
            (&b"{scope: [\"a b\"]}"[..], FormError::JsonType),
            (b"{scope: [1]}", FormError::JsonType),
            (b"{scope: {}}", FormError::JsonType),
            (b"{client_id: [\"a\"]}", FormError::JsonType),
            (b"{client_id: 1}", FormError::JsonType),
            (b"{scope: [\"a\"], scope: [\"b\"]}", FormError::Repeated),
            (b"{x: [{\"a\": 1, \"a\": 1}]}", FormError::Repeated),
            (b"{scope: [\"a\"}", FormError::JsonSyntax),
            (b"scope", FormError::JsonSyntax),
            (b"[]", FormError::JsonShape),
            (b"", FormError::Empty),
        ] {
            let body = quote_keys(body);
            let read = parse_with_scope_list(&body, &["client_id"], 16);
            assert_eq!(read.err(), Some(error), "{}", body.escape_ascii());
        }
    }
}
