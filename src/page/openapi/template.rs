//! The part of the document that does not depend on the refusals, from `document.json` and
//! `operations.json`. In these files, `{name}` stands for a member of `shared.json`, or for a value that
//! this file adds.

use serde_json::{Map, Value, json};

use crate::config::Dialect;
use crate::dialect::firstvision::MAX_SCOPE_CHARS;
use crate::dialect::vision::{APP_CONTEXTS, CLIENT_HEADERS, TOKEN_FIELDS, VALIDATE_FIELDS};
use crate::endpoint::metadata::server_metadata;
use crate::oauth::client::AuthMethod;
use crate::page::openapi::refusals::{reference, written};
use crate::page::policy::POLICY;
use crate::page::reading::members;
use crate::snapshot::Snapshot;

/// The template with the values of one configuration.
pub struct Template {
    /// The document, without its paths and refusals.
    pub document: Value,
    /// The Operation Objects, without what follows from their routes.
    pub operations: Value,
}

impl Template {
    /// Fills the template for the settings of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Self {
        // The files are valid: the tests read the document.
        let [mut values, document, operations] =
            FILES.map(|file| serde_json::from_str(file).unwrap_or_default());
        add_values(&mut values, snapshot);
        let [mut document, mut operations] =
            [document, operations].map(|template| fill(&template, &values));
        let components = &mut document["components"];
        for (name, max_length) in CLIENT_HEADERS {
            components["headers"][name] = json!({
                "description": "The value that the request had.",
                "schema": { "type": "string", "maxLength": max_length },
            });
        }
        if !snapshot.has_certificates()
            && let Some(schemes) = components["securitySchemes"].as_object_mut()
        {
            schemes.remove(TLS);
        }
        if snapshot.config.live.dpop_nonce {
            for name in TOKEN_OPERATIONS {
                operations[name]["responses"]["200"]["headers"]["DPoP-Nonce"] =
                    reference("headers", "DPoP-Nonce");
            }
        }
        Self { document, operations }
    }
}

/// Adds what follows from the settings and from the limits of the dialects.
fn add_values(values: &mut Value, snapshot: &Snapshot) {
    let limits = &snapshot.config.live.limits;
    values["version"] = env!("CARGO_PKG_VERSION").into();
    values["server"] = snapshot.issuer.join("").into();
    values["body_bytes"] = limits.body_bytes.into();
    values["form_parts"] = limits.form_parts.into();
    values["max_scope_chars"] = MAX_SCOPE_CHARS.into();
    values["app_contexts"] = json!(APP_CONTEXTS);
    values["dialects"] = json!(Dialect::ALL);
    for (fields, of) in [(&TOKEN_FIELDS[..], "token"), (&VALIDATE_FIELDS, "validate")] {
        for (name, max_length) in fields {
            values[format!("{of}.{name}")] = (*max_length).into();
        }
    }
    values["client_headers"] = CLIENT_HEADERS
        .map(|(name, max_length)| {
            json!({
                "name": name,
                "in": "header",
                "description": "Comes back unchanged in the answer.",
                "schema": { "type": "string", "maxLength": max_length },
            })
        })
        .into();
    (values["or_certificate"], values["form_security"]) = if snapshot.has_certificates() {
        (", or a TLS certificate beside client_id".into(), json!([{ BASIC: [] }, { TLS: [] }, {}]))
    } else {
        ("".into(), json!([{ BASIC: [] }, {}]))
    };
    let metadata = serde_json::from_str(&server_metadata(snapshot).body).unwrap_or_default();
    values["metadata_members"] = members(&metadata).map(|(name, _)| name.as_str()).collect();
    values["metadata_properties"] = members(&metadata)
        .map(|(name, value)| {
            let schema = match value {
                Value::Array(_) => json!({ "type": "array", "items": { "type": "string" } }),
                Value::Bool(_) => json!({ "type": "boolean" }),
                _ => json!({ "type": "string" }),
            };
            (name.clone(), schema)
        })
        .collect::<Map<_, _>>()
        .into();
    values["metadata"] = metadata;
    for (name, value) in POLICY {
        values["page_headers"][written(name)] =
            json!({ "required": true, "schema": { "type": "string", "const": value } });
    }
}

/// Puts the values in place of their names. A list in place of an element of a list becomes several
/// elements. The lines of a description become one text.
fn fill(template: &Value, values: &Value) -> Value {
    match template {
        Value::String(text) => fill_text(text, values),
        Value::Array(elements) => {
            let filled = elements.iter().flat_map(|element| match fill(element, values) {
                Value::Array(several) if element.is_string() => several,
                one => vec![one],
            });
            filled.collect()
        }
        Value::Object(members) => {
            let filled = members.iter().map(|(name, member)| {
                let member = fill(member, values);
                let is_text = name == "description";
                (name.clone(), if is_text { text_of(&member).into() } else { member })
            });
            filled.collect()
        }
        other => other.clone(),
    }
}

fn fill_text(text: &str, values: &Value) -> Value {
    let name = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if let Some(value) = name.and_then(|name| values.get(name)) {
        return fill(value, values);
    }
    let mut pieces = text.split('{');
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let named = piece.split_once('}').and_then(|(name, rest)| Some((values.get(name)?, rest)));
        match named {
            Some((value, rest)) => filled += &(text_of(&fill(value, values)) + rest),
            None => filled += &format!("{{{piece}"),
        }
    }
    filled.into()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().map(text_of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

const FILES: [&str; 3] =
    [include_str!("shared.json"), include_str!("document.json"), include_str!("operations.json")];
/// The operations that issue tokens.
const TOKEN_OPERATIONS: [&str; 5] =
    ["token", "vision_token", "vision_v2_token", "firstvision_token", "firstvision_token_in_path"];
const BASIC: &str = AuthMethod::ClientSecretBasic.as_str();
const TLS: &str = AuthMethod::TlsClientAuth.as_str();
