//! The store in PostgreSQL. All SQL of the program is in this module.

mod birth;
mod changed;
pub mod client_document;
pub mod database;
mod dial;
pub mod failure;
pub mod follow;
mod framing;
pub mod keys;
pub mod lifetimes;
mod lost;
pub mod node;
mod password;
pub mod rekey;
mod revocations;
mod rows;
pub mod schema;
pub mod seal;
mod secret_uses;
pub mod snapshot_file;
pub mod start;
pub mod status;
mod timelines;
mod tls;
pub mod transfer;
mod upkeep;
mod uses;
