//! The clients and keys that `serve` would load.

use std::path::PathBuf;

use crate::config::IssuerUrl;
use crate::registry::clients::Registry;

/// The clients and keys that `serve` would load, without a fault.
pub(crate) struct Loaded {
    /// The name of the registry.
    pub(super) name: PathBuf,
    /// The text of the registry.
    pub(super) text: String,
    pub(super) clients: Registry,
    /// The number of signing keys.
    pub(super) keys: usize,
    pub(super) issuer: IssuerUrl,
}
