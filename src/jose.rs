//! JSON Web Signatures and Keys: the signing input of the issuer's tokens, and the tokens and keys of
//! clients. This module does no I/O and reads no clock.

pub mod foreign;
pub mod jwk_set;
pub mod jws;
pub mod pem;
pub mod public_key;
pub mod thumbprint;

use serde::Deserialize;

/// Parses a JSON object. `None` for an array: serde can read a struct from an array of its fields,
/// too.
fn from_object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(json).ok()).flatten()
}
