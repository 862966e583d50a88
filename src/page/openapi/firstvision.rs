//! The operations of the `firstvision` dialect.

use serde_json::json;

use crate::dialect::firstvision::MAX_SCOPE_CHARS;
use crate::page::openapi::operation::{BASIC, Operation, access_token, token_headers};
use crate::page::openapi::vision::EXAMPLE_TOKEN;

/// Describes the service at its path, or below it, with the scope as the last segment.
pub fn token(is_scope_in_path: bool) -> Operation {
    let scope = json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SCOPE_CHARS,
        "description": "The scope of the token.",
    });
    let scopes = json!({
        "description": "The scopes of the token.",
        "anyOf": [{ "type": "array", "items": scope }, scope],
    });
    let in_body = json!({ "type": "object", "properties": { "scope": scopes } });
    let (place, in_body, example) = if is_scope_in_path {
        ("path", json!({ "type": "object", "properties": { "scope": false } }), json!({}))
    } else {
        ("query", in_body, json!({ "scope": ["firstvision.accountmanagement.read"] }))
    };
    let mut parameter = json!({ "name": "scope", "in": place, "schema": scope });
    if is_scope_in_path {
        parameter["required"] = true.into();
    }
    let content = json!({ "schema": in_body, "example": example });
    Operation {
        tag: "Tokens",
        summary: if is_scope_in_path {
            "Get an access token for the scope in the path"
        } else {
            "Get an access token by GET"
        },
        description: format!(
            "The scope is in one place: the query, the path or the body; without it, the client gets \
             its default scopes, if it has any. In the query or as a string, it may be several scopes, separated by spaces, \
             each of at most {MAX_SCOPE_CHARS} characters. A Content-Type is required even without a \
             body, and must be the one that is registered for the client: application/json, unless \
             the operator has said otherwise. The key in the body may lack its quotes, as in \
             {{scope: [\"firstvision.accountmanagement.read\"]}}."
        ),
        parameters: vec![parameter],
        body: Some(json!({
            "content": { "application/json": content, "application/octet-stream": content },
        })),
        security: vec![json!({ BASIC: [] })],
        successes: vec![(
            200,
            json!({
                "description": "The token",
                "headers": token_headers(),
                "content": { "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["access_token", "expires_in", "token_type"],
                        "properties": {
                            "access_token": access_token(),
                            "expires_in": {
                                "type": "integer",
                                "description": "When the token expires, in Unix seconds: the time, \
                                    not a number of seconds to wait.",
                            },
                            "token_type": { "type": "string", "const": "Bearer" },
                        },
                        "additionalProperties": false,
                    },
                    "example": {
                        "access_token": EXAMPLE_TOKEN,
                        "expires_in": 1_750_392_000,
                        "token_type": "Bearer",
                    },
                } },
            }),
        )],
        limited: vec!["scope"],
        ..Operation::default()
    }
}
