//! Counts the uses of each client secret, so that an operator knows when an old secret can be
//! removed.
//!
//! The counts start at 0 when the process starts. They are stored by client id and secret label, so
//! a reload keeps them. Servers with one store add up their counts there, and learn the sums.

use std::collections::BTreeMap;
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

/// The uses of one client's secrets. This is a list and not a map, because a client has few secrets.
type Labelled = Vec<Counted>;

/// The uses of one secret.
struct Counted {
    label: Arc<str>,
    /// The uses on this server since its start.
    own: Arc<Tally>,
    /// How many of them are in the store.
    sent: u64,
    /// The uses that are in the store, and the time of the last one.
    stored: (u64, UnixTime),
}

/// Uses of a secret that are not in the store yet.
pub struct Unsent {
    /// The client's id.
    pub client_id: Arc<str>,
    /// The label of the secret.
    pub label: Arc<str>,
    /// The number of uses.
    pub uses: u64,
    /// The time of the last one.
    pub last: UnixTime,
}

impl SecretUses {
    /// Counts one successful use of `secret`, which is one of the secrets of `client`, at `now`.
    /// `found` holds the counts of this client that were looked up before.
    pub fn record(&self, client: &Client, secret: &ClientSecret, found: &Found, now: UnixTime) {
        let mut counts = client.secrets.iter().zip(&found.0);
        if let Some((_, used)) = counts.find(|(own, _)| ptr::eq(*own, secret)) {
            let look_up =
                || Arc::clone(&counted(&mut self.0.lock(), &client.id, &secret.label).own);
            used.get_or_init(look_up).record(now);
        }
    }

    /// Returns the number of uses of a secret on all servers, and the time of the last one. `None` if
    /// the secret was never used.
    pub fn of(&self, client_id: &str, label: &str) -> Option<(u64, UnixTime)> {
        let uses = self.0.lock();
        let used = uses.get(client_id)?.iter().find(|known| *known.label == *label)?;
        let (stored, last) = used.stored;
        let unsent = used.own.count().saturating_sub(used.sent);
        Some((stored.saturating_add(unsent), last.max(used.own.last())))
    }

    /// Returns the uses that are not in the store yet, sorted by client id.
    pub fn unsent(&self) -> Vec<Unsent> {
        let mut unsent = Vec::new();
        for (client_id, labelled) in &*self.0.lock() {
            for Counted { label, own, sent, .. } in labelled {
                let uses = own.count().saturating_sub(*sent);
                if uses > 0 {
                    let (client_id, label) = (Arc::clone(client_id), Arc::clone(label));
                    unsent.push(Unsent { client_id, label, uses, last: own.last() });
                }
            }
        }
        unsent
    }

    /// Notes that these uses are in the store.
    pub fn note_sent(&self, sent: &[Unsent]) {
        let mut all = self.0.lock();
        for Unsent { client_id, label, uses, last } in sent {
            let labelled = all.get_mut(client_id).into_iter().flatten();
            for counted in labelled.filter(|counted| counted.label == *label) {
                counted.sent += uses;
                counted.stored = (counted.stored.0 + uses, counted.stored.1.max(*last));
            }
        }
    }

    /// Notes the uses of a secret that are in the store, and the time of the last one.
    pub fn learn(&self, client_id: &str, label: &str, stored: (u64, UnixTime)) {
        counted(&mut self.0.lock(), client_id, label).stored = stored;
    }

    /// Removes the counts of secrets that no longer belong to a client. Then returns the client id,
    /// the label and the uses of each secret that this server has used. `registered` returns a
    /// function that says whether a client has a secret with this label. It is called under the lock
    /// and must load the current snapshot: from an older one, a secret that was added and used since
    /// would be missing.
    pub fn used<R: Fn(&str, &str) -> bool>(
        &self,
        registered: impl FnOnce() -> R,
    ) -> Vec<(Arc<str>, Arc<str>, Arc<Tally>)> {
        let mut used = Vec::new();
        let mut uses = self.0.lock();
        let is_registered = registered();
        uses.retain(|id, labelled| {
            labelled.retain(|counted| is_registered(id, &counted.label));
            let own = labelled.iter().filter(|counted| counted.own.count() > 0);
            used.extend(own.map(|counted| {
                (Arc::clone(id), Arc::clone(&counted.label), Arc::clone(&counted.own))
            }));
            !labelled.is_empty()
        });
        used
    }
}

/// Returns the uses of a secret, which begin at 0.
fn counted<'a>(
    all: &'a mut BTreeMap<Arc<str>, Labelled>,
    client_id: &str,
    label: &str,
) -> &'a mut Counted {
    let labelled = all.entry(client_id.into()).or_default();
    let index = labelled.iter().position(|known| *known.label == *label).unwrap_or_else(|| {
        let (label, own) = (label.into(), Arc::default());
        labelled.push(Counted { label, own, sent: 0, stored: Default::default() });
        labelled.len() - 1
    });
    &mut labelled[index]
}

/// The counts of one client's secrets that were looked up before, in the order of the secrets. The
/// first use of a secret looks up its count; each later use takes two atomic operations.
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
        assert_eq!(used, (4, UnixTime(7)));
        assert!(uses.of("one", "b").is_none() && uses.of("three", "a\"\n").is_none());

        let left = uses.used(|| {
            assert!(uses.0.is_locked(), "a later use of a new secret could be removed");
            |id: &str, _: &str| id == "t\\wo"
        });
        let [(id, label, used)] = &left[..] else { panic!("{left:?}") };
        assert_eq!((&**id, &**label, used.count(), used.last().0), ("t\\wo", "a\"\n", 4, 7));
        assert!(uses.of("one", "a\"\n").is_none(), "the client is no longer registered");
    }

    #[test]
    fn what_all_servers_have_counted_is_added_up() {
        let clients = registry(&["one"]);
        let client = clients.get("one").unwrap();
        let (uses, found) = (SecretUses::default(), Found::none(1));
        let record = |now| uses.record(client, &client.secrets[0], &found, UnixTime(now));
        let of = || uses.of("one", "a\"\n").map(|(uses, last)| (uses, last.0));
        record(5);
        record(6);
        let unsent = uses.unsent();
        record(7);
        assert_eq!((unsent.len(), unsent[0].uses, unsent[0].last.0, of()), (1, 2, 6, Some((3, 7))));
        uses.note_sent(&unsent);
        assert_eq!(of(), Some((3, 7)));
        uses.learn("one", "a\"\n", (12, UnixTime(9)));
        assert_eq!(of(), Some((13, 9)));
        assert_eq!(uses.unsent()[0].uses, 1);
        // A secret that only other servers have used is in no metric of this one.
        uses.learn("one", "b", (1, UnixTime(3)));
        assert_eq!(uses.of("one", "b"), Some((1, UnixTime(3))));
        assert_eq!(uses.used(|| |_: &str, _: &str| true).len(), 1);
    }
}
