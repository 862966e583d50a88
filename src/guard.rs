//! Protection of client authentication: failure budgets, and the pool that computes slow hashes.

pub mod decoy_key;
pub mod gcra;
pub mod password_pool;
pub mod throttle;
pub mod verdicts;
