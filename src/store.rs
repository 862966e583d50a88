//! The store in a database, which several servers share.

#[allow(dead_code, reason = "the server will use the rest")]
pub mod postgres;
