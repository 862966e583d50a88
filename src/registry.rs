//! The client registry: its file, and the changes that the command line makes in it.

pub mod client_file;
pub mod clients;
