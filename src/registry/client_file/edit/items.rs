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
    items: Vec<Item<'t>>,
}

struct Item<'t> {
    /// The byte range. That of a member contains its name and its value.
    range: Range<usize>,
    /// The name of a member. Empty for an element of a list.
    name: Cow<'t, str>,
    value: &'t str,
}

impl<'t> Items<'t> {
    /// Locates the members of the object `part`, a slice of `text`.
    pub(super) fn of_object(text: &'t str, part: &'t str) -> Result<Self, serde_json::Error> {
        let Members(members) = serde_json::from_str(part)?;
        let items = members.into_iter().map(|(Text(name), value)| {
            let Range { start, end } = range_of(text, value.get());
            Item { range: name_begin(text, start)..end, name, value: value.get() }
        });
        Ok(Self { text, inside: inside(text, part), items: items.collect() })
    }

    /// Locates the elements of the list `part`, a slice of `text`.
    pub(super) fn of_list(text: &'t str, part: &'t str) -> Result<Self, serde_json::Error> {
        let elements: Vec<&RawValue> = serde_json::from_str(part)?;
        let items = elements.into_iter().map(RawValue::get).map(|value| Item {
            range: range_of(text, value),
            name: Cow::default(),
            value,
        });
        Ok(Self { text, inside: inside(text, part), items: items.collect() })
    }

    /// Returns the values in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &'t str> {
        self.items.iter().map(|item| item.value)
    }

    /// Returns the value of the member with this name.
    pub(super) fn member(&self, name: &str) -> Option<&'t str> {
        self.items.iter().find(|item| item.name == name).map(|item| item.value)
    }

    /// Returns the objects in the list that is the member with this name. There are none if there
    /// is no such member.
    pub(super) fn objects_in(&self, name: &str) -> Result<Vec<Self>, serde_json::Error> {
        let Some(list) = self.member(name) else { return Ok(Vec::new()) };
        let list = Self::of_list(self.text, list)?;
        list.values().map(|object| Self::of_object(self.text, object)).collect()
    }

    /// Returns the edit that sets the member with this name. If there is no such member, the edit
    /// adds it after the last member.
    pub(super) fn set(&self, name: &str, value: &str) -> Edit {
        match self.member(name) {
            Some(old) => (range_of(self.text, old), value.to_owned()),
            None => self.with(&format!("\"{name}\": {value}")),
        }
    }

    /// Returns the edit that adds `element` to the list that is the member with this name. If there
    /// is no such member, the edit adds it.
    pub(super) fn add_to(&self, name: &str, element: &str) -> Result<Edit, serde_json::Error> {
        Ok(match self.member(name) {
            Some(list) => Self::of_list(self.text, list)?.with(element),
            None => self.set(name, &format!("[{element}]")),
        })
    }

    /// Returns the edit that adds `item` at the end. The edit copies the white space that precedes
    /// the last item, and puts it before the new item.
    fn with(&self, item: &str) -> Edit {
        let (gap, end) = match &self.items[..] {
            [] => return (self.inside.clone(), item.to_owned()),
            [only] => {
                let gap = &self.text[self.inside.start..only.range.start];
                (format!(",{gap}"), only.range.end)
            }
            [.., before, last] => {
                (self.text[before.range.end..last.range.start].to_owned(), last.range.end)
            }
        };
        (end..end, format!("{gap}{item}"))
    }

    /// Returns the edit that removes the member with this name, if there is one.
    pub(super) fn without_member(&self, name: &str) -> Option<Edit> {
        Some(self.without(self.items.iter().position(|item| item.name == name)?))
    }

    /// Returns the edit that removes the item at `index`. The edit also removes the comma after the
    /// item or, for the last item, the comma before it.
    pub(super) fn without(&self, index: usize) -> Edit {
        let Range { start, end } = self.items[index].range.clone();
        let range = match (index, self.items.get(index + 1)) {
            (_, Some(next)) => start..next.range.start,
            (0, None) => start..end,
            (_, None) => self.items[index - 1].range.end..end,
        };
        (range, String::new())
    }
}

/// Returns the byte range of `part`, a slice of `text`.
pub(super) fn range_of(text: &str, part: &str) -> Range<usize> {
    let start = offset_in(text, part);
    start..start + part.len()
}

/// Returns the byte range between the brackets of `part`, a slice of `text`.
fn inside(text: &str, part: &str) -> Range<usize> {
    let Range { start, end } = range_of(text, part);
    start + 1..end - 1
}

/// Returns the offset of the name of the member whose value begins at the offset `value`. The names
/// in a registry have no escapes, so the name begins at the second-last quote before the value.
fn name_begin(text: &str, value: usize) -> usize {
    let before = text[..value].trim_end().trim_end_matches(':').trim_end();
    let name = before.strip_suffix('"').unwrap_or(before);
    name.rfind('"').unwrap_or(value)
}
