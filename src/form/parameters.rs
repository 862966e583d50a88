//! The parameters of one request, in any encoding.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use smallvec::SmallVec;

/// Names and values in the order they were sent.
///
/// The same rules hold for every encoding (RFC 6749, section 3.2): a repeated parameter is refused
/// (except `resource`, RFC 8707 section 2), and one without a value counts as absent.
#[derive(Default)]
pub struct Parameters<'a> {
    entries: Entries<'a>,
}

/// A token request has three to five parameters: five fit without a heap allocation.
pub(crate) type Entries<'a> = SmallVec<[Parameter<'a>; 5]>;

/// A name and its value, borrowed from the body where nothing had to be decoded.
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
    /// [`FormError::Repeated`] if the name is present and may not repeat.
    pub fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), FormError> {
        if name != REPEATABLE && self.contains(&name) {
            return Err(FormError::Repeated);
        }
        self.entries.push(Parameter(name, value));
        Ok(())
    }

    /// The value of `name`, unless it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of `name` that is not empty, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(move |Parameter(key, value)| key == name && !value.is_empty())
            .map(|Parameter(_, value)| value.as_ref())
    }

    /// Whether `name` was sent at all, even without a value.
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

    /// How many parameters were sent.
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

/// Names only: any value may be a secret.
impl fmt::Debug for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// The multipart boundary is missing, empty, longer than 70 characters or of other characters
    /// than RFC 2046 section 5.1.1 allows.
    Boundary,
    /// The body opens with a byte order mark.
    ByteOrderMark,
    /// There is no body.
    Empty,
    /// A part is a file.
    FileName,
    /// A JSON body is of another shape than an object.
    JsonShape,
    /// The body is not JSON.
    JsonSyntax,
    /// A JSON member is of another type than text.
    JsonType,
    /// A value or name is not UTF-8.
    NotUtf8,
    /// The body of a form is a JSON object.
    Object,
    /// The charset label of a part does not permit its text.
    PartCharset,
    /// A part's headers cannot be read, or do not say `form-data` with one name.
    PartHeaders,
    /// A `%` is not followed by two hexadecimal digits.
    PercentEncoding,
    /// A parameter is repeated.
    Repeated,
    /// There are more parameters than the limit.
    TooMany,
    /// The multipart body ends before its closing boundary.
    Unclosed,
}

/// The one parameter that may be sent more than once.
const REPEATABLE: &str = "resource";

/// A byte order mark in UTF-8. As part of the first name it would hide that parameter.
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

    #[test]
    fn only_resource_repeats_and_empty_counts_as_absent() {
        let mut parameters = Parameters::default();
        for value in ["a", "", "b"] {
            parameters.push("resource".into(), value.into()).unwrap();
        }
        assert_eq!(parameters.all("resource").collect::<Vec<_>>(), ["a", "b"]);

        parameters.push("scope".into(), "".into()).unwrap();
        assert_eq!(parameters.get("scope"), None);
        assert!(parameters.contains("scope"));
        assert_eq!(parameters.push("scope".into(), "x".into()), Err(FormError::Repeated));
    }
}
