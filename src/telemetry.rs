//! What operators see: log lines and metrics.

pub mod audit;
mod json_line;
pub mod log_queue;
pub mod logging;
pub mod metrics;
pub mod refusals;
pub mod trace_parent;
pub mod wasteful;
