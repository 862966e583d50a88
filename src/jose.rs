//! JSON Web Signatures, Keys and Tokens: the issuer's own tokens, which are signed with RS256, and
//! the tokens and keys of clients. This module does no I/O and reads no clock.

pub mod foreign;
pub mod jwk_set;
pub mod jws;
pub mod jwt;
pub mod key_life;
pub mod key_set;
pub mod pem;
pub mod public_key;
