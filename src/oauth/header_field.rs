//! A header field that a request may have once.

use std::fmt;

/// A header field of a request.
#[derive(Clone, Copy, Default)]
pub enum HeaderField<'a> {
    /// The request does not have the field.
    #[default]
    Absent,
    /// The value of the only field with the name.
    Present(&'a [u8]),
    /// The request has the field two or more times.
    Repeated,
}

impl<'a> HeaderField<'a> {
    /// Whether the request has the field, once or repeated. If it has `Authorization`, failed
    /// client authentication is answered with status 401 instead of 400 (RFC 6749, section 5.2).
    pub fn is_present(self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The value; `None` if the field is absent or repeated.
    pub fn value(self) -> Option<&'a [u8]> {
        if let Self::Present(value) = self { Some(value) } else { None }
    }
}

/// Hides the value, which may be a credential.
impl fmt::Debug for HeaderField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Present(_) => "Present(…)",
            Self::Repeated => "Repeated",
        })
    }
}
