//! The differences between two snapshots, for the log: names only, never secrets.

use std::fmt;

use crate::keys::signing_key::SigningKey;
use crate::oauth::client::Client;
use crate::registry::clients::Registry;
use crate::snapshot::Snapshot;

/// The differences between two snapshots.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    clients_added: Vec<String>,
    clients_removed: Vec<String>,
    /// The changed clients, each with the labels of its added (`+`), removed (`-`) and changed
    /// (`~`) secrets.
    clients_changed: Vec<String>,
    keys_added: Vec<String>,
    keys_removed: Vec<String>,
    has_other_settings: bool,
    has_other_admin_token: bool,
}

impl Changes {
    /// Compares `old` with `new`.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let missing = |all: &Registry, from: &Registry| {
            let absent = all.iter().filter(|client| from.get(&client.id).is_none());
            sorted(absent.map(|client| client.id.to_string()).collect())
        };
        let changed = new.clients.iter().filter_map(|client| {
            let before = old.clients.get(&client.id)?;
            (!std::ptr::eq(client, before) && client != before).then(|| describe(before, client))
        });
        let keys = |all: &Snapshot, known: &Snapshot| {
            // A key whose times have changed counts both as removed and as added.
            let is_known = |key: &SigningKey| {
                let mut others = known.keys.iter();
                others.any(|it| (it.key_id(), it.times()) == (key.key_id(), key.times()))
            };
            let unknown = all.keys.iter().filter(|key| !is_known(key));
            sorted(unknown.map(|key| key.key_id().to_owned()).collect())
        };
        Self {
            clients_added: missing(&new.clients, &old.clients),
            clients_removed: missing(&old.clients, &new.clients),
            clients_changed: sorted(changed.collect()),
            keys_added: keys(new, old),
            keys_removed: keys(old, new),
            has_other_settings: old.config != new.config || old.issuer != new.issuer,
            has_other_admin_token: old.admin_token != new.admin_token,
        }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Example: `clients added: a, b; clients changed: c (+new -old); settings`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("clients added", &self.clients_added),
            ("clients removed", &self.clients_removed),
            ("clients changed", &self.clients_changed),
            ("keys added", &self.keys_added),
            ("keys removed", &self.keys_removed),
        ];
        let mut separator = "";
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "{separator}{what}: {}", names[..names.len().min(SHOWN)].join(", "))?;
            if names.len() > SHOWN {
                write!(f, " and {} more", names.len() - SHOWN)?;
            }
            separator = "; ";
        }
        if self.has_other_settings {
            write!(f, "{separator}settings")?;
            separator = "; ";
        }
        if self.has_other_admin_token {
            write!(f, "{separator}admin token")?;
        }
        Ok(())
    }
}

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

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

/// The maximum number of names that the log shows from each list.
const SHOWN: usize = 20;
