//! The differences between two snapshots, for the log: names only, never secrets.

use std::fmt;

use crate::keys::signing_key::SigningKey;
use crate::oauth::client::Client;
use crate::registry::clients::Difference;
use crate::snapshot::Snapshot;

/// The differences between two snapshots, one text for each kind of change.
pub struct Changes(Vec<String>);

impl Changes {
    /// Compares `old` with `new`, whose clients differ by `clients`.
    pub fn between(old: &Snapshot, new: &Snapshot, clients: &[Difference<'_>]) -> Self {
        let [mut added, mut removed, mut changed] = [const { Vec::new() }; 3];
        for difference in clients {
            match (difference.before, difference.after) {
                (Some(before), Some(after)) => changed.push(describe(before, after)),
                (Some(before), None) => removed.push(before.id.to_string()),
                (None, Some(after)) => added.push(after.id.to_string()),
                (None, None) => {}
            }
        }
        let keys = |all: &Snapshot, known: &Snapshot| {
            // A key whose times have changed counts both as removed and as added.
            let is_known = |key: &SigningKey| {
                let mut others = known.keys.iter();
                others.any(|it| (it.key_id(), it.times()) == (key.key_id(), key.times()))
            };
            let unknown = all.keys.iter().filter(|key| !is_known(key));
            unknown.map(|key| key.key_id().to_owned()).collect()
        };
        let lists: [(_, Vec<String>); 5] = [
            ("clients added", added),
            ("clients removed", removed),
            ("clients changed", changed),
            ("keys added", keys(new, old)),
            ("keys removed", keys(old, new)),
        ];
        let named = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let mut changes: Vec<_> = named.map(|(what, names)| list(what, names)).collect();
        if old.config != new.config || old.issuer != new.issuer {
            changes.push("settings".to_owned());
        }
        if old.admin_token != new.admin_token {
            changes.push("admin token".to_owned());
        }
        Self(changes)
    }

    /// Notes another kind of change.
    pub fn add(&mut self, what: &str) {
        self.0.push(what.to_owned());
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Example: `clients added: a, b; clients changed: c (+new -old); settings`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

fn list(what: &str, mut names: Vec<String>) -> String {
    names.sort_unstable();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { format!("{what}: {shown}") } else { format!("{what}: {shown} and {more} more") }
}

/// Returns the id of the client with the labels of its added (`+`), removed (`-`) and changed (`~`)
/// secrets.
fn describe(before: &Client, client: &Client) -> String {
    let find = |client: &Client, label: &str| {
        client.secrets.iter().find(|secret| *secret.label == *label).cloned()
    };
    let mut labels = Vec::new();
    for secret in &client.secrets {
        match find(before, &secret.label) {
            None => labels.push(format!("+{}", secret.label)),
            Some(known) if known != *secret => labels.push(format!("~{}", secret.label)),
            Some(_) => {}
        }
    }
    let gone = before.secrets.iter().filter(|secret| find(client, &secret.label).is_none());
    labels.extend(gone.map(|secret| format!("-{}", secret.label)));
    if labels.is_empty() {
        client.id.to_string()
    } else {
        format!("{} ({})", client.id, labels.join(" "))
    }
}

/// The maximum number of names that the log shows from each list.
const SHOWN: usize = 20;
