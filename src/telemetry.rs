//! What operators see: log lines, metrics and spans.

pub mod answered;
pub mod audit;
pub mod excerpt;
mod figures;
pub mod hourly;
mod json_line;
pub mod log_queue;
pub mod logging;
pub mod metrics;
pub mod once_a_second;
pub mod refusals;
pub mod trace_parent;
#[cfg_attr(not(feature = "opentelemetry"), path = "telemetry/no_traces.rs")]
pub mod traces;
pub mod wasteful;
