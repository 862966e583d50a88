//! Reads one header field.

use hyper::header::{AsHeaderName, HeaderMap};

use crate::oauth::header_field::HeaderField;

/// Reads a header field that must not be repeated.
pub(super) fn single(headers: &HeaderMap, name: impl AsHeaderName) -> HeaderField<'_> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => HeaderField::Absent,
        (Some(value), None) => HeaderField::Present(value.as_bytes()),
        (_, Some(_)) => HeaderField::Repeated,
    }
}
