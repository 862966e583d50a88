//! JSON Web Signature, Key and Token: the RS256 subset that tokens are minted in, and what others
//! sign.

pub mod foreign;
pub mod jwk_set;
pub mod jws;
pub mod jwt;
pub mod key_life;
pub mod key_set;
pub mod pem;
pub mod public_key;
