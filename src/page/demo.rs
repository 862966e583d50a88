//! The demo clients, which the page offers while the server serves them.

use serde_json::Value;

use crate::oauth::client::AuthMethod;
use crate::oauth::client_secret::{FastHash, SecretHash};
use crate::page::html::escape;
use crate::page::reading::{items, text};
use crate::snapshot::Snapshot;

/// Puts the demo clients that the server serves into the text of the page.
pub fn offered(page: &str, snapshot: &Snapshot) -> String {
    let clients: Value = serde_json::from_str(CLIENTS).unwrap_or_default();
    let served: Value =
        items(&clients).filter(|client| is_served(client, snapshot)).cloned().collect();
    page.replace("{demo-clients}", &escape(&served.to_string()))
}

fn is_served(demo: &Value, snapshot: &Snapshot) -> bool {
    let hash = SecretHash::Fast(FastHash::of(text(&demo["secret"])));
    snapshot.allows_demo_secrets
        && snapshot.clients.get(text(&demo["id"])).is_some_and(|client| {
            client.enabled
                && client.auth_methods.contains(AuthMethod::ClientSecretPost)
                && client.secrets.iter().any(|secret| secret.hash == hash)
        })
}

/// The demo clients of the shipped registry, whose secrets are public: each with a scope that it may
/// request, and with one that it may request with an `appContext`, if there is one.
const CLIENTS: &str = r#"[
  {
    "id": "demo-client",
    "secret": "demo-secret-for-local-use-only-0001",
    "scope": "external-api",
    "scope_in_context": null
  },
  {
    "id": "vision-api-user",
    "secret": "abcdefghizklmnopponommnshfghzxxs",
    "scope": "all",
    "scope_in_context": "accountmanagement.read"
  }
]"#;
