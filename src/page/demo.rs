//! The demo clients, which the page offers while the server serves them.

use serde_json::{Value, json};

use crate::oauth::client::AuthMethod;
use crate::oauth::client_secret::{FastHash, SecretHash};
use crate::page::html::escape;
use crate::snapshot::Snapshot;

/// A demo client of the shipped registry: its id, its secret, which is public, and a scope that it
/// may request.
const CLIENTS: [(&str, &str, &str); 2] = [
    ("demo-client", "demo-secret-for-local-use-only-0001", "external-api"),
    ("vision-api-user", "abcdefghizklmnopponommnshfghzxxs", "all"),
];

/// Puts the demo clients that the server serves into the text of the page.
pub fn offered(page: &str, snapshot: &Snapshot) -> String {
    let served = CLIENTS.into_iter().filter(|(id, secret, _)| is_served(id, secret, snapshot));
    let clients: Vec<Value> = served
        .map(|(id, secret, scope)| json!({ "id": id, "secret": secret, "scope": scope }))
        .collect();
    page.replace("{demo-clients}", &escape(&Value::from(clients).to_string()))
}

fn is_served(id: &str, secret: &str, snapshot: &Snapshot) -> bool {
    let hash = SecretHash::Fast(FastHash::of(secret));
    snapshot.allows_demo_secrets
        && snapshot.clients.get(id).is_some_and(|client| {
            client.enabled
                && client.auth_methods.contains(AuthMethod::ClientSecretPost)
                && client.secrets.iter().any(|secret| secret.hash == hash)
        })
}
