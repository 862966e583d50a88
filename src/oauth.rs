//! The rules of OAuth 2.0 (RFC 6749) for one request: client authentication and the grant.
//!
//! The functions open no socket or file. The caller passes the wall-clock time. Only
//! [`client::RateLimit`] reads a clock: the monotonic clock.

pub mod client;
pub mod client_assertion;
pub mod client_authentication;
pub mod client_certificate;
pub mod client_network;
pub mod client_secret;
pub mod confirmation;
pub mod decoy;
pub mod dpop;
pub mod error;
pub mod grant;
pub mod password_hash;
pub mod reuse;
pub mod scope;
