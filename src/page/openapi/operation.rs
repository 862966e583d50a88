//! One operation of the document, and what operations share.

use serde_json::{Map, Value, json};

use crate::config::Dialect;
use crate::dialect::route::Route;
use crate::dialect::vision::CLIENT_HEADERS;
use crate::oauth::client::AuthMethod;
use crate::snapshot::Snapshot;

/// An operation, without what follows from its route.
#[derive(Default)]
pub struct Operation {
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: String,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    /// The alternatives of `security`; empty if the request needs none.
    pub security: Vec<Value>,
    /// The answers that are no refusals: status and Response Object.
    pub successes: Vec<(u16, Value)>,
    /// The fields that the request must have.
    pub required: Vec<&'static str>,
    /// The fields whose length is limited.
    pub limited: Vec<&'static str>,
}

impl Operation {
    /// Returns the Operation Object.
    pub fn describe(self, id: &str, route: Route<'_>, refusals: Map<String, Value>) -> Value {
        let mut parameters = self.parameters;
        parameters.push(reference("parameters", "X-Request-Id"));
        let mut responses = Map::new();
        for (status, mut response) in self.successes {
            response["headers"]["X-Request-Id"] = reference("headers", "X-Request-Id");
            if route.dialect() == Dialect::Vision {
                echo_client_headers(&mut response["headers"]);
            }
            responses.insert(status.to_string(), response);
        }
        responses.extend(refusals);
        let mut described = json!({
            "operationId": id,
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
            "x-dialect": route.dialect(),
            "x-route": route.label(),
            "security": self.security,
            "parameters": parameters,
        });
        if let Some(body) = self.body {
            described["requestBody"] = body;
        }
        described["responses"] = Value::Object(responses);
        described
    }
}

/// Adds the header fields that an answer in the `vision` dialect echoes.
pub fn echo_client_headers(headers: &mut Value) {
    for (name, _) in CLIENT_HEADERS {
        headers[name] = reference("headers", name);
    }
}

/// Returns the parameters for the header fields that an answer in the `vision` dialect echoes.
pub fn client_headers() -> impl Iterator<Item = Value> {
    CLIENT_HEADERS.into_iter().map(|(name, max_length)| {
        json!({
            "name": name,
            "in": "header",
            "description": "Comes back unchanged in the answer.",
            "schema": { "type": "string", "maxLength": max_length },
        })
    })
}

/// Returns a Header Object for a field that always has this value.
pub fn constant(value: impl Into<Value>) -> Value {
    json!({ "required": true, "schema": { "type": "string", "const": value.into() } })
}

/// Returns the header fields of an answer with a token.
pub fn token_headers() -> Value {
    json!({
        "Cache-Control": constant("no-store"),
        "Pragma": constant("no-cache"),
        "X-Token-Reuse": {
            "description": "For a client whose tokens are reused: whether this one was issued before.",
            "schema": { "type": "string", "enum": ["fresh", "reused"] },
        },
        "Server-Timing": {
            "description": "For a client that is registered for it: how long each phase took.",
            "schema": { "type": "string" },
        },
    })
}

/// Returns the schema of a token.
pub fn access_token() -> Value {
    json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$",
        "description": "The access token, a JWT. Send it as Authorization: Bearer.",
    })
}

/// Returns the schema of a scope value (RFC 6749, section 3.3), as an answer has it.
pub fn granted_scope() -> Value {
    json!({
        "type": "string",
        "pattern": "^[!#-\\[\\]-~]+( [!#-\\[\\]-~]+)*$",
        "description": "The granted scopes, separated by spaces.",
    })
}

/// Returns the schema of a value in printable ASCII (RFC 6749, appendix A) of at most `max_length`
/// characters.
pub fn printable(max_length: usize, description: &str) -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "pattern": "^[ -~]+$",
        "description": description,
    })
}

/// Returns `{"$ref": …}` to a component.
pub fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// Returns the shared Header Objects.
pub fn headers() -> Value {
    let mut headers = json!({
        "X-Request-Id": {
            "description": "The id of the request, for questions to the operator. If the request \
                has a valid X-Request-Id, the answer repeats it; otherwise the server makes a new id.",
            "required": true,
            "schema": { "type": "string", "pattern": REQUEST_ID },
        },
        "Retry-After": {
            "description": "The seconds to wait before the next attempt.",
            "required": true,
            "schema": { "type": "integer", "minimum": 0 },
        },
        "DPoP-Nonce": {
            "description": "The nonce that the next DPoP proof must have (RFC 9449, section 8).",
            "schema": { "type": "string" },
        },
    });
    for (name, max_length) in CLIENT_HEADERS {
        headers[name] = json!({
            "description": "The value that the request had.",
            "schema": { "type": "string", "maxLength": max_length },
        });
    }
    headers
}

/// Returns the shared Parameter Objects.
pub fn parameters() -> Value {
    json!({
        "X-Request-Id": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "An id of your own for the request. One that does not fit the pattern is \
                replaced.",
            "schema": { "type": "string", "pattern": REQUEST_ID },
        },
    })
}

/// Returns the Security Scheme Objects. A secret or an assertion in the body has none: OpenAPI
/// cannot describe it, so it is described as a field of the body.
pub fn security_schemes(snapshot: &Snapshot) -> Value {
    let mut schemes = json!({
        BASIC: {
            "type": "http",
            "scheme": "basic",
            "description": "The client id and secret as user name and password, each form-encoded \
                (RFC 6749, section 2.3.1); pairs that are not form-encoded are accepted too.",
        },
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token that this server has issued.",
        },
    });
    if snapshot.has_certificates() {
        schemes[TLS] = json!({
            "type": "mutualTLS",
            "description": "tls_client_auth or self_signed_tls_client_auth (RFC 8705): a registered \
                TLS certificate, with client_id in the body.",
        });
    }
    schemes
}

/// Returns the `security` of the routes that take credentials as a form: a header, a certificate, or
/// neither, with the credentials in the body.
pub fn form_security(snapshot: &Snapshot) -> Vec<Value> {
    let mut alternatives = vec![json!({ BASIC: [] })];
    if snapshot.has_certificates() {
        alternatives.push(json!({ TLS: [] }));
    }
    alternatives.push(json!({}));
    alternatives
}

pub const BASIC: &str = AuthMethod::ClientSecretBasic.as_str();
pub const BEARER: &str = "access_token";
const TLS: &str = AuthMethod::TlsClientAuth.as_str();
const REQUEST_ID: &str = "^[A-Za-z0-9._-]{1,64}$";
