//! The immutable snapshot that requests read: clients, keys, issuer and configuration. A reload
//! replaces the whole snapshot at once, so that no request sees half of a change.

pub mod admin_token;
pub mod changes;
pub mod files;
pub mod lifetimes;
pub mod loss;
pub mod secret_ends;

use std::sync::Arc;

use crate::config::{Config, IssuerUrl, Live};
use crate::keys::key_set::KeySet;
use crate::keys::life::Retention;
use crate::oauth::client_secret::{ClientSecret, FastHash, SecretHash, is_demo_secret};
use crate::oauth::decoy::Decoys;
use crate::registry::clients::Registry;
use crate::snapshot::lifetimes::Lifetimes;
use crate::snapshot::secret_ends::SecretEnds;

/// The clients, keys and settings that requests read.
#[derive(Debug)]
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
    /// For each client, the time at which its last secret expires.
    pub secret_ends: SecretEnds,
    /// Whether clients may authenticate with the public demo secrets.
    pub allows_demo_secrets: bool,
}

impl Snapshot {
    /// Creates the first snapshot of a process. The caller sets its
    /// `admin_token` and its `lifetimes`.
    pub fn new(clients: Arc<Registry>, keys: KeySet, issuer: IssuerUrl, config: Config) -> Self {
        let decoys = Decoys::of(clients.iter());
        let secret_ends = SecretEnds::of(&clients);
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
            secret_ends,
            allows_demo_secrets,
        }
    }

    /// Whether at least one proxy is configured that may forward client certificates.
    pub fn has_certificates(&self) -> bool {
        self.config.live.certificate_proxies().next().is_some()
    }
}

/// Returns the time for which verifiers may cache a key set, and the longest lifetime of a token of
/// all `clients`, those that were shortened included.
pub fn retention(live: &Live, clients: &Registry, lifetimes: &Lifetimes) -> Retention {
    let in_force = clients.iter().map(|client| client.token_lifetime).max();
    let longest = u64::from(in_force.unwrap_or(0)).max(lifetimes.longest_of_all());
    Retention { jwks_max_age: live.jwks_max_age, token_lifetime: longest }
}

/// Returns the id and the token lifetime in seconds of each of the `clients`.
pub fn token_lifetimes(clients: &Registry) -> impl Iterator<Item = (&str, u32)> + Clone {
    clients.iter().map(|client| (&*client.id, client.token_lifetime))
}

/// Returns the sorted ids of the clients that have a public demo secret.
pub fn demo_clients(clients: &Registry) -> Vec<&str> {
    let is_demo = |secret: &ClientSecret| match &secret.hash {
        SecretHash::Fast(hash) => bool::from(is_demo_secret(hash)),
        SecretHash::Slow(_) => false,
    };
    let mut found: Vec<_> = clients
        .iter()
        .filter(|client| client.secrets.iter().any(is_demo))
        .map(|client| &*client.id)
        .collect();
    found.sort_unstable();
    found
}

/// Returns the sorted ids of the enabled clients that need a proxy to forward their certificates.
/// If there are more than five, returns the first five and then `and N more`.
pub fn certificate_clients(clients: &Registry) -> Vec<String> {
    let needing = clients.iter().filter(|client| client.enabled && client.needs_certificate());
    let mut ids: Vec<_> = needing.map(|client| client.id.to_string()).collect();
    ids.sort_unstable();
    if ids.len() > NAMED {
        let more = ids.len() - NAMED;
        ids.truncate(NAMED);
        ids.push(format!("and {more} more"));
    }
    ids
}

/// The maximum number of client ids that [`certificate_clients`] returns.
const NAMED: usize = 5;
