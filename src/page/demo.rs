//! The demo clients, which the page offers while the server serves them.

use serde_json::{Value, json};

use crate::oauth::client::AuthMethod;
use crate::oauth::client_secret::{FastHash, SecretHash};
use crate::page::html::escape;
use crate::snapshot::Snapshot;

/// A demo client of the shipped registry. Its secret is public.
struct DemoClient {
    id: &'static str,
    secret: &'static str,
    /// A scope that it may request.
    scope: &'static str,
    /// A scope that it may request with an `appContext`, if there is one.
    scope_in_context: Option<&'static str>,
}

const CLIENTS: [DemoClient; 2] = [
    DemoClient {
        id: "demo-client",
        secret: "demo-secret-for-local-use-only-0001",
        scope: "external-api",
        scope_in_context: None,
    },
    DemoClient {
        id: "vision-api-user",
        secret: "abcdefghizklmnopponommnshfghzxxs",
        scope: "all",
        scope_in_context: Some("accountmanagement.read"),
    },
];

/// Puts the demo clients that the server serves into the text of the page.
pub fn offered(page: &str, snapshot: &Snapshot) -> String {
    let served = CLIENTS.iter().filter(|client| client.is_served(snapshot));
    let clients: Vec<Value> = served
        .map(|&DemoClient { id, secret, scope, scope_in_context }| {
            json!({
                "id": id,
                "secret": secret,
                "scope": scope,
                "scope_in_context": scope_in_context,
            })
        })
        .collect();
    page.replace("{demo-clients}", &escape(&Value::from(clients).to_string()))
}

impl DemoClient {
    fn is_served(&self, snapshot: &Snapshot) -> bool {
        let hash = SecretHash::Fast(FastHash::of(self.secret));
        snapshot.allows_demo_secrets
            && snapshot.clients.get(self.id).is_some_and(|client| {
                client.enabled
                    && client.auth_methods.contains(AuthMethod::ClientSecretPost)
                    && client.secrets.iter().any(|secret| secret.hash == hash)
            })
    }
}
