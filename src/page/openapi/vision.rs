//! The operations of the `vision` dialect.

use serde_json::{Map, Value, json};

use crate::dialect::vision::{APP_CONTEXTS, TOKEN_FIELDS, VALIDATE_FIELDS, Version};
use crate::oauth::grant::CLIENT_CREDENTIALS;
use crate::page::openapi::operation::{
    Operation, access_token, client_headers, constant, granted_scope, printable, token_headers,
};
use crate::snapshot::Snapshot;

pub fn token(version: Version, snapshot: &Snapshot) -> Operation {
    let mut properties = json!({
        "access_token": access_token(),
        "token_type": { "type": "string", "const": "Bearer" },
        "expires_in": {
            "type": "integer",
            "minimum": 0,
            "description": "The seconds until the token expires, less one.",
        },
    });
    let mut example =
        json!({ "access_token": EXAMPLE_TOKEN, "token_type": "Bearer", "expires_in": 7199 });
    let mut required = fields(&TOKEN_FIELDS);
    let mut parameters: Vec<_> = client_headers().collect();
    if version == Version::V2 {
        properties["scope"] = granted_scope();
        example["scope"] = "firstvision.accountmanagement.read".into();
        required.push("appContext");
        parameters.push(json!({
            "name": "appContext",
            "in": "query",
            "required": true,
            "description": "The server puts this prefix before each scope that does not begin with it.",
            "schema": { "type": "string", "enum": APP_CONTEXTS },
        }));
    }
    let names: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let schema = json!({
        "type": "object",
        "required": names,
        "properties": properties,
        "additionalProperties": false,
    });
    let scope = if version == Version::V2 { "accountmanagement.read" } else { "all" };
    let request = json!({
        "grant_type": CLIENT_CREDENTIALS,
        "scope": scope,
        "client_id": "your-client-id",
        "client_secret": "your-client-secret",
    });
    Operation {
        tag: "Tokens",
        summary: match version {
            Version::V1 => "Get an access token, with JSON",
            Version::V2 => "Get an access token for one application, with JSON",
        },
        description: about_json(
            "All four fields are required. The Content-Type must be the one that is registered for \
             the client: application/json, unless the operator has said otherwise.",
            snapshot,
        ),
        parameters,
        body: Some(body(&TOKEN_FIELDS, &request)),
        successes: vec![(
            200,
            json!({
                "description": "The token",
                "headers": token_headers(),
                "content": { "application/json": { "schema": schema, "example": example } },
            }),
        )],
        required,
        limited: fields(&TOKEN_FIELDS),
        ..Operation::default()
    }
}

pub fn validate_token(snapshot: &Snapshot) -> Operation {
    let request = json!({
        "token": EXAMPLE_TOKEN,
        "client_id": "your-client-id",
        "client_secret": "your-client-secret",
    });
    Operation {
        tag: "Use of tokens",
        summary: "Ask whether one of the client's own tokens is valid",
        description: about_json(
            "The token is valid if it was issued to this client, has not expired, and is not bound to a \
             key or a certificate.",
            snapshot,
        ),
        parameters: client_headers().collect(),
        body: Some(body(&VALIDATE_FIELDS, &request)),
        successes: vec![(
            200,
            json!({
                "description": "Whether the token is valid",
                "headers": {
                    "Cache-Control": constant("no-store"),
                    "Pragma": constant("no-cache"),
                },
                "content": { "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["valid"],
                        "properties": { "valid": { "type": "boolean" } },
                        "additionalProperties": false,
                    },
                    "example": { "valid": true },
                } },
            }),
        )],
        required: fields(&VALIDATE_FIELDS),
        limited: fields(&VALIDATE_FIELDS).into_iter().filter(|name| *name != "token").collect(),
        ..Operation::default()
    }
}

fn fields(table: &[(&'static str, usize)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

/// Returns the Request Body Object with the fields of `table`, in both media types.
fn body(table: &[(&'static str, usize)], example: &Value) -> Value {
    let properties = table.iter().map(|(name, max_length)| {
        let schema = match *name {
            "grant_type" => json!({ "type": "string", "enum": [CLIENT_CREDENTIALS] }),
            "client_id" => printable(*max_length, "The id of the client."),
            "client_secret" => printable(*max_length, "The secret of the client."),
            "scope" => json!({
                "type": "string",
                "minLength": 1,
                "maxLength": max_length,
                "description": "The scopes of the token, separated by spaces.",
            }),
            _ => json!({ "type": "string", "minLength": 1, "description": "The access token." }),
        };
        ((*name).to_owned(), schema)
    });
    let schema = json!({
        "type": "object",
        "required": fields(table),
        "properties": properties.collect::<Map<_, _>>(),
    });
    let content = json!({ "schema": schema, "example": example });
    json!({
        "required": true,
        "content": { "application/json": content, "application/octet-stream": content },
    })
}

fn about_json(description: &str, snapshot: &Snapshot) -> String {
    let limits = &snapshot.config.live.limits;
    format!(
        "{description}\n\nThe body is one JSON object in UTF-8, with at most {} bytes and {} members, \
         each once. Unknown members are ignored. Credentials in the URL or in the header \
         Authorization are refused.",
        limits.body_bytes, limits.form_parts
    )
}

/// The token in the example of the documents.
pub const EXAMPLE_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.\
    eyJzY29wZSI6ImVkaXQiLCJjbGllbnRfaWQiOiJQT0NfTkFCX0RldiIsImZpcnN0VmlzaW9uSWQiOiIwMDAwMEFVTkFCIiwi\
    ZXhwIjoxNzUwMzkyMDAwfQ.\
    uWiSQfLLzfDYuSmPwmLa1fVx6Vyw8Rtphv49uo_2EbfoJYzppHNscar8NWNEp4sXHdxbrEmftu_JJ3oTLD8AtbNgQh9ej8lUE\
    vfA8vbYM3ucXuOC1NWxZPD7tDiwQ6kLypsYgbOhBMQ_U7Icobbh2I9o1Zit8F9xT7J70e3ZLJqtqTWC1WDd0WmOG672KpU_tc2\
    eMtUvLYqrMKjRr2KuD-e73fc27zdYpeL9GElVlo1WKbrHOvsdolr92mvhHBf_etnQ5Pb_X_x533-DiT1piCkjBTqZqgd6cdV2I\
    tdPVAz8CfwmjS6TJR95B3Ys9Xp3tdI5UwP3NmkaYRqP5_R02Q";
