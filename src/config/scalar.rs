//! Settings whose value may be of more than one type.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// A value that has no parts.
pub(super) enum Scalar<'v> {
    Text(&'v str),
    Number(i64),
    Switch(bool),
}

/// Deserializes a scalar and converts it by `read`. `problem` says what the value must be, and is
/// the error for a value that is no scalar.
pub(super) fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    problem: &'static str,
    read: fn(Scalar<'_>) -> Result<T, &'static str>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ScalarVisitor { problem, read })
}

struct ScalarVisitor<T> {
    problem: &'static str,
    read: fn(Scalar<'_>) -> Result<T, &'static str>,
}

impl<T> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem.trim_start_matches("must be "))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(Scalar::Text(text)).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        (self.read)(Scalar::Number(number)).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_bool<E: Error>(self, switch: bool) -> Result<T, E> {
        (self.read)(Scalar::Switch(switch)).map_err(E::custom)
    }
}
