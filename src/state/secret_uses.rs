//! Counts the uses of each client secret, so that an operator knows when an old secret can be
//! removed.
//!
//! The counts start at 0 when the process starts. They are stored by client id and secret label, so
//! a reload keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::oauth::client::Client;
use crate::oauth::client_secret::ClientSecret;
use crate::tally::Tally;
use crate::time::UnixTime;

/// The uses of every secret that has been used, by client id and label.
#[derive(Default)]
pub struct SecretUses(Mutex<BTreeMap<Arc<str>, Labelled>>);

/// The uses of one client's secrets, by label. This is a list and not a map, because a client has
/// few secrets.
type Labelled = Vec<(Arc<str>, Arc<Tally>)>;

impl SecretUses {
    /// Counts one successful use of `secret`, which is one of the secrets of `client`, at `now`.
    /// `found` holds the counts of this client that were looked up before.
    pub fn record(&self, client: &Client, secret: &ClientSecret, found: &Found, now: UnixTime) {
        let mut counts = client.secrets.iter().zip(&found.0);
        if let Some((_, used)) = counts.find(|(own, _)| ptr::eq(*own, secret)) {
            used.get_or_init(|| self.enter(&client.id, &secret.label)).record(now);
        }
    }

    /// Returns the uses of a secret. `None` if the secret was never used.
    pub fn of(&self, client_id: &str, label: &str) -> Option<Arc<Tally>> {
        let uses = self.0.lock();
        let (_, used) = uses.get(client_id)?.iter().find(|(known, _)| **known == *label)?;
        Some(Arc::clone(used))
    }

    /// Removes the counts of secrets that no longer belong to a client. Then returns the client id,
    /// the label and the uses of each used secret. `registered` returns a function that says whether
    /// a client has a secret with this label. It is called under the lock and must load the current
    /// snapshot: from an older one, a secret that was added and used since would be missing.
    pub fn used<R: Fn(&str, &str) -> bool>(
        &self,
        registered: impl FnOnce() -> R,
    ) -> Vec<(Arc<str>, Arc<str>, Arc<Tally>)> {
        let mut used = Vec::new();
        let mut uses = self.0.lock();
        let is_registered = registered();
        uses.retain(|id, labelled| {
            labelled.retain(|(label, _)| is_registered(id, label));
            let all = labelled.iter().cloned();
            used.extend(all.map(|(label, tally)| (Arc::clone(id), label, tally)));
            !labelled.is_empty()
        });
        used
    }

    fn enter(&self, client_id: &str, label: &str) -> Arc<Tally> {
        let mut uses = self.0.lock();
        let labelled = uses.entry(client_id.into()).or_default();
        if let Some((_, used)) = labelled.iter().find(|(known, _)| **known == *label) {
            return Arc::clone(used);
        }
        let used = Arc::<Tally>::default();
        labelled.push((label.into(), Arc::clone(&used)));
        used
    }
}

impl fmt::Debug for SecretUses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretUses").finish_non_exhaustive()
    }
}

/// The counts of one client's secrets that were looked up before, in the order of the secrets. The
/// first use of a secret looks up its count; each later use takes two atomic operations.
#[derive(Debug)]
pub struct Found(Box<[OnceLock<Arc<Tally>>]>);

impl Found {
    /// No count of a client with this number of secrets was looked up.
    pub fn none(secrets: usize) -> Self {
        Self((0..secrets).map(|_| OnceLock::new()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::client_file;
    use crate::registry::clients::Registry;

    fn registry(ids: &[&str]) -> Registry {
        let clients: Vec<_> = ids
            .iter()
            .map(|id| {
                serde_json::json!({ "client_id": id, "secrets": [{
                    "label": "a\"\n", "hash": "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0",
                }] })
            })
            .collect();
        let text = serde_json::json!({ "clients": clients }).to_string();
        client_file::parse(Path::new("clients.json"), &text).unwrap()
    }

    #[test]
    fn figures_are_kept_across_reloads_until_the_client_is_removed() {
        let uses = SecretUses::default();
        assert!(uses.used(|| |_: &str, _: &str| true).is_empty());
        for now in [5, 7] {
            // Parse the registry again, as a reload does. The new clients do not hold the counts of
            // the earlier uses, so `record` must look up these counts.
            let clients = registry(&["one", "t\\wo"]);
            for id in ["one", "t\\wo"] {
                let client = clients.get(id).unwrap();
                let found = Found::none(1);
                uses.record(client, &client.secrets[0], &found, UnixTime(now));
                uses.record(client, &client.secrets[0], &found, UnixTime(now));
            }
        }
        let used = uses.of("one", "a\"\n").unwrap();
        assert_eq!((used.count(), used.last().0), (4, 7));
        assert!(uses.of("one", "b").is_none() && uses.of("three", "a\"\n").is_none());

        let left = uses.used(|| {
            assert!(uses.0.is_locked(), "a later use of a new secret could be removed");
            |id: &str, _: &str| id == "t\\wo"
        });
        let [(id, label, used)] = &left[..] else { panic!("{left:?}") };
        assert_eq!((&**id, &**label, used.count(), used.last().0), ("t\\wo", "a\"\n", 4, 7));
        assert!(uses.of("one", "a\"\n").is_none(), "the client is no longer registered");
    }
}
