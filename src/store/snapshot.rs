//! The one immutable state that requests read: clients, keys and the issuer's name, read together
//! and swapped together, so that no request ever sees half of a change.

use std::path::PathBuf;

use crate::config::{Config, IssuerUrl};
use crate::fault::Fault;
use crate::jose::key_life::Retention;
use crate::jose::key_set::{KeySet, SigningKey};
use crate::oauth::client::Registry;
use crate::oauth::client_secret::{ClientSecret, FastHash, SecretHash, is_demo_secret};
use crate::oauth::decoy::Decoys;
use crate::store::file_watch::Stamp;
use crate::store::secret_ends::SecretEnds;
use crate::store::{admin_token, client_file, key_directory};

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
    /// The hash of the token that opens the admin listener to other machines, if there is one.
    pub admin_token: Option<FastHash>,
    /// How many were in force before it, and 1.
    pub generation: u64,
    /// What unknown client ids cost.
    pub decoys: Decoys,
    /// When clients run out of secrets.
    pub secret_ends: SecretEnds,
    /// Whether the demo secrets, which are public, may be used.
    pub allows_demo_secrets: bool,
}

impl Snapshot {
    /// The first snapshot of a process. Without an admin token, which is a field to be set.
    pub fn new(clients: Registry, keys: KeySet, issuer: IssuerUrl, config: Config) -> Self {
        let decoys = Decoys::of(&clients);
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
        self.config.live.certificate_proxies().next().is_some()
    }
}

/// Where a snapshot comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The client registry.
    pub clients: PathBuf,
    /// The directory of keys.
    pub keys: PathBuf,
    /// The file with the admin listener's token, if there is to be one.
    pub admin_token_file: Option<PathBuf>,
    /// How long a fetched key set may be used, in seconds.
    pub jwks_max_age: u64,
}

/// What stands in the files.
#[derive(Debug)]
pub struct Contents {
    /// The client registry.
    pub clients: Registry,
    /// The keys, whatever their state.
    pub keys: Vec<SigningKey>,
    /// The hash of the admin listener's token.
    pub admin_token: Option<FastHash>,
    /// How the files that `jwks` names looked before they were read.
    pub key_files: Stamp,
}

impl Sources {
    /// Those that `config` names.
    pub fn of(config: &Config) -> Self {
        Self {
            clients: config.live.clients.clone(),
            keys: config.live.keys.clone(),
            admin_token_file: config.live.admin_token_file.clone(),
            jwks_max_age: config.live.jwks_max_age,
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// Every fault in every file.
    pub fn load(&self) -> Result<Contents, Vec<Fault>> {
        let clients = client_file::load_with_key_files(&self.clients);
        match (clients, key_directory::load(&self.keys), self.admin_token()) {
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

    /// Only a hash of the token is kept.
    fn admin_token(&self) -> Result<Option<FastHash>, Fault> {
        let file = self.admin_token_file.as_deref();
        file.map(|file| Ok(FastHash::of(&admin_token::read(file)?))).transpose()
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

/// The clients that need a proxy which states their certificates: the first few in order, and how
/// many more there are.
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

/// As many as fit into a line.
const NAMED: usize = 5;
