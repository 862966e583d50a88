//! Finds a name that an object in a JSON text repeats. Parsers differ in which of the two members
//! they take.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// A name that an object in a JSON value repeats, at any depth; `None` if there is no such name.
/// Reading it drops the value: of each object that is being read, only the names are kept.
pub struct RepeatedName<'a>(pub Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for RepeatedName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfValue)
    }
}

struct OfValue;

impl<'de> Visitor<'de> for OfValue {
    type Value = RepeatedName<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(RepeatedName(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut repeated = None;
        while let Some(RepeatedName(found)) = list.next_element()? {
            repeated = repeated.or(found);
        }
        Ok(RepeatedName(repeated))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut repeated = None;
        let mut names = BTreeSet::new();
        while let Some((Name(name), RepeatedName(found))) = object.next_entry()? {
            repeated = repeated.or(found);
            if let Some(name) = names.replace(name) {
                repeated = repeated.or(Some(name));
            }
        }
        Ok(RepeatedName(repeated))
    }
}

/// The name of a member. It is copied only if it contains escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_repeated_name_at_any_depth() {
        for (text, repeated) in [
            (r#"{"a":1,"a":1}"#, Some("a")),
            (r#"{"a":1,"\u0061":{}}"#, Some("a")),
            (r#"[1.5,-1,true,"x",null,{"b":[{"é":[],"x":{},"é":0}]}]"#, Some("é")),
            (r#"{"a":{"a":[{"a":1},{"a":1}]},"A":1}"#, None),
            ("{}", None),
            ("\"a\"", None),
        ] {
            let RepeatedName(found) = serde_json::from_str(text).unwrap();
            assert_eq!(found.as_deref(), repeated, "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(serde_json::from_str::<RepeatedName<'_>>(&deep).is_err());
    }
}
