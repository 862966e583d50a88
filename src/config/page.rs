//! The setting of the page for developers who use the server.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::value::parse_switch;

/// The settings of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Page {
    /// Whether the server answers with its page. Without the Cargo feature `page`, it never does.
    pub enabled: PageSwitch,
}

/// Whether the server answers with its page, and with the documents beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageSwitch {
    /// The OpenAPI document and the icon; the page and its reference only if the demo clients may
    /// be served.
    #[default]
    Auto,
    /// The page and all its documents.
    On,
    /// Neither the page nor a document.
    Off,
}

impl Serialize for PageSwitch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for PageSwitch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl Visitor<'_> for Words {
    type Value = PageSwitch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, true or false")
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<PageSwitch, E> {
        Ok(if is_on { PageSwitch::On } else { PageSwitch::Off })
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<PageSwitch, E> {
        if word.eq_ignore_ascii_case("auto") {
            return Ok(PageSwitch::Auto);
        }
        match parse_switch(word) {
            Ok(is_on) => self.visit_bool(is_on),
            Err(_) => Err(E::custom("must be auto, true or false")),
        }
    }
}
