//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), the type that the `connect`
//! documentation names.
//!
//! multer finds the parts. It has no limits of its own, takes names out of file names, obeys a
//! part's charset and replaces bad bytes; so it is fed a body that was collected under the limit,
//! in one piece, and every part is judged here from its raw header and bytes.

use std::borrow::Cow;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use memchr::memmem;
use multer::{Field, Multipart};
use smallvec::SmallVec;

use crate::form::media_type::{Charset, MediaType, OWS, is_token, read_value};
use crate::form::parameters::{BYTE_ORDER_MARK, FormError, Parameters};

/// The parts of one body. It owns what [`Parts::parameters`] borrows.
pub struct Parts {
    /// All names, one after the other: one allocation instead of one for each.
    names: String,
    entries: SmallVec<[(Range<usize>, Bytes); 5]>,
}

impl Parts {
    /// Splits `body`, which must hold at most `max_parts` parts.
    ///
    /// # Errors
    ///
    /// Any [`FormError`] but `Repeated` and `PercentEncoding`; nothing of the body may be used
    /// then.
    pub fn read(body: Bytes, boundary: &str, max_parts: usize) -> Result<Self, FormError> {
        if !is_boundary(boundary) {
            return Err(FormError::Boundary);
        }
        if body.starts_with(BYTE_ORDER_MARK) {
            return Err(FormError::ByteOrderMark);
        }
        if has_repeated_part_header(&body, boundary) {
            return Err(FormError::PartHeaders);
        }

        let once = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        let mut multipart = Multipart::new(once, boundary);
        let mut parts = Self { names: String::with_capacity(64), entries: SmallVec::new() };
        while let Some(mut field) = next_field(&mut multipart)? {
            if parts.entries.len() == max_parts {
                return Err(FormError::TooMany);
            }
            let start = parts.names.len();
            let charset = part_charset(&field)?;
            parts.names.push_str(&part_name(&field)?);
            let name = start..parts.names.len();
            let value = part_value(&mut field)?;
            if !charset.fits(value.is_ascii()) {
                return Err(FormError::PartCharset);
            }
            parts.entries.push((name, value));
        }
        Ok(parts)
    }

    /// The parts as parameters.
    ///
    /// # Errors
    ///
    /// [`FormError::NotUtf8`] and [`FormError::Repeated`].
    pub fn parameters(&self) -> Result<Parameters<'_>, FormError> {
        // All of it must be text before any of it counts, as in the other encoding.
        if self.entries.iter().any(|(_, value)| std::str::from_utf8(value).is_err()) {
            return Err(FormError::NotUtf8);
        }
        let mut parameters = Parameters::default();
        for (name, value) in &self.entries {
            let value = std::str::from_utf8(value).map_err(|_| FormError::NotUtf8)?;
            parameters.push(Cow::Borrowed(&self.names[name.clone()]), Cow::Borrowed(value))?;
        }
        Ok(parameters)
    }
}

fn next_field(multipart: &mut Multipart<'static>) -> Result<Option<Field<'static>>, FormError> {
    match multipart.poll_next_field(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(field)) => Ok(field),
        Poll::Ready(Err(error)) => Err(classify(&error)),
        // The whole body is there: whoever still waits, waits for what was never sent.
        Poll::Pending => Err(FormError::Unclosed),
    }
}

fn part_value(field: &mut Field<'static>) -> Result<Bytes, FormError> {
    let mut value = Bytes::new();
    loop {
        match Pin::new(&mut *field).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(chunk))) if value.is_empty() => value = chunk,
            Poll::Ready(Some(Ok(chunk))) => value = [value, chunk].concat().into(),
            Poll::Ready(Some(Err(error))) => return Err(classify(&error)),
            Poll::Ready(None) => return Ok(value),
            Poll::Pending => return Err(FormError::Unclosed),
        }
    }
}

/// The charset that a part's text is labelled with. An empty type is as none.
fn part_charset(field: &Field<'static>) -> Result<Charset, FormError> {
    let content_type = part_header(field, "content-type")?.unwrap_or_default();
    if content_type.trim_matches(OWS).is_empty() {
        return Ok(Charset::Utf8);
    }
    MediaType::parse(content_type).map(|read| read.charset()).ok_or(FormError::PartHeaders)
}

/// The name of a part, from its own header and nowhere else. A part that is a file, or has an
/// encoding of its own, is refused.
fn part_name<'f>(field: &'f Field<'static>) -> Result<Cow<'f, str>, FormError> {
    // RFC 7578, section 4.7: deprecated, and nothing here would decode it.
    if part_header(field, "content-transfer-encoding")?.is_some_and(|encoding| {
        !["7bit", "8bit", "binary"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
    }) {
        return Err(FormError::PartHeaders);
    }
    let disposition = part_header(field, "content-disposition")?;
    disposition_name(disposition.ok_or(FormError::PartHeaders)?)
}

fn part_header<'f>(field: &'f Field<'static>, name: &str) -> Result<Option<&'f str>, FormError> {
    let Some(value) = field.headers().get(name) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| FormError::NotUtf8)
}

/// RFC 7578, section 4.2: `form-data; name="…"`, and no `filename`. A `;` may end it.
fn disposition_name(disposition: &str) -> Result<Cow<'_, str>, FormError> {
    let (kind, mut rest) = disposition.split_at(disposition.find(';').unwrap_or(disposition.len()));
    if !kind.trim_matches(OWS).eq_ignore_ascii_case("form-data") {
        return Err(FormError::PartHeaders);
    }

    let mut found = None;
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(OWS);
        if parameter.is_empty() || parameter.starts_with(';') {
            rest = parameter;
            continue;
        }
        let (name, value) = parameter.split_once('=').ok_or(FormError::PartHeaders)?;
        let name = name.trim_matches(OWS);
        if !is_token(name) {
            return Err(FormError::PartHeaders);
        }
        // RFC 2231 and RFC 8187: `filename*`, `filename*0`, `name*` and their kind are read by some as
        // what they extend.
        let plain = name.split('*').next().unwrap_or(name);
        if plain.eq_ignore_ascii_case("filename") {
            return Err(FormError::FileName);
        }
        if plain.eq_ignore_ascii_case("name") && plain != name {
            return Err(FormError::PartHeaders);
        }
        let (value, after) =
            read_value(value.trim_start_matches(OWS)).ok_or(FormError::PartHeaders)?;
        if name.eq_ignore_ascii_case("name") && found.replace(value).is_some() {
            return Err(FormError::PartHeaders);
        }
        rest = after.trim_start_matches(OWS);
    }
    found.filter(|_| rest.is_empty()).ok_or(FormError::PartHeaders)
}

/// Whether a part says the same header twice, of which the parser keeps the last and drops the first
/// unseen, or has more headers than it takes.
///
/// The header blocks are found as the parser finds them, from one delimiter to the next.
fn has_repeated_part_header(body: &[u8], boundary: &str) -> bool {
    let Some(mut rest) = after_first_delimiter(body, boundary.as_bytes()) else { return false };
    while !rest.starts_with(b"--")
        && let Some(end) = memmem::find(rest, b"\r\n\r\n")
    {
        let mut names = SmallVec::<[&[u8]; 4]>::new();
        for line in rest[..end].split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let name = &line[..colon];
            if names.len() == MAX_PART_HEADERS
                || names.iter().any(|known| known.eq_ignore_ascii_case(name))
            {
                return true;
            }
            names.push(name);
        }
        let value = &rest[end + 4..];
        let Some(next) = memmem::find_iter(value, b"\r\n--")
            .map(|at| &value[at + 4..])
            .find_map(|after| after.strip_prefix(boundary.as_bytes()))
        else {
            return false;
        };
        rest = next;
    }
    false
}

/// What comes after the first delimiter. It may open the body, where no line break precedes it, or
/// stand behind a preamble (RFC 2046, section 5.1.1).
fn after_first_delimiter<'b>(body: &'b [u8], boundary: &[u8]) -> Option<&'b [u8]> {
    let behind = |at: usize| body[at..].strip_prefix(b"--")?.strip_prefix(boundary);
    (0..body.len()).find_map(behind)
}

/// multer's own limit.
const MAX_PART_HEADERS: usize = 32;

/// RFC 2046, section 5.1.1: 1 to 70 `bchars`, of which the last is not a space.
fn is_boundary(boundary: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=70).contains(&boundary.len()) && boundary.bytes().all(allowed) && !boundary.ends_with(' ')
}

fn classify(error: &multer::Error) -> FormError {
    match error {
        multer::Error::IncompleteStream
        | multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders => FormError::Unclosed,
        _ => FormError::PartHeaders,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Parts, FormError> {
        Parts::read(Bytes::copy_from_slice(body.as_bytes()), "X", 4)
    }

    fn part(headers: &str, value: &str) -> String {
        format!("--X\r\n{headers}\r\n\r\n{value}\r\n")
    }

    const NAMED: &str = "Content-Disposition: form-data; name=\"scope\"";

    #[test]
    fn reads_what_curl_sends() {
        let body = part(NAMED, "a b")
            + &part("content-disposition:form-data;name=id\r\nContent-Type: text/plain", "é")
            + "--X--\r\n";
        let parts = read(&body).unwrap();
        let parameters = parts.parameters().unwrap();
        assert_eq!(parameters.get("scope"), Some("a b"));
        assert_eq!(parameters.get("id"), Some("é"));
        assert!(read("--X--\r\n").unwrap().parameters().unwrap().count() == 0);
    }

    #[test]
    fn refuses_what_the_parser_would_let_through() {
        for (headers, error) in [
            ("Content-Disposition: form-data; name=\"scope\"; filename=\"a\"", FormError::FileName),
            (
                "Content-Disposition: form-data; name=\"scope\"; FileName*=utf-8''a",
                FormError::FileName,
            ),
            (
                "Content-Disposition: form-data; filename=\"x; name=client_id; y\"; name=\"scope\"",
                FormError::FileName,
            ),
            ("Content-Disposition: form-data; filename*0=x; name=\"scope\"", FormError::FileName),
            (
                "Content-Disposition: form-data; name=\"scope\"; name*=utf-8''client_id",
                FormError::PartHeaders,
            ),
            ("Content-Disposition: form-data; name*0=scope", FormError::PartHeaders),
            ("Content-Disposition: form-data", FormError::PartHeaders),
            ("Content-Disposition: attachment; name=\"scope\"", FormError::PartHeaders),
            ("Content-Disposition: form-data; name=\"a\"; name=\"b\"", FormError::PartHeaders),
            ("Content-Disposition: form-data; name=\"scope", FormError::PartHeaders),
            ("Content-Type: text/plain", FormError::PartHeaders),
            (
                "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b",
                FormError::PartHeaders,
            ),
            (
                "Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=utf-16",
                FormError::PartCharset,
            ),
            (
                "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
                FormError::PartHeaders,
            ),
        ] {
            let body = part(headers, "x") + "--X--\r\n";
            assert_eq!(read(&body).err(), Some(error), "{headers}");
        }
    }

    #[test]
    fn refuses_a_body_that_does_not_close() {
        let whole = part(NAMED, "x") + "--X--";
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).err(), Some(FormError::Unclosed), "cut at {end}");
        }
        assert!(read(&whole).is_ok());
    }

    #[test]
    fn bounds_the_boundary_and_the_parts() {
        for boundary in ["", "a\"b", "ends with ", &"x".repeat(71)] {
            assert_eq!(
                Parts::read(Bytes::from_static(b"--X--"), boundary, 4).err(),
                Some(FormError::Boundary)
            );
        }
        let parts = |count: usize| {
            let mut body = String::new();
            for index in 0..count {
                body += &part(&format!("Content-Disposition: form-data; name=\"{index}\""), "x");
            }
            body + "--X--"
        };
        assert!(read(&parts(4)).is_ok());
        assert_eq!(read(&parts(5)).err(), Some(FormError::TooMany));
    }

    #[test]
    fn refuses_bad_text() {
        let mut body = part(NAMED, "\u{1}").into_bytes();
        body.extend_from_slice(b"--X--");
        let body: Vec<u8> = body.into_iter().map(|b| if b == 1 { 0xff } else { b }).collect();
        let parts = Parts::read(body.into(), "X", 4).unwrap();
        assert_eq!(parts.parameters().err(), Some(FormError::NotUtf8));
    }
}
