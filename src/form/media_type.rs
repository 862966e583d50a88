//! Parses the values of `Content-Type` (RFC 9110, section 8.3.1).
//!
//! ```text
//! media-type = type "/" subtype *( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )
//! ```

use std::borrow::Cow;

/// A media type with the two parameters that matter for a form: `boundary` and `charset`.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `type/subtype` as sent. Comparisons must ignore case.
    pub essence: &'a str,
    /// The `boundary` parameter of `multipart/form-data`.
    pub boundary: Option<Cow<'a, str>>,
    /// The `charset` parameter.
    charset: Option<Cow<'a, str>>,
}

/// The kind of a `charset` label. It determines which text is accepted. All text is decoded as
/// UTF-8, even if the label is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8 or no label: all UTF-8 text is accepted.
    Utf8,
    /// ISO 8859-1, its superset windows-1252, or ASCII: only ASCII text is accepted, because these
    /// charsets do not encode any other character as UTF-8 does. Requests with these labels must
    /// not all be refused: ISO 8859-1 is the default of Apache's HttpClient.
    Ascii,
    /// Any other label: no text is accepted.
    Other,
}

impl<'a> MediaType<'a> {
    /// Parses the value of a `Content-Type` header. `None` if the value is not a media type, or
    /// repeats `boundary` or `charset`. A boundary that is neither a token nor a quoted string is
    /// read as empty, so that the multipart parser reports the error.
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
            let is_boundary = name.eq_ignore_ascii_case("boundary");
            let (value, after) = match read_value(value) {
                Some(read) => read,
                None if is_boundary => {
                    (Cow::Borrowed(""), &value[value.find(';').unwrap_or(value.len())..])
                }
                None => return None,
            };
            rest = after.trim_start_matches(OWS);

            let slot = if is_boundary {
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

    /// Whether the media type, without its parameters, is `essence`, such as `application/json`.
    pub fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }

    /// The kind of the `charset` label.
    pub fn charset(&self) -> Charset {
        let Some(label) = self.charset.as_deref() else { return Charset::Utf8 };
        let is_one_of =
            |labels: &str| labels.split(' ').any(|known| label.eq_ignore_ascii_case(known));
        if is_one_of(UTF_8_LABELS) {
            Charset::Utf8
        } else if is_one_of(ASCII_LABELS) {
            Charset::Ascii
        } else {
            Charset::Other
        }
    }
}

impl Charset {
    /// Whether text with this label may be read as UTF-8. `is_ascii` says whether the decoded text
    /// is only ASCII.
    pub fn fits(self, is_ascii: bool) -> bool {
        self == Self::Utf8 || self == Self::Ascii && is_ascii
    }
}

/// Parses the token or the quoted string at the start of `input`. Returns its value, without quotes
/// and escapes, and the rest of `input`. `None` if `input` starts with neither a token nor a quoted
/// string.
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

/// Whether `text` is a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

const UTF_8_LABELS: &str = "utf-8 utf8";

/// The labels of [`Charset::Ascii`]: IANA's names of windows-1252, ISO 8859-1 and ASCII, and the
/// labels that the Encoding Standard gives to windows-1252. That standard treats ISO 8859-1 and
/// ASCII as windows-1252, so its list contains labels of all three.
const ASCII_LABELS: &str = "ansi_x3.4-1968 ansi_x3.4-1986 ascii cp1252 cp367 cp819 csascii \
    csisolatin1 cswindows1252 ibm367 ibm819 iso-8859-1 iso-ir-100 iso-ir-6 iso646-us iso8859-1 \
    iso88591 iso_646.irv:1991 iso_8859-1 iso_8859-1:1987 l1 latin1 us us-ascii windows-1252 \
    x-cp1252";

/// Optional white space (RFC 9110, section 5.6.3).
pub(crate) const OWS: [char; 2] = [' ', '\t'];

/// A request's content type. The dialects `vision` and `firstvision` distinguish only these types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`.
    #[default]
    Json,
    /// `application/octet-stream`.
    OctetStream,
    /// Any other content type. No client can be registered with this value.
    Other,
}

impl ContentType {
    /// Returns the content type for `media_type`, which must have no parameters.
    pub fn of(media_type: &str) -> Self {
        if media_type.eq_ignore_ascii_case("application/json") {
            Self::Json
        } else if media_type.eq_ignore_ascii_case("application/octet-stream") {
            Self::OctetStream
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_clients_send() {
        let plain = MediaType::parse("application/x-www-form-urlencoded").unwrap();
        assert!(plain.is("application/x-www-form-urlencoded"));
        assert_eq!(plain.charset(), Charset::Utf8);

        let curl = MediaType::parse("multipart/form-data; boundary=----1x").unwrap();
        assert_eq!(curl.boundary.as_deref(), Some("----1x"));

        let quoted =
            MediaType::parse("Multipart/Form-Data ;charset=\"UTF-8\"; boundary=\"a;\\\"b\";");
        let quoted = quoted.unwrap();
        assert!(quoted.is("multipart/form-data"));
        assert_eq!(quoted.charset(), Charset::Utf8);
        assert_eq!(quoted.boundary.as_deref(), Some("a;\"b"));

        let label = MediaType::parse("text/plain; charset=\"\"").unwrap();
        assert_eq!(label.charset(), Charset::Other);
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
