//! RSA signatures (RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017 section 8.2): a bounded queue, the
//! threads that empty it, and the libraries that they sign with. This module does not depend on the
//! meaning of what it signs.

mod admission;
pub mod backends;
mod completion;
pub mod engine;
pub mod private_key;
mod queue;
pub mod single;
pub(crate) mod worker;
