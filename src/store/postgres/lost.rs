//! Clients and keys that the store has lost: they were in force here, and are not in it any more. A standby that is
//! promoted, or a backup that is restored, may lack the last changes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use compact_str::CompactString;
use tracing::warn;

use crate::store::postgres::failure::clean;

/// How the store differs from what this server knew in an earlier epoch of it.
#[derive(Default)]
pub(super) struct Differences {
    pub(super) clients_gone: Ids,
    pub(super) clients_changed: Ids,
    pub(super) clients_new: Ids,
    pub(super) keys_gone: Ids,
}

impl Differences {
    /// Notes the keys of `before` that are not among `after`.
    pub(super) fn note_keys<'k>(
        &mut self,
        before: impl IntoIterator<Item = &'k str>,
        mut is_left: impl FnMut(&str) -> bool,
    ) {
        before.into_iter().filter(|id| !is_left(id)).for_each(|id| self.keys_gone.add(id));
    }

    /// Logs the differences, if there are any.
    pub(super) fn report(&self, store: &Path) {
        let Self { clients_gone, clients_changed, clients_new, keys_gone } = self;
        let all = [clients_gone, clients_changed, clients_new, keys_gone];
        if all.iter().all(|ids| ids.count == 0) {
            return;
        }
        let [clients_gone, clients_changed, clients_new, keys_gone] = all.map(Ids::shown);
        warn!(
            store = %store.display(),
            clients_gone,
            clients_changed,
            clients_new,
            keys_gone,
            "the store differs from what was in force here: if it was restored or a standby was promoted, it has lost its last changes: compare these clients and keys, and repeat what is missing"
        );
    }
}

/// The ids of some items, of which the first are shown.
#[derive(Default)]
pub(super) struct Ids {
    first: Vec<String>,
    count: usize,
}

impl Ids {
    pub(super) fn add(&mut self, id: &str) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(clean(id));
        }
    }

    /// `None` if there are none.
    fn shown(&self) -> Option<String> {
        let first = self.first.join(", ");
        match self.count - self.first.len() {
            0 => (self.count > 0).then_some(first),
            more => Some(format!("{first} and {more} more")),
        }
    }
}

/// The clients and keys of a snapshot, with which the store is compared while it is read.
#[derive(Default)]
pub(super) struct Recalled {
    /// A hash of each client's entry.
    clients: HashMap<CompactString, u64>,
    pub(super) keys: Vec<String>,
    differences: Differences,
}

impl Recalled {
    /// Notes the client's last entry in the snapshot; `None` if it was removed.
    pub(super) fn note(&mut self, id: &str, entry: Option<&str>) {
        match entry {
            Some(entry) => drop(self.clients.insert(id.into(), hash(entry))),
            None => drop(self.clients.remove(id)),
        }
    }

    /// Compares a client in the store.
    pub(super) fn compare(&mut self, id: &str, entry: &str) {
        match self.clients.remove(id) {
            None => self.differences.clients_new.add(id),
            Some(before) if before == hash(entry) => {}
            Some(_) => self.differences.clients_changed.add(id),
        }
    }

    /// Logs the differences, when all clients were compared. `is_left` says whether the store has
    /// the key with this id.
    pub(super) fn report(mut self, store: &Path, is_left: impl FnMut(&str) -> bool) {
        self.clients.keys().for_each(|id| self.differences.clients_gone.add(id));
        self.differences.note_keys(self.keys.iter().map(String::as_str), is_left);
        self.differences.report(store);
    }
}

fn hash(entry: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.hash(&mut hasher);
    hasher.finish()
}

/// The most ids of a kind that are shown.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ids_are_shown_and_all_are_counted() {
        let mut ids = Ids::default();
        assert_eq!(ids.shown(), None);
        (0..20).for_each(|number| ids.add(&number.to_string()));
        assert!(ids.shown().unwrap().ends_with("18, 19"));
        ids.add("a\nb");
        ids.add("c");
        assert!(ids.shown().unwrap().ends_with("18, 19 and 2 more"));
    }
}
