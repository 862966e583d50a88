//! The rules of OAuth 2.0 (RFC 6749) for one request: client authentication and the grant.
//!
//! Everything here is a value or a function of values: no file, socket, clock or lock.

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
pub mod header_field;
pub mod password_hash;
pub mod scope;
