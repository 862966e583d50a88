//! The store in PostgreSQL. All SQL of the program is in this module.

pub mod client_document;
pub mod database;
mod dial;
pub mod failure;
mod framing;
pub mod keys;
mod password;
pub mod rekey;
pub mod schema;
pub mod seal;
pub mod status;
mod tls;
pub mod transfer;
