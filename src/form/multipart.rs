//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), the type that the `connect`
//! documentation names.
//!
//! multer reads the parts and their headers. It has no limits of its own, takes names out of file
//! names, drops all but the last of a repeated header, obeys a part's charset and replaces bad
//! bytes. So the body is collected under its limit first, and every part is checked here.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use compact_str::CompactString;
use futures_util::{FutureExt, stream};
use memchr::memmem;
use multer::{Field, Multipart};
use smallvec::SmallVec;

use crate::form::media_type::{Charset, MediaType, OWS, is_token, read_value};
use crate::form::parameters::{BYTE_ORDER_MARK, Entries, FormError, Parameter, Parameters};

/// The parts of one body. It owns what [`Parts::parameters`] borrows.
pub struct Parts {
    entries: SmallVec<[(CompactString, Bytes); 5]>,
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
        // The whole body is there: if multer still waits, the body ends too early.
        let read = Self::read_all(body, boundary, max_parts).now_or_never();
        read.unwrap_or(Err(FormError::Unclosed))
    }

    async fn read_all(body: Bytes, boundary: &str, max_parts: usize) -> Result<Self, FormError> {
        let mut raw = RawHeaders::new(&body, boundary);
        let once = stream::iter([Ok::<_, Infallible>(body.clone())]);
        let mut multipart = Multipart::new(once, boundary);
        let mut entries = SmallVec::new();
        while let Some(mut field) = multipart.next_field().await.map_err(|e| classify(&e))? {
            if entries.len() == max_parts {
                return Err(FormError::TooMany);
            }
            if raw.next_count() != field.headers().len() {
                return Err(FormError::PartHeaders);
            }
            let charset = part_charset(&field)?;
            let name = CompactString::from(part_name(&field)?);
            // The whole value: multer was given the body in one piece.
            let value = field.chunk().await.map_err(|e| classify(&e))?.unwrap_or_default();
            if !charset.fits(value.is_ascii()) {
                return Err(FormError::PartCharset);
            }
            raw.skip_value(value.len());
            entries.push((name, value));
        }
        Ok(Self { entries })
    }

    /// The parts as parameters.
    ///
    /// # Errors
    ///
    /// [`FormError::NotUtf8`] and [`FormError::Repeated`].
    pub fn parameters(&self) -> Result<Parameters<'_>, FormError> {
        let entries = self.entries.iter().map(|(name, value)| {
            let value = std::str::from_utf8(value).map_err(|_| FormError::NotUtf8)?;
            Ok(Parameter(Cow::Borrowed(name), Cow::Borrowed(value)))
        });
        Parameters::new(entries.collect::<Result<Entries<'_>, _>>()?)
    }
}

/// Counts the header lines of each part. multer keeps only the last of a repeated header, so a
/// repetition shows as fewer headers than lines.
struct RawHeaders<'b> {
    rest: &'b [u8],
}

impl<'b> RawHeaders<'b> {
    fn new(body: &'b [u8], boundary: &str) -> Self {
        let delimiter = [b"--", boundary.as_bytes()].concat();
        Self { rest: memmem::find(body, &delimiter).map_or(&[], |at| &body[at..]) }
    }

    /// The number of lines between the next delimiter and the empty line.
    fn next_count(&mut self) -> usize {
        let end = memmem::find(self.rest, b"\r\n\r\n").unwrap_or(self.rest.len());
        let (head, after) = self.rest.split_at(end);
        self.rest = after;
        head.split(|&byte| byte == b'\n').skip(1).count()
    }

    /// Skips the empty line and a value of `length` bytes, to the next delimiter.
    fn skip_value(&mut self, length: usize) {
        self.rest = self.rest.get(length + 6..).unwrap_or_default();
    }
}

/// The charset that a part's text is labelled with. An empty Content-Type counts as none.
fn part_charset(field: &Field<'static>) -> Result<Charset, FormError> {
    let content_type = part_header(field, "content-type")?.unwrap_or_default();
    if content_type.trim_matches(OWS).is_empty() {
        return Ok(Charset::Utf8);
    }
    MediaType::parse(content_type).map(|read| read.charset()).ok_or(FormError::PartHeaders)
}

/// The name of a part. A part with a file name or a transfer encoding is refused.
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
        // Some parsers read the extended parameters of RFC 2231 and RFC 8187 (`filename*`,
        // `filename*0`, `name*`) as the parameters that they extend.
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
