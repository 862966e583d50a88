//! RSA signatures (RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017 section 8.2): a queue, the threads that
//! empty it, and the backends they sign with. Nothing here knows what is being signed.

pub mod batch;
#[cfg(target_arch = "x86_64")]
mod crt;
mod delivery;
pub mod engine;
#[cfg(target_arch = "x86_64")]
mod kernel52;
#[cfg(target_arch = "x86_64")]
mod mont52;
mod queue;
#[cfg(target_arch = "x86_64")]
mod radix52;
mod room;
pub mod single;
