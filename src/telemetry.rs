//! Writes log lines, the audit, metrics and spans. The callers decide what is recorded.

pub mod answered;
pub mod audit;
pub mod excerpt;
pub mod hourly;
mod json_line;
pub mod log_queue;
pub mod logging;
pub mod metrics;
pub mod once_a_second;
pub mod pulled;
pub mod refusals;
pub mod trace_parent;
#[cfg_attr(not(feature = "opentelemetry"), path = "telemetry/no_traces.rs")]
pub mod traces;
pub mod wasteful;
