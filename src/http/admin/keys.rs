//! The state of the signing keys and how often they were fetched.

use serde_json::Value;

use crate::keys::key_set::KeySet;
use crate::keys::life::KeyTime;

/// Describes every key at `at`, with the number of its fetches and the time of the last fetch.
pub(super) fn to_json(keys: &KeySet, at: KeyTime) -> Value {
    let described = keys.describe(at).map(|(key, mut described)| {
        let fetches = key.fetches().count();
        described.insert("fetches".to_owned(), fetches.into());
        let last = (fetches > 0).then(|| key.fetches().last().0);
        described.insert("last_fetch".to_owned(), last.into());
        Value::Object(described)
    });
    described.collect()
}
