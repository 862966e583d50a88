//! The immutable snapshot that requests read: clients, keys, issuer and configuration. A reload
//! replaces the whole snapshot at once, so that no request sees half of a change.

pub mod admin_token;
pub mod changes;
pub mod files;
pub mod lifetimes;
pub mod loss;
pub mod news;

use std::sync::Arc;

use crate::config::{Config, IssuerUrl};
use crate::keys::key_set::KeySet;
use crate::keys::life::Retention;
use crate::keys::rotation::longest_postponement;
use crate::oauth::client_secret::FastHash;
use crate::oauth::decoy::Decoys;
use crate::registry::clients::Registry;
use crate::snapshot::lifetimes::Lifetimes;

/// The clients, keys and settings that requests read.
pub struct Snapshot {
    /// The registered clients. The next snapshot shares them if the registry then has a fault.
    pub clients: Arc<Registry>,
    /// The signing keys.
    pub keys: KeySet,
    /// The issuer's URL.
    pub issuer: IssuerUrl,
    /// The configuration.
    pub config: Config,
    /// The hash of the admin token, if one is configured.
    pub admin_token: Option<FastHash>,
    /// The number of this snapshot. The first snapshot of a process has the number 1. Each reload
    /// increases the number by 1.
    pub generation: u64,
    /// The decoys for unknown client ids.
    pub decoys: Decoys,
    /// The lifetimes that count for tokens without an `iat`.
    pub lifetimes: Lifetimes,
    /// Whether clients may authenticate with the public demo secrets.
    pub allows_demo_secrets: bool,
}

impl Snapshot {
    /// Creates the first snapshot of a process. The caller sets its
    /// `admin_token` and its `lifetimes`.
    pub fn new(clients: Arc<Registry>, keys: KeySet, issuer: IssuerUrl, config: Config) -> Self {
        let decoys = clients.decoys();
        let allows_demo_secrets = config.allows_demo_secrets();
        Self {
            clients,
            keys,
            issuer,
            config,
            admin_token: None,
            generation: 1,
            lifetimes: Lifetimes::default(),
            decoys,
            allows_demo_secrets,
        }
    }

    /// Whether at least one proxy is configured that may forward client certificates.
    pub fn has_certificates(&self) -> bool {
        self.config.live.certificate_proxies().next().is_some()
    }
}

/// Returns the time for which verifiers may cache a key set, and the time for which a token of a
/// retired key may be valid: the longest lifetime of a token of all `clients`, those that were
/// shortened included. Servers that share a directory read it within seconds. With a database it is twice
/// that, or more by the longest postponement: a server that is cut off may sign with the old key for
/// some time after the others have changed, and one that has learned of a key late holds it back.
pub fn retention(config: &Config, clients: &Registry, lifetimes: &Lifetimes) -> Retention {
    let longest = u64::from(clients.longest_lifetime()).max(lifetimes.longest_of_all());
    let is_shared = config.startup.store.url.is_some();
    let later = longest.max(longest_postponement(config.live.jwks_max_age));
    let token_lifetime = longest + if is_shared { later } else { 0 };
    Retention { jwks_max_age: config.live.jwks_max_age, token_lifetime }
}
