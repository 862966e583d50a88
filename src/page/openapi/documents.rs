//! The operations that answer with a public document.

use serde_json::{Map, Value, json};

use crate::endpoint::metadata::server_metadata as metadata;
use crate::page::openapi::operation::{Operation, constant};
use crate::page::openapi::refusals::written;
use crate::page::policy::POLICY;
use crate::snapshot::Snapshot;

pub fn server_metadata(snapshot: &Snapshot) -> Operation {
    let example: Value = serde_json::from_str(&metadata(snapshot).body).unwrap_or_default();
    let members = example.as_object().into_iter().flatten();
    let properties = members.map(|(name, value)| {
        let schema = match value {
            Value::Array(_) => json!({ "type": "array", "items": { "type": "string" } }),
            Value::Bool(_) => json!({ "type": "boolean" }),
            _ => json!({ "type": "string" }),
        };
        (name.clone(), schema)
    });
    let properties: Map<_, _> = properties.collect();
    let schema = json!({
        "type": "object",
        "required": properties.keys().collect::<Vec<_>>(),
        "properties": properties,
        "additionalProperties": false,
    });
    document(
        "Read what the server supports",
        "Server metadata (RFC 8414; OpenID Connect Discovery 1.0). It lists only what works here. If \
         the issuer has a path, RFC 8414 puts its own path in front of it; both places answer.",
        &json!({ "schema": schema, "example": example }),
        &public_headers(),
    )
}

pub fn key_set() -> Operation {
    let text = || json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$" });
    let key = json!({
        "type": "object",
        "required": ["kty", "use", "alg", "kid", "n", "e"],
        "properties": {
            "kty": { "type": "string", "const": "RSA" },
            "use": { "type": "string", "const": "sig" },
            "alg": { "type": "string", "const": "RS256" },
            "kid": text(),
            "n": text(),
            "e": text(),
        },
        "additionalProperties": false,
    });
    let schema = json!({
        "type": "object",
        "required": ["keys"],
        "properties": { "keys": { "type": "array", "items": key } },
        "additionalProperties": false,
    });
    document(
        "Read the keys that verify tokens",
        "The public keys of this server (RFC 7517). Keep them as long as Cache-Control says: a new \
         key is here that long before it signs.",
        &json!({ "schema": schema }),
        &public_headers(),
    )
}

pub fn openapi() -> Operation {
    let mut headers = json!({ "Cache-Control": constant("no-cache"), "ETag": etag() });
    for (name, value) in POLICY {
        headers[&written(name)] = constant(value);
    }
    document(
        "Read this document",
        "The description of all services of this server.",
        &json!({ "schema": {
            "type": "object",
            "required": MEMBERS,
            "properties": MEMBERS.into_iter().map(|name| (name.to_owned(), json!({}))).collect::<Map<_, _>>(),
            "additionalProperties": false,
        } }),
        &headers,
    )
}

/// The members of the OpenAPI document.
const MEMBERS: [&str; 8] = [
    "openapi",
    "jsonSchemaDialect",
    "info",
    "servers",
    "tags",
    "paths",
    "components",
    "x-refusals",
];

fn document(
    summary: &'static str,
    description: &str,
    content: &Value,
    headers: &Value,
) -> Operation {
    Operation {
        tag: "Documents",
        summary,
        description: description.to_owned(),
        parameters: vec![json!({
            "name": "If-None-Match",
            "in": "header",
            "description": "The ETag of the copy that the client has.",
            "schema": { "type": "string" },
        })],
        successes: vec![
            (
                200,
                json!({
                    "description": "The document",
                    "headers": headers,
                    "content": { "application/json": content },
                }),
            ),
            (304, json!({ "description": "The client's copy is current", "headers": headers })),
        ],
        ..Operation::default()
    }
}

fn public_headers() -> Value {
    json!({
        "Cache-Control": { "required": true, "schema": { "type": "string" } },
        "ETag": etag(),
        "Access-Control-Allow-Origin": constant("*"),
    })
}

fn etag() -> Value {
    json!({ "required": true, "schema": { "type": "string" } })
}
