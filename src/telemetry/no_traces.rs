//! What stands for `traces.rs` where the feature `opentelemetry` is off: nobody is told anything.

use crate::telemetry::answered::Answered;

/// Where spans would go.
#[derive(Debug, Default)]
pub struct Traces(());

impl Traces {
    pub(crate) fn tell(&self, _: &Answered<'_>) {}
}
