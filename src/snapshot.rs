//! The immutable snapshot that requests read: clients, keys, issuer and configuration. A reload
//! replaces the whole snapshot at once, so that no request sees half of a change.

pub mod admin_token;
pub mod changes;
pub mod secret_ends;

use std::path::PathBuf;

use crate::config::{Config, IssuerUrl};
use crate::fault::Fault;
use crate::fs::file_watch::Stamp;
use crate::keys::directory;
use crate::keys::key_set::KeySet;
use crate::keys::life::Retention;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client_secret::{ClientSecret, FastHash, SecretHash, is_demo_secret};
use crate::oauth::decoy::Decoys;
use crate::registry::client_file;
use crate::registry::clients::Registry;
use crate::snapshot::secret_ends::SecretEnds;
use crate::time::UnixTime;

/// The clients, keys and settings that requests read.
#[derive(Debug)]
pub struct Snapshot {
    /// The registered clients.
    pub clients: Registry,
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
    /// For each client, the time at which its last secret expires.
    pub secret_ends: SecretEnds,
    /// Whether clients may authenticate with the public demo secrets.
    pub allows_demo_secrets: bool,
}

impl Snapshot {
    /// Creates the first snapshot of a process. Its `admin_token` is `None`; the caller sets it.
    pub fn new(clients: Registry, keys: KeySet, issuer: IssuerUrl, config: Config) -> Self {
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
            decoys,
            secret_ends,
            allows_demo_secrets,
        }
    }

    /// Creates the snapshot that replaces `old` at `now`. Clients whose registration has not
    /// changed keep their state.
    pub fn after(
        old: &Self,
        mut clients: Registry,
        keys: Vec<SigningKey>,
        issuer: IssuerUrl,
        config: Config,
        now: UnixTime,
    ) -> Self {
        clients.keep_unchanged(&old.clients);
        // Tokens and key sets that were issued with the old lifetimes are still in use. So each
        // field of the retention is the maximum of its old value and its new value.
        let retention = Sources::of(&config).retention(&clients).max(old.keys.retention());
        let keys = old.keys.followed_by(keys, retention, now);
        let generation = old.generation + 1;
        Self { generation, ..Self::new(clients, keys, issuer, config) }
    }

    /// Whether at least one proxy is configured that may forward client certificates.
    pub fn has_certificates(&self) -> bool {
        self.config.live.certificate_proxies().next().is_some()
    }
}

/// The files that a snapshot is read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file of the client registry.
    pub clients: PathBuf,
    /// The directory of keys.
    pub keys: PathBuf,
    /// The file of the admin token, if one is configured.
    pub admin_token_file: Option<PathBuf>,
    /// The time for which verifiers may cache a key set, in seconds.
    pub jwks_max_age: u64,
}

/// The contents of the files of [`Sources`].
#[derive(Debug)]
pub struct Contents {
    /// The client registry.
    pub clients: Registry,
    /// The signing keys in any state, gone keys included.
    pub keys: Vec<SigningKey>,
    /// The hash of the admin token, if one is configured.
    pub admin_token: Option<FastHash>,
    /// The stamp of the key files that the `jwks` fields of the clients name. The stamp was taken
    /// before the files were read, so that a change during the reading is noticed at the next
    /// check.
    pub key_files: Stamp,
}

impl Sources {
    /// Returns the files that `config` names.
    pub fn of(config: &Config) -> Self {
        Self {
            clients: config.live.clients.clone(),
            keys: config.live.keys.clone(),
            admin_token_file: config.live.admin_token_file.clone(),
            jwks_max_age: config.live.jwks_max_age,
        }
    }

    /// Reads all files.
    ///
    /// # Errors
    ///
    /// The faults of all files.
    pub fn load(&self) -> Result<Contents, Vec<Fault>> {
        let clients = client_file::load_with_key_files(&self.clients);
        match (clients, directory::load(&self.keys), self.admin_token()) {
            (Ok((clients, key_files)), Ok(keys), Ok(admin_token)) => {
                Ok(Contents { clients, keys, admin_token, key_files })
            }
            (clients, keys, admin_token) => {
                let token_fault = admin_token.err().map(|fault| vec![fault]);
                let faults = [clients.err(), keys.err(), token_fault];
                Err(faults.into_iter().flatten().flatten().collect())
            }
        }
    }

    /// Reads the admin token and returns its hash. `None` if no admin token is configured.
    fn admin_token(&self) -> Result<Option<FastHash>, Fault> {
        let file = self.admin_token_file.as_deref();
        file.map(|file| Ok(FastHash::of(&admin_token::read(file)?))).transpose()
    }

    /// Returns the time for which verifiers may cache a key set, and the longest token lifetime of
    /// all `clients`.
    pub fn retention(&self, clients: &Registry) -> Retention {
        let longest = clients.iter().map(|client| client.token_lifetime).max();
        Retention {
            jwks_max_age: self.jwks_max_age,
            token_lifetime: u64::from(longest.unwrap_or(0)),
        }
    }
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
