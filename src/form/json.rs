//! Parses the JSON bodies of the `vision` and `firstvision` dialects.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::form::parameters::{BYTE_ORDER_MARK, FormError, Parameters};

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
    check(body)?;
    let mut parameters = Parameters::default();
    read_members(body, |name, value| match value {
        _ if parameters.count() == max_parameters => Err(FormError::TooMany),
        Value::Text(value) => parameters.push(name, value),
        Value::List(_) | Value::Other(_) if known.contains(&&*name) => Err(FormError::JsonType),
        Value::List(_) | Value::Null | Value::Other(_) => parameters.push(name, Cow::Borrowed("")),
    })?;
    Ok(parameters)
}

/// Returns the scope in `{"scope": ["…", …]}` or `{"scope": "…"}` as tokens separated by spaces.
/// `None` if `scope` is missing, null or empty. Keys without quotes are accepted, because the
/// documented example has no quotes around its keys.
///
/// # Errors
///
/// A [`FormError`] if the body must be refused as a whole.
pub fn parse_scope_list(body: &[u8], max_parameters: usize) -> Result<Option<String>, FormError> {
    check(body)?;
    let body = quote_keys(body);
    let mut scope = None;
    // The names of all members so far. They are kept to refuse a repeated name, which the parsers
    // of the other encodings also refuse.
    let mut seen = Parameters::default();
    read_members(&body, |name, value| {
        if seen.count() == max_parameters {
            return Err(FormError::TooMany);
        }
        if name == "scope" {
            scope = Some(join_tokens(value).ok_or(FormError::JsonType)?);
        }
        seen.push(name, Cow::Borrowed(""))
    })?;
    Ok(scope.filter(|scope| !scope.is_empty()))
}

/// Returns the tokens in `value`, separated by spaces. `None` unless `value` is a string, null, or
/// a list in which each element is a string of one token.
fn join_tokens(value: Value<'_>) -> Option<String> {
    match value {
        Value::Text(scope) => Some(scope.into_owned()),
        Value::Null => Some(String::new()),
        Value::Other(_) => None,
        Value::List(values) => {
            let tokens = values.into_iter().map(|value| match value {
                Element::Text(token) => {
                    let token = token.trim_matches(' ').to_owned();
                    (!token.contains(' ')).then_some(token)
                }
                Element::Other(_) => None,
            });
            Some(tokens.collect::<Option<Vec<_>>>()?.join(" "))
        }
    }
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

/// Puts quotes around the unquoted keys of the outermost object. Changes nothing else.
fn quote_keys(body: &[u8]) -> Cow<'_, [u8]> {
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

/// A JSON value. A string without escapes is borrowed from the body.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    /// Not of values again: serde copies an untagged value once more for each list that it is in.
    List(Vec<Element<'a>>),
    Null,
    Other(IgnoredAny),
}

/// An element of a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(IgnoredAny),
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
        let scope = Ok(Some("firstvision.accountmanagement.read".to_owned()));
        assert_eq!(parse_scope_list(documented, 16), scope);
        for (body, scope) in [
            (&b"{\"scope\":[\"a\",\"b\"]}"[..], Some("a b")),
            (b"{ x : {y: 1}, scope : \"a b\" }", None),
            (b"{ x : \"}{,y:\\\"\", scope : \"a b\" }", Some("a b")),
            (b"{scope: []}", None),
            (b"{}", None),
        ] {
            let read = parse_scope_list(body, 16).ok().flatten();
            assert_eq!(read.as_deref(), scope, "{}", body.escape_ascii());
        }
        for (body, error) in [
            (&b"{scope: [\"a b\"]}"[..], FormError::JsonType),
            (b"{scope: [1]}", FormError::JsonType),
            (b"{scope: {}}", FormError::JsonType),
            (b"{scope: [\"a\"], scope: [\"b\"]}", FormError::Repeated),
            (b"{scope: [\"a\"}", FormError::JsonSyntax),
            (b"scope", FormError::JsonSyntax),
            (b"[]", FormError::JsonShape),
            (b"", FormError::Empty),
        ] {
            assert_eq!(parse_scope_list(body, 16).err(), Some(error), "{}", body.escape_ascii());
        }
    }
}
