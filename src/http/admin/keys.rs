//! The state of the signing keys and how often they were fetched.

use serde_json::Value;

use crate::keys::key_set::KeySet;

/// Describes every key at `now` (Unix seconds), with the number of its fetches and the time of the
/// last fetch.
pub(super) fn to_json(keys: &KeySet, now: u64) -> Value {
    let described = keys.describe(now).map(|(key, mut described)| {
        let fetches = key.fetches().count();
        described.insert("fetches".to_owned(), fetches.into());
        let last = (fetches > 0).then(|| key.fetches().last());
        described.insert("last_fetch".to_owned(), last.into());
        Value::Object(described)
    });
    described.collect()
}
