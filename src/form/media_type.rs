//! `Content-Type` values (RFC 9110, section 8.3.1).
//!
//! ```text
//! media-type = type "/" subtype *( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )
//! ```

use std::borrow::Cow;

/// A media type with the two parameters that a form can carry.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `type/subtype` as written; compare it without regard to case.
    essence: &'a str,
    /// `boundary`, of `multipart/form-data`.
    pub boundary: Option<Cow<'a, str>>,
    /// `charset`.
    pub charset: Option<Cow<'a, str>>,
}

impl<'a> MediaType<'a> {
    /// Reads a header value. `None` if it is not a media type, or names a parameter twice.
    pub fn parse(value: &'a str) -> Option<Self> {
        let (essence, mut rest) = value.split_at(value.find(';').unwrap_or(value.len()));
        let essence = essence.trim_matches(OWS);
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }

        let mut media_type = Self { essence, boundary: None, charset: None };
        while let Some(parameter) = rest.strip_prefix(';') {
            let parameter = parameter.trim_start_matches(OWS);
            if parameter.is_empty() || parameter.starts_with(';') {
                rest = parameter;
                continue;
            }
            let (name, value) = parameter.split_once('=')?;
            if !is_token(name) {
                return None;
            }
            let (value, after) = read_value(value)?;
            rest = after.trim_start_matches(OWS);

            let slot = if name.eq_ignore_ascii_case("boundary") {
                &mut media_type.boundary
            } else if name.eq_ignore_ascii_case("charset") {
                &mut media_type.charset
            } else {
                continue;
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        rest.is_empty().then_some(media_type)
    }

    /// `type/subtype` as written.
    pub fn essence(&self) -> &'a str {
        self.essence
    }

    /// Whether this is `essence`, such as `application/json`.
    pub fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }

    /// Whether the text in the body is UTF-8: said so, or left unsaid, or a subset of it.
    pub fn is_utf8(&self) -> bool {
        self.charset.as_deref().is_none_or(|charset| {
            ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name))
        })
    }
}

/// A token or a quoted string from the front of `input`, and what comes after it.
pub(crate) fn read_value(input: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = input.strip_prefix('"') else {
        let end = input.find(|c: char| c == ';' || OWS.contains(&c)).unwrap_or(input.len());
        let (value, after) = input.split_at(end);
        return is_token(value).then_some((Cow::Borrowed(value), after));
    };

    let end = quoted.find(['"', '\\'])?;
    if quoted.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut unescaped = String::with_capacity(quoted.len());
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(unescaped), &quoted[at + 1..])),
            '\\' => unescaped.push(chars.next()?.1),
            other => unescaped.push(other),
        }
    }
    None
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Optional white space (RFC 9110, section 5.6.3).
pub(crate) const OWS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_clients_send() {
        let plain = MediaType::parse("application/x-www-form-urlencoded").unwrap();
        assert!(plain.is("application/x-www-form-urlencoded") && plain.is_utf8());

        let curl = MediaType::parse("multipart/form-data; boundary=----1x").unwrap();
        assert_eq!(curl.boundary.as_deref(), Some("----1x"));

        let quoted =
            MediaType::parse("Multipart/Form-Data ;charset=\"UTF-8\"; boundary=\"a;\\\"b\";");
        let quoted = quoted.unwrap();
        assert!(quoted.is("multipart/form-data") && quoted.is_utf8());
        assert_eq!(quoted.boundary.as_deref(), Some("a;\"b"));

        assert!(!MediaType::parse("text/plain; charset=utf-16").unwrap().is_utf8());
    }

    #[test]
    fn refuses_what_is_no_media_type() {
        for value in [
            "",
            "text",
            "invalid/@@##",
            "a/b; charset",
            "a/b; charset=",
            "a/b; charset=\"utf-8",
            "a/b; charset=\"utf-8\" x",
            "a/b; charset=utf-8; charset=utf-8",
            "a/b; boundary=x; BOUNDARY=y",
            "a/b c/d",
        ] {
            assert_eq!(MediaType::parse(value), None, "{value}");
        }
    }
}
