//! Counts the clients whose last secret expires soon, so that operators can be warned.

use crate::oauth::client::{AuthMethod, Client};
use crate::time::UnixTime;

/// For each client, the time at which its last secret expires. The times are sorted. A client is
/// included only if it is enabled, authenticates with a secret, and all its secrets have an expiry.
#[derive(Debug, Default)]
pub struct SecretEnds(Box<[UnixTime]>);

impl SecretEnds {
    /// Creates the list from the [`last_end`] of each client.
    pub fn new(mut ends: Vec<UnixTime>) -> Self {
        ends.sort_unstable();
        Self(ends.into())
    }

    /// The number of clients whose last secret has expired at `time`.
    pub fn before(&self, time: UnixTime) -> usize {
        self.0.partition_point(|end| *end <= time)
    }
}

/// Returns when the client's last secret expires. `None` if the client has no secret, has a secret
/// without an expiry, is disabled, or does not authenticate with a secret.
pub fn last_end(client: &Client) -> Option<UnixTime> {
    let by_secret = AuthMethod::DEFAULT.iter().any(|method| client.auth_methods.contains(*method));
    if !client.enabled || !by_secret {
        return None;
    }
    let ends: Option<Vec<_>> = client.secrets.iter().map(|secret| secret.expires_at).collect();
    ends?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::registry::client_file;

    #[test]
    fn a_client_counts_when_its_last_secret_has_expired() {
        let client = |id: &str, ends: &[Option<u64>], more: Value| {
            let secret = |(label, end): (usize, &Option<u64>)| {
                let hash = "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
                let mut secret = json!({ "label": label.to_string(), "hash": hash });
                if let Some(end) = end {
                    secret["expires_at"] = (*end).into();
                }
                secret
            };
            let secrets: Vec<_> = ends.iter().enumerate().map(secret).collect();
            let mut client = json!({ "client_id": id, "secrets": secrets });
            client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            client
        };
        let clients = [
            client("ends", &[Some(100)], json!({})),
            client("rotated", &[Some(100), Some(300)], json!({})),
            client("ended", &[Some(10), Some(20)], json!({})),
            client("for ever", &[Some(100), None], json!({})),
            client("none", &[], json!({})),
            client("disabled", &[Some(100)], json!({ "enabled": false })),
            client(
                "by name",
                &[Some(100)],
                json!({ "auth_methods": ["tls_client_auth"],
                "tls_client_auth_san_dns": "a" }),
            ),
        ];
        let text = json!({ "clients": clients }).to_string();
        let clients = client_file::parse(Path::new("clients.json"), &text).unwrap();
        for (time, count) in [(0, 0), (19, 0), (20, 1), (99, 1), (100, 2), (300, 3), (u64::MAX, 3)]
        {
            assert_eq!(clients.ended_secrets(UnixTime(time)), count, "{time}");
        }
    }
}
