//! Replaces `traces.rs` if the feature `opentelemetry` is off. Records no spans.

use crate::telemetry::answered::Answered;

/// Records no spans.
#[derive(Debug, Default)]
pub struct Traces(());

impl Traces {
    pub(crate) fn record(&self, _: &Answered<'_>) {}
}
