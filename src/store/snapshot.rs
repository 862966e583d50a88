//! The one immutable state that requests read: clients, keys and the issuer's name, read together
//! and swapped together, so that no request ever sees half of a change.

use std::path::PathBuf;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::config::{Config, IssuerUrl};
use crate::fault::Fault;
use crate::jose::key_life::Retention;
use crate::jose::key_set::{KeySet, SigningKey};
use crate::oauth::client::Registry;
use crate::oauth::client_secret::{ClientSecret, FastHash, SecretHash};
use crate::oauth::decoy::Decoys;
use crate::store::verdicts::Verdicts;
use crate::store::{client_file, key_directory};

/// Everything that a request may read.
#[derive(Debug)]
pub struct Snapshot {
    /// Who may ask.
    pub clients: Registry,
    /// What signs.
    pub keys: KeySet,
    /// In whose name.
    pub issuer: IssuerUrl,
    /// Under which settings.
    pub config: Config,
    /// How many were in force before it, and 1.
    pub generation: u64,
    /// What is done for clients that nobody knows.
    pub decoys: Decoys,
    /// Secrets whose slow hash was right, as long as this snapshot lives.
    pub verdicts: Arc<Verdicts>,
}

impl Snapshot {
    /// The first snapshot of a process, of these, in which no secret was seen yet.
    pub fn new(clients: Registry, keys: KeySet, issuer: IssuerUrl, config: Config) -> Self {
        let decoys = Decoys::of(&clients);
        let verdicts = Arc::default();
        Self { clients, keys, issuer, config, generation: 1, decoys, verdicts }
    }

    /// The one that comes after `old` at `now` (Unix seconds), whose budgets and kept tokens it goes
    /// on with.
    pub fn after(
        old: &Self,
        mut clients: Registry,
        keys: Vec<SigningKey>,
        issuer: IssuerUrl,
        config: Config,
        now: u64,
    ) -> Self {
        clients.continue_from(&old.clients, old.issuer == issuer);
        // What was handed out under longer times is still out there.
        let retention = Sources::of(&config).retention(&clients).max(old.keys.retention());
        let keys = old.keys.followed_by(keys, retention, now);
        let generation = old.generation + 1;
        Self { generation, ..Self::new(clients, keys, issuer, config) }
    }

    /// Whether there is a proxy that may state client certificates.
    pub fn has_certificates(&self) -> bool {
        self.config.certificate_proxies().next().is_some()
    }
}

/// Where a snapshot comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The client registry.
    pub clients: PathBuf,
    /// The directory of keys.
    pub keys: PathBuf,
    /// How long a fetched key set may be used, in seconds.
    pub jwks_max_age: u64,
}

impl Sources {
    /// Those that `config` names.
    pub fn of(config: &Config) -> Self {
        Self {
            clients: config.clients.clone(),
            keys: config.keys.clone(),
            jwks_max_age: config.jwks_max_age,
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// Every fault in every file.
    pub fn load(&self) -> Result<(Registry, Vec<SigningKey>), Vec<Fault>> {
        match (client_file::load(&self.clients), key_directory::load(&self.keys)) {
            (Ok(clients), Ok(keys)) => Ok((clients, keys)),
            (clients, keys) => {
                let faults = [clients.err(), keys.err()];
                Err(faults.into_iter().flatten().flatten().collect())
            }
        }
    }

    /// How long verifiers may hold on to things, given who is registered.
    pub fn retention(&self, clients: &Registry) -> Retention {
        let longest = clients.iter().map(|client| client.token_lifetime).max();
        Retention {
            jwks_max_age: self.jwks_max_age,
            token_lifetime: u64::from(longest.unwrap_or(0)),
        }
    }
}

/// The demo clients among `clients`, known by the hashes of the secrets that everyone knows.
pub fn demo_clients(clients: &Registry) -> Vec<&str> {
    let known: Vec<_> = DEMO_HASHES.into_iter().filter_map(FastHash::parse).collect();
    let is_demo = |secret: &ClientSecret| match &secret.hash {
        SecretHash::Fast(hash) => known.iter().any(|known| bool::from(known.ct_eq(hash))),
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

/// The clients that need a proxy which states their certificates: the first few in order, and how
/// many more there are.
pub fn certificate_clients(clients: &Registry) -> Vec<String> {
    let needing = clients.iter().filter(|client| client.needs_certificate());
    let mut ids: Vec<_> = needing.map(|client| client.id.to_string()).collect();
    ids.sort_unstable();
    if ids.len() > NAMED {
        let more = ids.len() - NAMED;
        ids.truncate(NAMED);
        ids.push(format!("and {more} more"));
    }
    ids
}

/// As many as fit into a line.
const NAMED: usize = 5;

/// Of `demo-client` and `vision-api-user` in the shipped `clients.json`.
const DEMO_HASHES: [&str; 2] = [
    "$sha256$mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc",
    "$sha256$jjK4bxg0LeMn8TlcVd5F6xNFSd2XfDdufIqFLoPTp7Y",
];
