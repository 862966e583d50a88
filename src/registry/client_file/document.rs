//! The registry as a JSON document, and the positions of its parts.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::fault::text::json_problem;
use crate::fault::{Fault, Position};
use crate::fs::whole_file;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document<'a> {
    #[serde(borrow)]
    pub(super) clients: Vec<&'a RawValue>,
}

/// A JSON string. It is copied only if it contains escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The members of a JSON object, in the order of the text.
pub(super) struct Members<'t>(pub(super) Vec<(Text<'t>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(TYPICAL_FIELDS);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
}

/// Most entries have at most this number of fields.
const TYPICAL_FIELDS: usize = 12;

pub(super) fn document_fault(file: &Path, text: &str, error: &serde_json::Error) -> Fault {
    Fault::new(file, structure_problem(error)).at(Position::of_json(text, error))
}

/// Returns serde_json's message if the error is in the syntax or about the name of a field. Any
/// other message may quote a value, which may be a secret, and is replaced by a fixed text.
pub(super) fn structure_problem(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return json_problem(error);
    }
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    if ["unknown field", "missing field", "duplicate field"].iter().any(|m| message.starts_with(m))
    {
        message.to_owned()
    } else {
        "must be {\"clients\": [{…}, …]}".to_owned()
    }
}

/// A value that is read from a JSON object alone: serde can read a struct from an array of its
/// fields, too.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfObject<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfObject(PhantomData))
    }
}

/// Returns the line and column at which `part` begins in `text`. `part` must be a slice of `text`.
pub fn place_in(text: &str, part: &str) -> Position {
    Position::of(text, offset_in(text, part))
}

/// Returns the byte offset at which `part` begins in `text`. `part` must be a slice of `text`.
pub(super) fn offset_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// Returns the `client_id` of an entry. The values of the other fields are not checked.
pub fn id_of(entry: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        client_id: Cow<'a, str>,
    }
    serde_json::from_str::<Id<'_>>(entry).ok().map(|id| id.client_id)
}

/// Refuses a world-writable file.
pub(super) fn require_closed(file: &Path) -> Result<(), Fault> {
    let metadata = std::fs::metadata(file);
    if metadata.is_ok_and(|metadata| whole_file::is_world_writable(&metadata.permissions())) {
        let problem = "can be written by everyone on this machine: see who is registered, and run \
                       chmod o-w on it";
        return Err(Fault::new(file, problem));
    }
    Ok(())
}
