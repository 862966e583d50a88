//! The deserializer that reads a table of settings from a file, a variable or a flag into types.
//!
//! In a file, each value has a type, such as number, list or string. The text of a variable or a
//! flag has no type, so it is parsed as the type of its setting.

use std::fmt;

use serde::de::value::{
    BorrowedStrDeserializer, MapAccessDeserializer, MapDeserializer, SeqDeserializer,
};
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

/// A fault in a table of settings, and its position.
#[derive(Debug)]
pub(super) struct Problem {
    /// The names of the tables and of the setting in which the faulty value is. The innermost name
    /// is first.
    path: Vec<String>,
    /// Whether a name is wrong. Otherwise, the value at the path is wrong.
    is_of_name: bool,
    pub(super) text: String,
    /// The offset in the file of the wrong name or value. If a value is missing, the offset of the
    /// table that should contain it.
    pub(super) offset: Option<usize>,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { path: Vec::new(), is_of_name: false, text: text.into(), offset: None }
    }

    /// Returns the problem that `name` is not one of the names in `known`.
    pub(super) fn unknown(name: &str, known: &[&str]) -> Self {
        let text = match nearest(name, known) {
            Some(nearest) => format!("unknown setting `{name}`: did you mean `{nearest}`?"),
            None => format!("unknown setting `{name}`, expected one of `{}`", known.join("`, `")),
        };
        Self { is_of_name: true, ..Self::new(text) }
    }

    /// Adds the next outer level to the path: the faulty value is in the value of `name`.
    pub(super) fn within(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    /// Sets the offset in the file, unless an inner value has set it.
    pub(super) fn at<T>(mut self, part: &Spanned<T>) -> Self {
        self.offset.get_or_insert_with(|| part.span().start);
        self
    }

    /// Returns the path of the setting, as in `limits.body_bytes`. `None` if the path is empty or a
    /// name is wrong.
    pub(super) fn setting(&self) -> Option<String> {
        let names: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
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
    let nearest = known.iter().map(|known| (strsim::levenshtein(name, known), *known)).min();
    nearest.filter(|(edits, _)| *edits <= name.len() / 3).map(|(_, nearest)| nearest)
}

/// Parses a switch: true or false, 1 or 0, yes or no, on or off.
pub(crate) fn parse_switch(word: &str) -> Result<bool, &'static str> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false, 1 or 0, yes or no, on or off"),
    }
}

/// How to read the strings of a table.
#[derive(Clone, Copy)]
pub(super) enum Strings {
    /// As strings of a file, which are of no other type.
    OfFile,
    /// As texts of variables or flags. Strings of a file that were checked before mean the same.
    Texts,
}

/// A deserializer that reads a value as the type of its setting.
#[derive(Clone, Copy)]
pub(super) enum Reader<'v> {
    Value(&'v DeValue<'v>, Strings),
    /// The text of a variable or a flag, or one element of a list in such a text.
    Text(&'v str),
}

impl<'v> Reader<'v> {
    pub(super) fn of_table(
        table: &'v DeTable<'v>,
        strings: Strings,
    ) -> impl Deserializer<'v, Error = Problem> {
        MapAccessDeserializer::new(Members { rest: table.iter(), next: None, strings })
    }

    fn of(value: &'v Spanned<DeValue<'v>>, strings: Strings) -> Self {
        match (value.get_ref(), strings) {
            (DeValue::String(text), Strings::Texts) => Self::Text(text),
            (value, strings) => Self::Value(value, strings),
        }
    }

    fn is_not(self, expected: &dyn Expected) -> Problem {
        // The message does not name the type of a text: it is always a string.
        let Self::Value(value, _) = self else {
            return Problem::new(format!("must be {expected}"));
        };
        let found = match value {
            DeValue::Table(_) => "a table",
            DeValue::Array(_) => "a list",
            DeValue::String(_) => "a string",
            DeValue::Integer(number) if integer(number).is_none() => "so large a number",
            DeValue::Integer(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Float(_) => "a fraction",
            DeValue::Datetime(_) => "a date or time",
        };
        Problem::new(format!("must be {expected}, not {found}"))
    }

    /// Returns the string. An empty string is an error, because no setting may be empty.
    fn string(self) -> Result<&'v str, Problem> {
        let text = match self {
            Self::Value(DeValue::String(text), _) => text,
            Self::Text(text) => text,
            Self::Value(..) => return Err(self.is_not(&"a string")),
        };
        if text.is_empty() { Err(Problem::new("must not be empty")) } else { Ok(text) }
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl<'v> Deserializer<'v> for Reader<'v> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Value(DeValue::Table(table), strings) => {
                Self::of_table(table, strings).deserialize_any(visitor)
            }
            Self::Value(DeValue::Array(_), _) => self.deserialize_seq(visitor),
            Self::Value(DeValue::Integer(_), _) => self.deserialize_u64(visitor),
            Self::Value(DeValue::Boolean(value), _) => visitor.visit_bool(*value),
            Self::Value(DeValue::String(_), _) | Self::Text(_) => {
                visitor.visit_borrowed_str(self.string()?)
            }
            Self::Value(..) => Err(self.is_not(&visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self {
            Self::Value(DeValue::Boolean(value), _) => visitor.visit_bool(*value),
            Self::Text(word) => visitor.visit_bool(parse_switch(word).map_err(Problem::new)?),
            Self::Value(..) => Err(self.is_not(&"true or false")),
        }
    }

    /// Every number is read by [`number`](crate::config::number::number), which asks for this type.
    fn deserialize_u64<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Problem> {
        let number = match self {
            Self::Value(DeValue::Integer(number), _) => integer(number),
            Self::Text(text) => text.parse().ok(),
            Self::Value(..) => None,
        };
        match number {
            Some(number) => visitor.visit_i64(number),
            None => Err(self.is_not(&visitor)),
        }
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
            Self::Value(DeValue::Array(list), strings) => {
                visitor.visit_seq(Elements { rest: list.iter(), strings })
            }
            Self::Text(text) => {
                let elements = text.split(',').map(str::trim).map(Self::Text);
                visitor.visit_seq(SeqDeserializer::new(elements))
            }
            Self::Value(..) => Err(self.is_not(&"a list, as in [\"…\", \"…\"]")),
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
            Self::Value(DeValue::Table(_), _) => self.deserialize_any(visitor),
            Self::Text(text) => {
                let values: Vec<_> = text.split('=').map(Self::Text).collect();
                if values.len() != fields.len() {
                    return Err(Problem::new(format!("must be {}", fields.join("="))));
                }
                let members = fields.iter().copied().zip(values);
                visitor.visit_map(MapDeserializer::new(members))
            }
            Self::Value(..) => Err(self.is_not(&"a table")),
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
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct map
        identifier
    }
}

impl<'v> IntoDeserializer<'v, Problem> for Reader<'v> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The members of a table.
struct Members<'v> {
    rest: toml::map::Iter<'v, Spanned<DeString<'v>>, Spanned<DeValue<'v>>>,
    next: Option<(&'v Spanned<DeString<'v>>, &'v Spanned<DeValue<'v>>)>,
    strings: Strings,
}

impl<'v> MapAccess<'v> for Members<'v> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'v>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Problem> {
        self.next = self.rest.next();
        let key = self.next.map(|(name, _)| {
            let key = BorrowedStrDeserializer::new(name.get_ref());
            seed.deserialize(key).map_err(|problem: Problem| problem.at(name))
        });
        key.transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<T::Value, Problem> {
        let Some((name, value)) = self.next.take() else {
            return Err(Problem::new("a value was asked for before its name"));
        };
        let read = seed.deserialize(Reader::of(value, self.strings));
        read.map_err(|problem| problem.at(value).within(name.get_ref()))
    }
}

/// The elements of a list.
struct Elements<'v> {
    rest: std::slice::Iter<'v, Spanned<DeValue<'v>>>,
    strings: Strings,
}

impl<'v> SeqAccess<'v> for Elements<'v> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'v>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Problem> {
        let element = self.rest.next().map(|element| {
            let read = seed.deserialize(Reader::of(element, self.strings));
            read.map_err(|problem| problem.at(element))
        });
        element.transpose()
    }
}
