//! JSON Web Signatures and Keys: the signing input of the issuer's tokens, and the tokens and keys of
//! clients. This module does no I/O and reads no clock.

pub mod foreign;
pub mod jwk_set;
pub mod jws;
pub mod pem;
pub mod public_key;
pub mod thumbprint;
