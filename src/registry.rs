//! The client registry: its clients, their file, and the changes that the command line makes in it.

pub mod client_file;
pub mod clients;
pub mod derived;
pub mod registered;
mod shard;
