//! Replaces `page.rs` if the feature `page` is off. There is no page.

use crate::dialect::Answer;
use crate::snapshot::Snapshot;

/// No path is the path of a document.
#[cfg(test)]
pub const PATHS: [&str; 6] =
    ["/", "/docs", "/docs/page.css", "/docs/page.js", "/favicon.ico", "/openapi.json"];

/// No document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {}

impl Document {
    pub fn at(_: &str, _: &Snapshot) -> Option<Self> {
        None
    }

    pub fn label(self) -> &'static str {
        match self {}
    }
}

#[derive(Debug, Default)]
pub struct Pages(());

impl Pages {
    pub fn answer(&self, document: Document, _: &Snapshot, _: impl FnOnce(&str) -> bool) -> Answer {
        match document {}
    }
}

pub fn not_found(_: &str, _: &Snapshot) -> Option<Answer> {
    None
}
