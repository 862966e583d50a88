//! Parses `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), the encoding that the
//! documentation of the `connect` dialect describes.
//!
//! The crate multer splits the body into parts and parses their headers. By itself, multer sets no
//! limits, may find the name of a part inside a file name, keeps only the last of repeated headers,
//! decodes text by the charset of its part, and replaces invalid bytes. So the caller collects the
//! whole body, up to a size limit, before multer reads it. This module checks every part, and
//! decodes names and values without multer.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use compact_str::CompactString;
use futures_util::{FutureExt, stream};
use memchr::{memchr_iter, memmem};
use multer::{Field, Multipart};
use smallvec::SmallVec;

use crate::form::media_type::{Charset, MediaType, OWS, is_token, read_value};
use crate::form::parameters::{
    BYTE_ORDER_MARK, Entries, FormError, Parameter, Parameters, PartFault,
};

/// The names and values of the parts of one body. [`Parts::parameters`] borrows from them.
pub struct Parts {
    entries: SmallVec<[(CompactString, Bytes); 5]>,
}

impl Parts {
    /// Parses `body`, which must contain at most `max_parts` parts.
    ///
    /// # Errors
    ///
    /// A [`FormError`] that names a fault of a multipart body, or `ByteOrderMark`, `NotUtf8` or
    /// `TooMany`. After an error, the caller must refuse the whole body.
    pub fn read(body: Bytes, boundary: &str, max_parts: usize) -> Result<Self, FormError> {
        if !is_boundary(boundary) {
            return Err(FormError::Boundary);
        }
        if body.starts_with(BYTE_ORDER_MARK) {
            return Err(FormError::ByteOrderMark);
        }
        // If multer waits for more data although it has the whole body, the closing boundary is
        // missing.
        let read = Self::read_all(body, boundary, max_parts).now_or_never();
        read.unwrap_or(Err(FormError::Unclosed))
    }

    async fn read_all(body: Bytes, boundary: &str, max_parts: usize) -> Result<Self, FormError> {
        let mut raw = RawHeaders::new(&body, boundary);
        let once = stream::iter([Ok::<_, Infallible>(body.clone())]);
        let mut multipart = Multipart::new(once, boundary);
        let mut entries = SmallVec::new();
        loop {
            let next = multipart.next_field().await.map_err(|error| raw.fault(&error))?;
            let Some(mut field) = next else { break };
            if entries.len() == max_parts {
                return Err(FormError::TooMany);
            }
            raw.check_next(field.headers().len())?;
            let charset = part_charset(&field)?;
            let name = CompactString::from(part_name(&field)?);
            // The first chunk is the whole value, because multer received the body in one piece.
            let value = field.chunk().await.map_err(|error| raw.fault(&error))?;
            let value = value.unwrap_or_default();
            if !charset.fits(value.is_ascii()) {
                return Err(FormError::PartCharset);
            }
            raw.skip_value(value.len());
            entries.push((name, value));
        }
        Ok(Self { entries })
    }

    /// Returns the parts as parameters.
    ///
    /// # Errors
    ///
    /// [`FormError::NotUtf8`] if a value is not UTF-8, and [`FormError::Repeated`] if two parts
    /// have the same name (except `resource`).
    pub fn parameters(&self) -> Result<Parameters<'_>, FormError> {
        let entries = self.entries.iter().map(|(name, value)| {
            let value = std::str::from_utf8(value).map_err(|_| FormError::NotUtf8)?;
            Ok(Parameter(Cow::Borrowed(name), Cow::Borrowed(value)))
        });
        Parameters::new(entries.collect::<Result<Entries<'_>, _>>()?)
    }
}

/// Counts the header lines of each part in the raw body. multer keeps only the last of repeated
/// headers. So if a part has more header lines than multer returns headers, a header is repeated.
struct RawHeaders<'b> {
    /// The body from the next delimiter on.
    rest: &'b [u8],
    delimiter: Vec<u8>,
}

impl<'b> RawHeaders<'b> {
    fn new(body: &'b [u8], boundary: &str) -> Self {
        let delimiter = [b"--", boundary.as_bytes()].concat();
        Self { rest: memmem::find(body, &delimiter).map_or(&[], |at| &body[at..]), delimiter }
    }

    /// Compares the next part with the number of headers that multer has read, and skips the
    /// headers.
    fn check_next(&mut self, read: usize) -> Result<(), FormError> {
        let (head, after) = self.next_head();
        self.rest = after;
        if count_lines(head) == read {
            return Ok(());
        }
        // multer also ends a line, and with an empty one the headers, at a line feed alone.
        let has_bare_line_feed = memchr_iter(b'\n', head).any(|at| !head[..at].ends_with(b"\r"));
        let fault = if has_bare_line_feed { PartFault::Syntax } else { PartFault::Repeated };
        Err(FormError::PartHeaders(fault))
    }

    /// Returns the delimiter and the headers of the next part, up to the first empty line, and what
    /// follows them.
    fn next_head(&self) -> (&'b [u8], &'b [u8]) {
        self.rest.split_at(memmem::find(self.rest, b"\r\n\r\n").unwrap_or(self.rest.len()))
    }

    /// Returns the fault of the next part, at which multer has stopped with `error`.
    fn fault(&self, error: &multer::Error) -> FormError {
        let (head, _) = self.next_head();
        let closing = [b"\r\n", &*self.delimiter, b"--"].concat();
        let is_closed = memmem::find(self.rest, &closing).is_some();
        match error {
            multer::Error::IncompleteStream
            | multer::Error::IncompleteFieldData { .. }
            | multer::Error::IncompleteHeaders
                if !is_closed =>
            {
                FormError::Unclosed
            }
            _ if head.len() < self.rest.len() && count_lines(head) == 0 => NOT_ONE_NAME,
            _ if count_lines(head) > MAX_HEADERS => FormError::PartHeaders(PartFault::TooMany),
            _ => FormError::PartHeaders(PartFault::Syntax),
        }
    }

    /// Skips the empty line, a value of `length` bytes, and the line break before the next
    /// delimiter.
    fn skip_value(&mut self, length: usize) {
        self.rest = self.rest.get(length + 6..).unwrap_or_default();
    }
}

/// Returns the charset in the part's Content-Type; UTF-8 if the Content-Type is missing or empty.
fn part_charset(field: &Field<'static>) -> Result<Charset, FormError> {
    let content_type = part_header(field, "content-type")?.unwrap_or_default();
    if content_type.trim_matches(OWS).is_empty() {
        return Ok(Charset::Utf8);
    }
    let fault = FormError::PartHeaders(PartFault::ContentType);
    MediaType::parse(content_type).map(|read| read.charset()).ok_or(fault)
}

/// Returns the part's name. Refuses a part with a file name, or with a transfer encoding that would
/// have to be decoded.
fn part_name<'f>(field: &'f Field<'static>) -> Result<Cow<'f, str>, FormError> {
    // Content-Transfer-Encoding is deprecated (RFC 7578, section 4.7). Only the three encodings
    // that leave the value unchanged are accepted.
    if part_header(field, "content-transfer-encoding")?.is_some_and(|encoding| {
        !["7bit", "8bit", "binary"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
    }) {
        return Err(FormError::PartHeaders(PartFault::Encoding));
    }
    let disposition = part_header(field, "content-disposition")?;
    disposition_name(disposition.ok_or(NOT_ONE_NAME)?)
}

fn part_header<'f>(field: &'f Field<'static>, name: &str) -> Result<Option<&'f str>, FormError> {
    let Some(value) = field.headers().get(name) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| FormError::NotUtf8)
}

/// Returns the name in a Content-Disposition of the form `form-data; name="…"` (RFC 7578, section
/// 4.2). Refuses a `filename`. A `;` may follow the last parameter.
fn disposition_name(disposition: &str) -> Result<Cow<'_, str>, FormError> {
    let (kind, mut rest) = disposition.split_at(disposition.find(';').unwrap_or(disposition.len()));
    if !kind.trim_matches(OWS).eq_ignore_ascii_case("form-data") {
        return Err(NOT_ONE_NAME);
    }

    let mut found = None;
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(OWS);
        if parameter.is_empty() || parameter.starts_with(';') {
            rest = parameter;
            continue;
        }
        let (name, value) = parameter.split_once('=').ok_or(NOT_ONE_NAME)?;
        let name = name.trim_matches(OWS);
        if !is_token(name) {
            return Err(NOT_ONE_NAME);
        }
        // Extended parameters (`filename*`, `filename*0`, `name*`; RFC 2231, RFC 8187) are refused,
        // because some parsers treat them as `filename` or `name`.
        let plain = name.split('*').next().unwrap_or(name);
        if plain.eq_ignore_ascii_case("filename") {
            return Err(FormError::FileName);
        }
        if plain.eq_ignore_ascii_case("name") && plain != name {
            return Err(NOT_ONE_NAME);
        }
        let (value, after) = read_value(value.trim_start_matches(OWS)).ok_or(NOT_ONE_NAME)?;
        if name.eq_ignore_ascii_case("name") && found.replace(value).is_some() {
            return Err(NOT_ONE_NAME);
        }
        rest = after.trim_start_matches(OWS);
    }
    found.filter(|_| rest.is_empty()).ok_or(NOT_ONE_NAME)
}

/// Whether `boundary` consists of 1 to 70 `bchars`, the last of which is not a space (RFC 2046,
/// section 5.1.1).
fn is_boundary(boundary: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=70).contains(&boundary.len()) && boundary.bytes().all(allowed) && !boundary.ends_with(' ')
}

/// Returns the number of lines after the delimiter's line.
fn count_lines(head: &[u8]) -> usize {
    memchr_iter(b'\n', head).count()
}

const NOT_ONE_NAME: FormError = FormError::PartHeaders(PartFault::Disposition);

/// The number of headers that multer accepts in a part.
const MAX_HEADERS: usize = 32;
