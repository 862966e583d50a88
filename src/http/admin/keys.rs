//! The state of the signing keys and how often they were fetched, as JSON and as metrics.

use std::fmt::Write;

use serde_json::Value;

use crate::keys::key_set::KeySet;
use crate::keys::life::KeyState;
use crate::keys::signing_key::SigningKey;
use crate::time::UnixTime;

/// Describes every key at `now`, with the number of its fetches and the time of the last fetch.
pub(super) fn to_json(keys: &KeySet, now: UnixTime) -> Value {
    let described = keys.describe(now).map(|(key, mut described)| {
        let fetches = key.fetches().count();
        described.insert("fetches".to_owned(), fetches.into());
        let last = (fetches > 0).then(|| key.fetches().last().0);
        described.insert("last_fetch".to_owned(), last.into());
        Value::Object(described)
    });
    described.collect()
}

/// Returns two metrics for each key that is not gone, in the Prometheus text format.
pub(super) fn to_metrics(keys: &KeySet, now: UnixTime) -> String {
    let shown: Vec<_> = keys.states(now).filter(|(_, state)| *state != KeyState::Gone).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for (name, kind, help, series) in METRICS {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (key, state) in &shown {
            let (labels, value) = series(key, *state, now);
            // Writing to a string cannot fail, and a kid is base64url, which needs no escaping.
            let _ = writeln!(text, "{name}{{kid=\"{}\"{labels}}} {value}", key.key_id());
        }
    }
    text
}

/// The name, type and help text of a metric, and the function that computes the metric for one key.
/// The function returns the labels that follow `kid`, and the value.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&SigningKey, KeyState, UnixTime) -> (String, u64),
);

const METRICS: [Metric; 2] = [
    (
        "grantd_key_age_seconds",
        "gauge",
        "Seconds since a key was published; since 1970 if its file states no time.",
        |key, state, now| {
            let age = now.since(key.times().published_at);
            (format!(",state=\"{state}\""), age)
        },
    ),
    (
        "grantd_key_set_fetches_total",
        "counter",
        "Answers with a key set that contains the key.",
        |key, _, _| (String::new(), key.fetches().count()),
    ),
];
