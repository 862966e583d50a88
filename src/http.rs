//! HTTP/1.1 on sockets. The only floor that names hyper and tokio's net.

pub mod accept;
pub mod admin;
mod body;
mod client_address;
mod connection;
pub mod event_loops;
pub mod listener;
mod request_id;
mod route;
pub mod service;
