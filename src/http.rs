//! HTTP/1.1 over TCP and Unix sockets: accepts connections, enforces their limits and deadlines,
//! and routes each request to a dialect or an endpoint. Besides `cli`, this is the only module that
//! uses hyper and `tokio::net`. It contains none of OAuth's rules.

pub mod accept;
pub mod admin;
mod body;
mod client_address;
mod connection;
pub(crate) mod descriptors;
pub mod event_loops;
mod header;
mod host;
pub mod listener;
mod request_id;
pub mod service;
