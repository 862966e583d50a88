//! The operations below `/connect`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::config::Dialect;
use crate::oauth::client_assertion::JWT_BEARER;
use crate::oauth::grant::CLIENT_CREDENTIALS;
use crate::page::openapi::operation::{
    BEARER, Operation, access_token, constant, form_security, granted_scope, printable, reference,
    token_headers,
};
use crate::snapshot::Snapshot;

pub fn token(snapshot: &Snapshot) -> Operation {
    let mut headers = token_headers();
    if snapshot.config.live.dpop_nonce {
        headers["DPoP-Nonce"] = reference("headers", "DPoP-Nonce");
    }
    let mut properties = json!({
        "grant_type": { "type": "string", "enum": [CLIENT_CREDENTIALS] },
        "scope": {
            "type": "string",
            "maxLength": snapshot.config.live.limits.body_bytes,
            "description": "Scopes, separated by spaces. Without it, the client gets its default scopes, if it has any.",
        },
        "resource": {
            "type": "array",
            "items": { "type": "string", "format": "uri" },
            "description": "The audiences of the token (RFC 8707); may be repeated. Without it, the \
                token has the audience of the client.",
        },
    });
    add_credentials(&mut properties, snapshot);
    let schema = json!({ "type": "object", "required": ["grant_type"], "properties": properties });
    let example = json!({
        "client_id": "your-client-id",
        "client_secret": "your-client-secret",
        "grant_type": CLIENT_CREDENTIALS,
    });
    Operation {
        tag: "Tokens",
        summary: "Get an access token",
        description: about_forms(
            "The client credentials grant (RFC 6749, section 4.4). Unknown parameters are ignored; \
             one without a value counts as missing.",
            snapshot,
        ),
        parameters: vec![dpop()],
        body: Some(form(&schema, &example)),
        security: form_security(snapshot),
        successes: vec![(
            200,
            json!({
                "description": "The token",
                "headers": headers,
                "content": { "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["access_token", "expires_in", "token_type", "scope"],
                        "properties": {
                            "access_token": access_token(),
                            "expires_in": {
                                "type": "integer",
                                "minimum": 0,
                                "description": "The seconds until the token expires.",
                            },
                            "token_type": {
                                "type": "string",
                                "enum": ["Bearer", "DPoP"],
                                "description": "DPoP for a token that is bound to the key of a proof.",
                            },
                            "scope": granted_scope(),
                        },
                        "additionalProperties": false,
                    },
                    "example": {
                        "access_token": example_token(),
                        "expires_in": 3600,
                        "token_type": "Bearer",
                        "scope": "external-api",
                    },
                } },
            }),
        )],
        ..Operation::default()
    }
}

/// Returns the schema of a SHA-256 thumbprint in base64url.
fn thumbprint() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" })
}

pub fn introspection(snapshot: &Snapshot) -> Operation {
    let inactive = json!({
        "type": "object",
        "required": ["active"],
        "properties": { "active": { "const": false } },
        "additionalProperties": false,
    });
    let active = json!({
        "type": "object",
        "required": [
            "active", "scope", "client_id", "token_type", "exp", "iat", "sub", "aud", "iss",
        ],
        "properties": {
            "active": { "const": true },
            "scope": granted_scope(),
            "client_id": { "type": "string" },
            "token_type": { "type": "string", "enum": ["Bearer", "DPoP"] },
            "exp": { "type": "integer", "description": "When the token expires, in Unix seconds." },
            "iat": { "type": "integer", "description": "When it was issued, in Unix seconds." },
            "sub": { "type": "string" },
            "aud": {
                "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "type": "string" } },
                ],
            },
            "iss": { "type": "string" },
            "jti": { "type": "string" },
            "cnf": {
                "type": "object",
                "description": "The key or certificate that the token is bound to (RFC 7800).",
                "minProperties": 1,
                "properties": { "jkt": thumbprint(), "x5t#S256": thumbprint() },
                "additionalProperties": false,
            },
        },
        "additionalProperties": false,
    });
    Operation {
        summary: "Ask whether a token is active",
        description: about_forms(
            "Token introspection (RFC 7662). A client may ask about its own tokens, and about those \
             for the audiences that it is registered to introspect. A token that is unknown, has \
             ended, or is not for the caller is answered with exactly {\"active\":false}.",
            snapshot,
        ),
        successes: vec![(
            200,
            json!({
                "description": "What the caller may know about the token",
                "headers": {
                    "Cache-Control": constant("no-store"),
                    "Pragma": constant("no-cache"),
                },
                "content": { "application/json": {
                    "schema": { "anyOf": [active, inactive] },
                    "example": { "active": false },
                } },
            }),
        )],
        ..about_a_token(snapshot)
    }
}

pub fn revocation(snapshot: &Snapshot) -> Operation {
    Operation {
        summary: "Revoke a token",
        description: about_forms(
            "Token revocation (RFC 7009). A client may revoke its own tokens; one that is unknown or \
             has expired is answered with 200 too. The answer comes once the revocation is on disk.",
            snapshot,
        ),
        successes: vec![(
            200,
            json!({
                "description": "The token is not valid any more",
                "headers": { "Cache-Control": constant("no-store") },
            }),
        )],
        ..about_a_token(snapshot)
    }
}

pub fn validate() -> Operation {
    let query = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let word = || json!({ "type": "string", "minLength": 1 });
    Operation {
        tag: "Use of tokens",
        summary: "Check a bearer token for a proxy",
        description: "For nginx's auth_request and the like. An unknown or empty query parameter is \
            refused, so that a mistyped requirement never accepts a token. Without a query, every \
            valid token of this server is accepted. A token that is bound to a key or a certificate \
            is refused. A body is ignored. The header fields X-Original-Method and X-Original-URI \
            name the request of the client in the log."
            .to_owned(),
        parameters: vec![
            query("scope", word(), "Scopes that the token must have, separated by spaces."),
            query("audience", word(), "The audience that the token must have."),
            query(
                "dialect",
                json!({ "type": "string", "enum": Dialect::ALL }),
                "Whose errors the answer has; connect by default.",
            ),
        ],
        security: vec![json!({ BEARER: [] })],
        successes: vec![(
            204,
            json!({
                "description": "The token is valid",
                "headers": {
                    "Cache-Control": constant("no-store"),
                    "X-Client-Id": {
                        "description": "The client that the token was issued to.",
                        "required": true,
                        "schema": { "type": "string" },
                    },
                    "X-Scope": {
                        "description": "The scopes of the token, separated by spaces.",
                        "required": true,
                        "schema": { "type": "string" },
                    },
                    "X-Token-Expires": {
                        "description": "When the token expires, in Unix seconds.",
                        "required": true,
                        "schema": { "type": "integer" },
                    },
                },
            }),
        )],
        ..Operation::default()
    }
}

/// The parts that introspection and revocation share.
fn about_a_token(snapshot: &Snapshot) -> Operation {
    let mut properties = json!({
        "token": { "type": "string", "minLength": 1, "description": "The access token." },
        "token_type_hint": { "type": "string", "description": "Is ignored." },
    });
    add_credentials(&mut properties, snapshot);
    let schema = json!({ "type": "object", "required": ["token"], "properties": properties });
    let example = json!({
        "client_id": "your-client-id",
        "client_secret": "your-client-secret",
        "token": example_token(),
    });
    Operation {
        tag: "Use of tokens",
        body: Some(form(&schema, &example)),
        security: form_security(snapshot),
        required: vec!["token"],
        ..Operation::default()
    }
}

/// Adds the fields by which a client authenticates in the body.
fn add_credentials(properties: &mut Value, snapshot: &Snapshot) {
    let longest = snapshot.config.live.limits.body_bytes;
    properties["client_id"] = printable(longest, "The id of the client.");
    properties["client_secret"] = printable(
        longest,
        "client_secret_post: the secret of the client, unless it is sent by Basic.",
    );
    properties["client_assertion_type"] = json!({ "type": "string", "enum": [JWT_BEARER] });
    properties["client_assertion"] = json!({
        "type": "string",
        "maxLength": longest,
        "description": "private_key_jwt: in place of a secret, a JWT that the client has signed for \
            this request (RFC 7523).",
    });
}

/// Returns the Request Body Object of a form in its two encodings.
fn form(schema: &Value, example: &Value) -> Value {
    let content = json!({ "schema": schema, "example": example });
    json!({
        "required": true,
        "content": {
            "multipart/form-data": content,
            "application/x-www-form-urlencoded": content,
        },
    })
}

fn dpop() -> Value {
    json!({
        "name": "DPoP",
        "in": "header",
        "description": "A proof of possession of a key (RFC 9449). The token is then bound to it.",
        "schema": { "type": "string" },
    })
}

fn about_forms(description: &str, snapshot: &Snapshot) -> String {
    let limits = &snapshot.config.live.limits;
    let certificate =
        if snapshot.has_certificates() { ", or a TLS certificate beside client_id" } else { "" };
    format!(
        "{description}\n\nA client authenticates by exactly one method: HTTP Basic, or client_id and \
         client_secret in the body, or a client_assertion{certificate}. The body is UTF-8, has at most \
         {} bytes and {} parameters, and repeats none of them but resource. Credentials and parameters \
         in the URL are refused.",
        limits.body_bytes, limits.form_parts
    )
}

/// Returns a token of the form of RFC 9068. Its signature is not one.
fn example_token() -> String {
    let parts = [
        json!({
            "alg": "RS256",
            "kid": "RvyDOdAeTf0XkKoVbmtxjnzhAi0lFzyyWqmhzKFlJ8Y",
            "typ": "at+jwt",
        })
        .to_string(),
        json!({ "client_id": "your-client-id", "scope": "external-api" }).to_string(),
        "example-signature".to_owned(),
    ];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}
