//! Where the signing keys stand and who has asked for them, as operators read it.

use std::fmt::Write;

use serde_json::Value;

use crate::jose::key_life::KeyState;
use crate::jose::key_set::{KeySet, SigningKey};

/// Every key at `now` (Unix seconds), with the figures that only a running server has.
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

/// Two metrics for each key that is not gone, in the Prometheus text format.
pub(super) fn to_metrics(keys: &KeySet, now: u64) -> String {
    let shown: Vec<_> = keys.states(now).filter(|(_, state)| *state != KeyState::Gone).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for (name, kind, help, series) in METRICS {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (key, state) in &shown {
            let (labels, value) = series(key, *state, now);
            // A string takes everything. A kid is base64url: nothing in it needs escaping.
            let _ = writeln!(text, "{name}{{kid=\"{}\"{labels}}} {value}", key.key_id());
        }
    }
    text
}

/// Name, type, help; labels beside the `kid` and value.
type Metric =
    (&'static str, &'static str, &'static str, fn(&SigningKey, KeyState, u64) -> (String, u64));

const METRICS: [Metric; 2] = [
    (
        "grantd_key_age_seconds",
        "gauge",
        "Seconds since a key was published; one whose file names no time is as old as 1970.",
        |key, state, now| {
            let age = now.saturating_sub(key.times().published_at);
            (format!(",state=\"{state}\""), age)
        },
    ),
    (
        "grantd_key_set_fetches_total",
        "counter",
        "Answers with a key set that has the key.",
        |key, _, _| (String::new(), key.fetches().count()),
    ),
];
