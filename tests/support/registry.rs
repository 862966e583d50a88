//! Registry entries of test clients, and the registry of most servers in the tests.

use serde_json::{Value, json};

use crate::support::home::{hash_of, secret_of};

/// Returns the registry entry of a client that has the secret [`secret_of`] and gets the scope
/// `read`. The members of `changes` are added or replaced; a `null` removes the member.
pub(crate) fn client_json(id: &str, changes: &Value) -> Value {
    let client = json!({
        "client_id": id,
        "secrets": secrets_json(&hash_of(&secret_of(id))),
        "scopes": ["read"],
        "default_scopes": ["read"],
    });
    changed(client, changes)
}

/// Returns the registry entry of a client whose secret has this hash.
pub(crate) fn client_with_hash(id: &str, hash: &str) -> Value {
    client_json(id, &json!({ "secrets": secrets_json(hash) }))
}

/// Returns the registry entry of a client without a secret, for clients with keys or certificates.
pub(crate) fn client_without_secret(id: &str, changes: &Value) -> Value {
    client_json(id, &changed(json!({ "secrets": null }), changes))
}

/// Returns the member `secrets` with one secret, which has this hash.
pub(crate) fn secrets_json(hash: &str) -> Value {
    json!([{ "label": "a", "hash": hash }])
}

/// Returns `object` with the members of `changes` added or replaced; a `null` removes the member.
pub(crate) fn changed(mut object: Value, changes: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.shift_remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    object
}

/// Returns the text of a registry with these clients.
pub(crate) fn registry_of(clients: &[Value]) -> String {
    json!({ "clients": clients }).to_string()
}

/// Returns the text of a registry. It has the shipped clients, and one more client for each rule
/// that the tests cannot check with the shipped clients.
pub(crate) fn registry() -> String {
    serde_json::to_string_pretty(&usual_clients(&[])).unwrap()
}

/// Returns the text of the registry that [`registry`] returns, with these clients added.
pub(crate) fn registry_with(more: &[Value]) -> String {
    usual_clients(more).to_string()
}

fn usual_clients(more: &[Value]) -> Value {
    let shipped = include_str!("../../clients.json");
    let mut document: Value = serde_json::from_str(shipped).unwrap();
    let clients = document["clients"].as_array_mut().unwrap();
    let client = |id: &str, changes: Value| {
        client_json(id, &changed(json!({ "scopes": ["read", "write"] }), &changes))
    };
    let timed = |id: &str, member: &str, at: u64| {
        let mut secrets = secrets_json(&hash_of(&secret_of(id)));
        secrets[0][member] = at.into();
        client(id, json!({ "secrets": secrets }))
    };
    clients.extend([
        client("one-audience", json!({ "audience": ["https://api.example/one"] })),
        client("two-audiences", json!({ "audience": AUDIENCES })),
        client("no-default", json!({ "default_scopes": [] })),
        client("no-scope", json!({ "scopes": [], "default_scopes": [] })),
        client("basic-only", json!({ "auth_methods": ["client_secret_basic"] })),
        client("post-only", json!({ "auth_methods": ["client_secret_post"] })),
        client("no-secret", json!({ "secrets": [] })),
        client("disabled", json!({ "enabled": false })),
        client("reuser", json!({ "token_reuse": 600, "audience": AUDIENCES })),
        client("timed", json!({ "server_timing": true })),
        timed("expired", "expires_at", 1),
        timed("not-yet", "not_before", 32_503_680_000),
        client("an:identifier", json!({ "secrets": secrets_json(&hash_of(ODD_SECRET)) })),
        client("percent", json!({ "secrets": secrets_json(&hash_of(PERCENT_SECRET)) })),
    ]);
    clients.extend_from_slice(more);
    document
}

const AUDIENCES: [&str; 2] = ["https://api.example/one", "urn:example:two"];

/// A secret with every character that form-encoding or Basic could change.
pub(crate) const ODD_SECRET: &str = " %&+ \"quoted\" a:b=c;d ~!@#$^*()'\\";

/// A secret that is not a valid form encoding.
pub(crate) const PERCENT_SECRET: &str = "100% sure that this is long enough %zz";
