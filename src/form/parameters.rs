//! The parameters of one request, in any encoding.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use smallvec::SmallVec;

/// The parameters of a request, in the order they were sent.
///
/// The rules are the same for every encoding (RFC 6749, section 3.2): a repeated parameter is
/// refused (except `resource`, RFC 8707, section 2), and a parameter without a value counts as
/// absent.
#[derive(Default)]
pub struct Parameters<'a> {
    entries: Entries<'a>,
}

/// Holds five parameters without a heap allocation; a token request has three to five.
pub(crate) type Entries<'a> = SmallVec<[Parameter<'a>; 5]>;

/// The name and the value of a parameter, borrowed from the body unless they had to be decoded.
#[derive(Deserialize)]
pub(crate) struct Parameter<'a>(
    #[serde(borrow)] pub(crate) Cow<'a, str>,
    #[serde(borrow)] pub(crate) Cow<'a, str>,
);

impl<'a> Parameters<'a> {
    pub(crate) fn new(entries: Entries<'a>) -> Result<Self, FormError> {
        let is_repeated = |(at, Parameter(name, _)): (usize, &Parameter<'a>)| {
            name != REPEATABLE && entries[..at].iter().any(|Parameter(earlier, _)| earlier == name)
        };
        if entries.iter().enumerate().any(is_repeated) {
            return Err(FormError::Repeated);
        }
        Ok(Self { entries })
    }

    /// Adds one parameter.
    ///
    /// # Errors
    ///
    /// [`FormError::Repeated`] if the name is already present and is not `resource`.
    pub fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), FormError> {
        if name != REPEATABLE && self.contains(&name) {
            return Err(FormError::Repeated);
        }
        self.entries.push(Parameter(name, value));
        Ok(())
    }

    /// Returns the first value of `name` that is not empty; `None` if there is no such value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Iterates over the values of `name` that are not empty, in the order they were sent.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(move |Parameter(key, value)| key == name && !value.is_empty())
            .map(|Parameter(_, value)| value.as_ref())
    }

    /// Whether a parameter `name` was sent, even without a value.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|key| key == name)
    }

    /// The names in the order they were sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|Parameter(name, _)| name.as_ref())
    }

    /// Whether every byte of every name and value is below 0x80.
    pub fn are_ascii(&self) -> bool {
        self.entries.iter().all(|Parameter(name, value)| name.is_ascii() && value.is_ascii())
    }

    /// The number of parameters that were sent.
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

/// Shows only the names: any value may be a secret.
impl fmt::Debug for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// The reason why a body or a query was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// The multipart boundary is missing, is empty, is longer than 70 characters, ends with a
    /// space, or contains a character that RFC 2046, section 5.1.1, does not allow.
    Boundary,
    /// The body begins with a byte order mark.
    ByteOrderMark,
    /// The body is empty or has only white space.
    Empty,
    /// A part has a file name.
    FileName,
    /// The JSON body is not an object.
    JsonShape,
    /// The body is not JSON.
    JsonSyntax,
    /// The value of a known member of the JSON object has the wrong type.
    JsonType,
    /// A value or name is not UTF-8.
    NotUtf8,
    /// The body is a JSON object, although its Content-Type is that of a form.
    Object,
    /// The charset in a part's Content-Type does not permit the part's text.
    PartCharset,
    /// The headers of a part have a fault.
    PartHeaders(PartFault),
    /// A `%` is not followed by two hexadecimal digits.
    PercentEncoding,
    /// A parameter other than `resource` is repeated.
    Repeated,
    /// There are more parameters than the limit.
    TooMany,
    /// The multipart body ends before its closing boundary.
    Unclosed,
}

/// A fault of the headers of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartFault {
    /// The Content-Type is not a media type.
    ContentType,
    /// The Content-Disposition is absent, or is not `form-data` with exactly one name.
    Disposition,
    /// The Content-Transfer-Encoding would have to be decoded.
    Encoding,
    /// A header is repeated.
    Repeated,
    /// A line is not a header, or the headers do not end.
    Syntax,
    /// There are more headers than the limit.
    TooMany,
}

/// The only parameter that may be sent more than once (RFC 8707, section 2).
const REPEATABLE: &str = "resource";

/// A byte order mark in UTF-8. It is refused because it would become a part of the first
/// parameter's name, so that this parameter would be ignored.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let mut parameters = Parameters::default();
        parameters.push("client_secret".into(), "hunter2".into()).unwrap();
        assert_eq!(format!("{parameters:?}"), r#"["client_secret"]"#);
    }
}
