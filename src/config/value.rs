//! A tree of settings from a file, a variable or a flag, and the deserializer that reads such a
//! tree into types.
//!
//! In a file, each value has a type, such as number, list or string. The text of a variable or a
//! flag has no type, so it is parsed as the type of its setting.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::de::{DeTable, DeValue};

/// A value of a file, or the text of a variable or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Table(Table),
    List(Vec<Self>),
    String(String),
    Number(i64),
    Bool(bool),
    /// A value of a type that no setting accepts, such as a date. The text describes the type in an
    /// error message.
    Other(&'static str),
    Text(String),
}

pub(super) type Table = BTreeMap<String, Value>;

impl From<&DeValue<'_>> for Value {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::String(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("so large a number"), Self::Number),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Boolean(value) => Self::Bool(*value),
            DeValue::Datetime(_) => Self::Other("a date or time"),
            DeValue::Array(values) => {
                Self::List(values.iter().map(|value| value.get_ref().into()).collect())
            }
            DeValue::Table(table) => Self::Table(table_of(table)),
        }
    }
}

pub(super) fn table_of(table: &DeTable<'_>) -> Table {
    table.iter().map(|(name, value)| (name.get_ref().to_string(), value.get_ref().into())).collect()
}

/// A fault in a tree of settings, and its position in the tree.
#[derive(Debug)]
pub(super) struct Problem {
    /// The path of the faulty value: the names of tables and settings, and the indices in lists.
    /// The innermost name or index is first.
    path: Vec<String>,
    /// Whether the innermost name of the path is wrong. Otherwise, the value at the path is wrong.
    pub(super) is_of_name: bool,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { path: Vec::new(), is_of_name: false, text: text.into() }
    }

    /// Returns the problem that `name` is not one of the names in `known`.
    pub(super) fn unknown(name: &str, known: &[&str]) -> Self {
        let text = match nearest(name, known) {
            Some(nearest) => format!("unknown setting `{name}`: did you mean `{nearest}`?"),
            None => format!("unknown setting `{name}`, expected one of `{}`", known.join("`, `")),
        };
        Self { path: vec![name.to_owned()], is_of_name: true, text }
    }

    /// Adds the next outer level to the path. `name` is the name or index of the faulty value in
    /// its table or list.
    pub(super) fn within(mut self, name: impl Into<String>) -> Self {
        self.path.push(name.into());
        self
    }

    /// Returns the path of the faulty value: the names of tables and settings, and the indices in
    /// lists. The outermost name or index is first.
    pub(super) fn path(&self) -> impl Iterator<Item = &str> {
        self.path.iter().rev().map(String::as_str)
    }

    /// Returns the path of the setting, as in `limits.body_bytes`, without the indices of lists.
    /// `None` if the path is empty or a name is wrong.
    pub(super) fn setting(&self) -> Option<String> {
        let is_index = |name: &&str| name.bytes().all(|byte| byte.is_ascii_digit());
        let names: Vec<_> = self.path().filter(|name| !is_index(name)).collect();
        (!names.is_empty() && !self.is_of_name).then(|| names.join("."))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting() {
            Some(setting) => write!(f, "{setting}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("must be {expected}"))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::unknown(name, known)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(format!("lacks `{name}`"))
    }
}

/// Returns the name in `known` that `name` was probably meant to be; `None` if no name is similar
/// enough.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let nearest = known.iter().map(|known| (edits(name, known), *known)).min();
    nearest.filter(|(edits, _)| *edits <= name.len() / 3).map(|(_, nearest)| nearest)
}

/// Returns the Levenshtein distance of two texts, in bytes.
fn edits(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in two.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

/// Parses a switch: true or false, 1 or 0, yes or no, on or off.
pub(crate) fn parse_switch(word: &str) -> Result<bool, &'static str> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false, 1 or 0, yes or no, on or off"),
    }
}

/// A deserializer that reads a value as the type of its setting.
#[derive(Clone, Copy)]
pub(super) enum Reader<'v> {
    Value(&'v Value),
    /// The text of a variable or a flag, or one element of a list in such a text.
    Text(&'v str),
}

impl<'v> Reader<'v> {
    pub(super) fn of_table(table: &'v Table) -> impl Deserializer<'v, Error = Problem> {
        de::value::MapAccessDeserializer::new(Members { rest: table.iter(), next: None })
    }

    fn of(value: &'v Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            value => Self::Value(value),
        }
    }

    fn is_not(self, expected: &dyn Expected) -> Problem {
        let found = match self {
            Self::Value(Value::Table(_)) => "a table",
            Self::Value(Value::List(_)) => "a list",
            Self::Value(Value::String(_)) => "a string",
            Self::Value(Value::Number(_)) => "a number",
            Self::Value(Value::Bool(_)) => "true or false",
            Self::Value(Value::Other(kind)) => kind,
            // The error message does not name the type of the value: the value of a variable or a
            // flag is always a text.
            Self::Value(Value::Text(_)) | Self::Text(_) => {
                return Problem::new(format!("must be {expected}"));
            }
        };
        Problem::new(format!("must be {expected}, not {found}"))
    }

    /// Returns the string. An empty string is an error, because no setting may be empty.
    fn string(self) -> Result<&'v str, Problem> {
        let text = match self {
            Self::Value(Value::String(text)) => text,
            Self::Text(text) => text,
            Self::Value(_) => return Err(self.is_not(&"a string")),
        };
        if text.is_empty() { Err(Problem::new("must not be empty")) } else { Ok(text) }
    }

    fn number<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        let number = match self {
            Self::Value(Value::Number(number)) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Value(_) => None,
        };
        match number {
            Some(number) => visitor.visit_i64(number),
            None => Err(self.is_not(&visitor)),
        }
    }
}

/// Implements the methods of all integer types in the same way.
macro_rules! deserialize_integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
            self.number(visitor)
        }
    )*};
}

impl<'v> Deserializer<'v> for Reader<'v> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Value(Value::Table(table)) => Self::of_table(table).deserialize_any(visitor),
            Self::Value(Value::List(_)) => self.deserialize_seq(visitor),
            Self::Value(Value::Number(_)) => self.number(visitor),
            Self::Value(Value::Bool(value)) => visitor.visit_bool(*value),
            Self::Value(Value::Other(_)) => Err(self.is_not(&visitor)),
            Self::Value(Value::String(_) | Value::Text(_)) | Self::Text(_) => {
                visitor.visit_borrowed_str(self.string()?)
            }
        }
    }

    fn deserialize_bool<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Value(Value::Bool(value)) => visitor.visit_bool(*value),
            Self::Text(word) => visitor.visit_bool(parse_switch(word).map_err(Problem::new)?),
            Self::Value(_) => Err(self.is_not(&"true or false")),
        }
    }

    deserialize_integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_str<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_borrowed_str(self.string()?)
    }

    fn deserialize_string<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    /// In text, the elements of a list are separated by commas.
    fn deserialize_seq<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Value(Value::List(list)) => {
                visitor.visit_seq(Elements(list.iter().map(Self::of).enumerate()))
            }
            Self::Text(text) => visitor
                .visit_seq(Elements(text.split(',').map(str::trim).map(Self::Text).enumerate())),
            Self::Value(_) => Err(self.is_not(&"a list, as in [\"…\", \"…\"]")),
        }
    }

    /// In text, the values of the fields are separated by `=`, in the order of the fields.
    fn deserialize_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self {
            Self::Value(Value::Table(table)) => Self::of_table(table).deserialize_any(visitor),
            Self::Text(text) => {
                let values: Vec<_> = text.split('=').map(Self::Text).collect();
                if values.len() != fields.len() {
                    return Err(Problem::new(format!("must be {}", fields.join("="))));
                }
                let members = fields.iter().copied().zip(values);
                visitor.visit_map(de::value::MapDeserializer::new(members))
            }
            Self::Value(_) => Err(self.is_not(&"a table")),
        }
    }

    /// Reads one of `words`, without regard to case.
    fn deserialize_enum<V: Visitor<'v>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let text = self.string()?;
        match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => visitor.visit_enum((*word).into_deserializer()),
            None => Err(Problem::new(format!("must be one of {}", words.join(", ")))),
        }
    }

    /// Ignores the value of a setting that belongs to the other part of the configuration:
    /// `Startup` ignores the settings of `Live`, and `Live` ignores the settings of `Startup`.
    fn deserialize_ignored_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'v>>
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct map
        identifier
    }
}

impl<'v> IntoDeserializer<'v, Problem> for Reader<'v> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The members of a table. The path of a problem with a member contains the member's name.
struct Members<'v> {
    rest: std::collections::btree_map::Iter<'v, String, Value>,
    next: Option<(&'v str, &'v Value)>,
}

impl<'v> MapAccess<'v> for Members<'v> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'v>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Problem> {
        self.next = self.rest.next().map(|(name, value)| (name.as_str(), value));
        self.next.map(|(name, _)| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<T::Value, Problem> {
        let Some((name, value)) = self.next.take() else {
            return Err(Problem::new("a value was asked for before its name"));
        };
        seed.deserialize(Reader::of(value)).map_err(|problem| problem.within(name))
    }
}

/// The elements of a list. The path of a problem with an element contains the element's index.
struct Elements<I>(std::iter::Enumerate<I>);

impl<'v, I: Iterator<Item = Reader<'v>>> SeqAccess<'v> for Elements<I> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'v>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Problem> {
        let element = self.0.next().map(|(index, element)| {
            seed.deserialize(element).map_err(|problem| problem.within(index.to_string()))
        });
        element.transpose()
    }
}
