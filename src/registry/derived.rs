//! The values that the server derives from all clients, for the clients of one shard. The values of
//! all shards together are the value of the registry, so a change of one client costs the work of
//! one shard.

use std::collections::BTreeMap;

use compact_str::CompactString;

use crate::oauth::client::{AuthMethod, Client};
use crate::oauth::client_secret::{ClientSecret, SecretHash, is_demo_secret};
use crate::oauth::decoy::Census;
use crate::time::UnixTime;

/// The values that are derived from some clients.
#[derive(Default)]
pub struct Derived {
    /// The token lifetimes in seconds, each with its number of clients.
    pub lifetimes: BTreeMap<u32, usize>,
    /// The number of clients of each kind, for the decoys.
    pub census: Census,
    /// The [`last_end`] of each client that has one, sorted.
    pub secret_ends: Box<[UnixTime]>,
    /// Whether a client has a public demo secret.
    pub has_demo_secrets: bool,
    /// The clients that need a proxy to forward their certificates.
    pub certificate_clients: CertificateClients,
}

impl Derived {
    /// Derives the values from `clients`, in one pass: memory is slow if there are many.
    pub fn of<'c>(clients: impl Iterator<Item = &'c Client>) -> Self {
        let (mut derived, mut ends) = (Self::default(), Vec::new());
        for client in clients {
            *derived.lifetimes.entry(client.token_lifetime).or_default() += 1;
            derived.census.count(client);
            ends.extend(last_end(client));
            derived.has_demo_secrets |= has_demo_secret(client);
            if needs_proxy(client) {
                derived.certificate_clients.add(&client.id);
            }
        }
        ends.sort_unstable();
        derived.secret_ends = ends.into();
        derived
    }
}

/// Whether the client has a public demo secret.
pub fn has_demo_secret(client: &Client) -> bool {
    let is_demo = |secret: &ClientSecret| match &secret.hash {
        SecretHash::Fast(hash) => bool::from(is_demo_secret(hash)),
        SecretHash::Slow(_) => false,
    };
    client.secrets.iter().any(is_demo)
}

/// Returns when the client's last secret expires. `None` if the client has no secret, has a secret
/// without an expiry, is disabled, or does not authenticate with a secret.
pub fn last_end(client: &Client) -> Option<UnixTime> {
    let by_secret = AuthMethod::DEFAULT.iter().any(|method| client.auth_methods.contains(*method));
    if !client.enabled || !by_secret {
        return None;
    }
    let ends: Option<Vec<_>> = client.secrets.iter().map(|secret| secret.expires_at).collect();
    ends?.into_iter().max()
}

/// Whether the client is enabled and needs a proxy to forward its certificate.
pub fn needs_proxy(client: &Client) -> bool {
    client.enabled && client.needs_certificate()
}

/// The number of the enabled clients that need a proxy to forward their certificates, and the first
/// of their ids.
#[derive(Default)]
pub struct CertificateClients {
    /// The first ids in alphabetical order, at most [`NAMED`].
    first: Vec<CompactString>,
    count: usize,
}

impl CertificateClients {
    /// Adds a client.
    pub fn add(&mut self, id: &CompactString) {
        self.count += 1;
        self.name(id);
    }

    /// Adds the clients of `other`.
    pub fn add_all(&mut self, other: &Self) {
        self.count += other.count;
        other.first.iter().for_each(|id| self.name(id));
    }

    fn name(&mut self, id: &CompactString) {
        let place = self.first.partition_point(|known| known < id);
        if place < NAMED {
            self.first.insert(place, id.clone());
            self.first.truncate(NAMED);
        }
    }

    /// Returns the ids. If there are more than five, returns the first five and then `and N more`.
    pub fn names(&self) -> Vec<String> {
        let more = self.count - self.first.len();
        let more = (more > 0).then(|| format!("and {more} more"));
        self.first.iter().map(ToString::to_string).chain(more).collect()
    }
}

/// The maximum number of client ids that [`CertificateClients::names`] returns.
const NAMED: usize = 5;
