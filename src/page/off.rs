//! Replaces `page.rs` if the feature `page` is off. There is no page.

use crate::config::PageDocument;
use crate::dialect::Answer;
use crate::snapshot::Snapshot;

#[derive(Debug, Default)]
pub struct Pages(());

impl Pages {
    /// Not called: without the feature, no path is that of a document.
    pub fn answer(&self, _: PageDocument, _: &Snapshot, _: impl FnOnce(&str) -> bool) -> Answer {
        Answer::empty(404)
    }
}

pub fn owns(_: &str, _: &Snapshot) -> bool {
    false
}

pub fn push_policy(_: &mut Answer) {}

pub fn not_found(_: &str, _: &Snapshot, _: impl FnOnce() -> bool) -> Option<Answer> {
    None
}
