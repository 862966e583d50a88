//! The store in a database, which several servers share.

pub mod postgres;
