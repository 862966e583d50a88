//! Locates the members of an object or the elements of a list in a JSON text, and computes the
//! edits that add, change or remove one of them.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::registry::client_file::document::{Members, Text, offset_in};

/// An edit of a text: a range of bytes, and the text that replaces them.
pub(super) type Edit = (Range<usize>, String);

/// The members of an object or the elements of a list, with their byte ranges in the text.
pub(super) struct Items<'t> {
    text: &'t str,
    /// The byte range between the brackets.
    inside: Range<usize>,
    /// The byte range of each item. The range of a member contains its name and its value.
    pub(super) items: Vec<Range<usize>>,
    /// The names of an object's members. Empty for a list.
    pub(super) names: Vec<Cow<'t, str>>,
    values: Vec<&'t str>,
}

impl<'t> Items<'t> {
    /// Locates the members of the object `part`, a slice of `text`.
    pub(super) fn of_object(text: &'t str, part: &'t str) -> Result<Self, serde_json::Error> {
        let Members(members) = serde_json::from_str(part)?;
        let mut object = Self::between_brackets(text, part);
        for (Text(name), value) in members {
            let value = value.get();
            let begin = offset_in(text, value);
            object.items.push(name_begin(text, begin)..begin + value.len());
            object.names.push(name);
            object.values.push(value);
        }
        Ok(object)
    }

    /// Locates the elements of the list `part`, a slice of `text`.
    pub(super) fn of_list(text: &'t str, part: &'t str) -> Result<Self, serde_json::Error> {
        let elements: Vec<&RawValue> = serde_json::from_str(part)?;
        let mut list = Self::between_brackets(text, part);
        for element in elements.into_iter().map(RawValue::get) {
            let begin = offset_in(text, element);
            list.items.push(begin..begin + element.len());
            list.values.push(element);
        }
        Ok(list)
    }

    fn between_brackets(text: &'t str, part: &'t str) -> Self {
        let begin = offset_in(text, part);
        let inside = begin + 1..begin + part.len() - 1;
        Self { text, inside, items: Vec::new(), names: Vec::new(), values: Vec::new() }
    }

    pub(super) fn at(&self, index: usize) -> &'t str {
        self.values[index]
    }

    /// Returns the value of the member with this name.
    pub(super) fn member(&self, name: &str) -> Option<&'t str> {
        Some(self.values[self.names.iter().position(|known| known == name)?])
    }

    /// Returns the edit that sets the member with this name. If there is no such member, the edit
    /// adds it after the last member.
    pub(super) fn set(&self, name: &str, value: &str) -> Edit {
        match self.member(name) {
            Some(old) => {
                let begin = offset_in(self.text, old);
                (begin..begin + old.len(), value.to_owned())
            }
            None => self.with(&format!("\"{name}\": {value}")),
        }
    }

    /// Returns the edit that adds `item` at the end. The edit copies the white space that precedes
    /// the last item, and puts it before the new item.
    pub(super) fn with(&self, item: &str) -> Edit {
        let Some(last) = self.items.last() else {
            return (self.inside.clone(), item.to_owned());
        };
        let gap = match self.items.len() {
            1 => format!(",{}", &self.text[self.inside.start..last.start]),
            several => self.text[self.items[several - 2].end..last.start].to_owned(),
        };
        (last.end..last.end, format!("{gap}{item}"))
    }

    /// Returns the edit that removes the item at `index`. The edit also removes the comma after the
    /// item or, for the last item, the comma before it.
    pub(super) fn without(&self, index: usize) -> Edit {
        let item = &self.items[index];
        let range = match (index, self.items.get(index + 1)) {
            (_, Some(next)) => item.start..next.start,
            (0, None) => item.clone(),
            (_, None) => self.items[index - 1].end..item.end,
        };
        (range, String::new())
    }
}

/// Returns the offset of the name of the member whose value begins at the offset `value`. The names
/// in a registry have no escapes, so the name begins at the second-last quote before the value.
fn name_begin(text: &str, value: usize) -> usize {
    let before = text[..value].trim_end().trim_end_matches(':').trim_end();
    let name = before.strip_suffix('"').unwrap_or(before);
    name.rfind('"').unwrap_or(value)
}
