//! What operators see: log lines and metrics.

pub mod log_queue;
pub mod logging;
pub mod metrics;
