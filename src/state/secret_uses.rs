//! Counts the uses of each client secret, so that an operator knows when an old secret can be
//! removed.
//!
//! The counts start at 0 when the process starts. They are stored by client id and secret label, so
//! a reload keeps them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::oauth::client::{Client, Registry};
use crate::oauth::client_secret::ClientSecret;
use crate::tally::Tally;

/// The uses of every secret that has been used, by client id and label.
#[derive(Default)]
pub struct SecretUses(Mutex<BTreeMap<Box<str>, Labelled>>);

/// The uses of one client's secrets, by label. This is a list and not a map, because a client has
/// few secrets.
type Labelled = Vec<(Box<str>, Arc<Tally>)>;

impl SecretUses {
    /// Counts one successful use of `secret` at `now` (Unix seconds).
    pub fn record(&self, client: &Client, secret: &ClientSecret, now: u64) {
        // The first use of a secret in a snapshot looks up its count. Each later use takes two
        // atomic operations and no look-up.
        secret.used.get_or_init(|| self.enter(&client.id, &secret.label)).record(now);
    }

    /// Returns the uses of a secret. `None` if the secret was never used.
    pub fn of(&self, client_id: &str, label: &str) -> Option<Arc<Tally>> {
        let uses = self.0.lock();
        let (_, used) = uses.get(client_id)?.iter().find(|(known, _)| **known == *label)?;
        Some(Arc::clone(used))
    }

    /// Removes the counts of secrets that no longer belong to a client in `clients`. Then returns
    /// two metrics for each used secret, in the Prometheus text format.
    pub fn to_metrics(&self, clients: &Registry) -> String {
        let mut uses = self.0.lock();
        uses.retain(|id, labelled| {
            let client = clients.get(id);
            let secrets = client.map_or(&[][..], |client| &client.secrets);
            labelled.retain(|(label, _)| secrets.iter().any(|secret| secret.label == *label));
            !labelled.is_empty()
        });
        let mut text = String::new();
        for (name, kind, help, value) in METRICS {
            if !uses.is_empty() {
                text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            }
            for (id, labelled) in &*uses {
                for (label, used) in labelled {
                    let (id, label, value) = (Escaped(id), Escaped(label), value(used));
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "{name}{{client=\"{id}\",label=\"{label}\"}} {value}");
                }
            }
        }
        text
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

/// A metric: its name, type and help text, and the function that returns its value.
type Metric = (&'static str, &'static str, &'static str, fn(&Tally) -> u64);

const METRICS: [Metric; 2] = [
    (
        "grantd_secret_uses_total",
        "counter",
        "Successful uses of a client's secret since the server started.",
        Tally::count,
    ),
    (
        "grantd_secret_last_use_seconds",
        "gauge",
        "Time of the last successful use of a client's secret, in Unix seconds.",
        Tally::last,
    ),
];

/// Escapes the value of a Prometheus label.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::client_file;

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
        assert_eq!(uses.to_metrics(&registry(&["one"])), "");
        for now in [5, 7] {
            // Parse the registry again, as a reload does. The new clients do not hold the counts of
            // the earlier uses, so `record` must look up these counts.
            let clients = registry(&["one", "t\\wo"]);
            for id in ["one", "t\\wo"] {
                let client = clients.get(id).unwrap();
                uses.record(client, &client.secrets[0], now);
                uses.record(client, &client.secrets[0], now);
            }
        }
        let used = uses.of("one", "a\"\n").unwrap();
        assert_eq!((used.count(), used.last()), (4, 7));
        assert!(uses.of("one", "b").is_none() && uses.of("three", "a\"\n").is_none());

        let text = uses.to_metrics(&registry(&["t\\wo"]));
        let series = "{client=\"t\\\\wo\",label=\"a\\\"\\n\"}";
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            format!("grantd_secret_uses_total{series} 4"),
            format!("grantd_secret_last_use_seconds{series} 7"),
        ];
        assert_eq!(lines, expected);
        assert!(uses.of("one", "a\"\n").is_none(), "the client is no longer registered");
    }
}
