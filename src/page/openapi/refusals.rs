//! The answers to refusals, as the program itself writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::config::Dialect;
use crate::dialect::public_error::PublicError;
use crate::dialect::route::Route;
use crate::dialect::{Answer, RequestHead, bearer, reason_phrase, vision};
use crate::oauth::client_certificate::ShownCertificate;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;
use crate::page::openapi::causes::causes_of;
use crate::page::policy::push_policy;
use crate::snapshot::Snapshot;

/// The refusals of all operations so far.
#[derive(Default)]
pub struct Refusals {
    /// The Example Objects that the responses refer to.
    pub examples: Map<String, Value>,
    /// The Response Objects that the operations refer to.
    pub responses: Map<String, Value>,
    /// For each dialect, the refusals with the advice for the caller.
    pub by_dialect: Map<String, Value>,
}

/// One refusal in one dialect.
struct Refusal {
    dialect: Dialect,
    error: PublicError,
    body: Value,
    headers: Vec<(&'static str, Value)>,
}

impl Refusals {
    /// Returns the Response Object for each status with which requests to `route` are refused.
    pub fn responses(
        &mut self,
        path: &str,
        route: Route<'_>,
        snapshot: &Snapshot,
    ) -> Map<String, Value> {
        let path = format!("{}{path}", snapshot.issuer.path());
        let mut by_status: BTreeMap<u16, Vec<Refusal>> = BTreeMap::new();
        for cause in causes_of(route) {
            if cause == Cause::Dpop(DpopError::Nonce) && !snapshot.config.live.dpop_nonce {
                continue;
            }
            for refusal in refusals(cause, route, &path, snapshot) {
                by_status.entry(refusal.error.status).or_default().push(refusal);
            }
        }
        let described = by_status.into_iter().map(|(status, refusals)| {
            (status.to_string(), self.describe(status, route, &refusals))
        });
        described.collect()
    }

    /// Adds the refusal of an unknown path, which belongs to no operation.
    pub fn add_unknown_path(&mut self, dialect: Dialect, snapshot: &Snapshot) {
        let refused = refusals(Cause::NotFound, Route::Unknown(dialect), "/", snapshot);
        refused.iter().for_each(|refusal| self.add_advice(refusal));
    }

    fn describe(&mut self, status: u16, route: Route<'_>, refusals: &[Refusal]) -> Value {
        let mut examples = Map::new();
        for refusal in refusals {
            self.add_advice(refusal);
            let name = self.add_example(refusal);
            examples.insert(name.clone(), reference("examples", &name));
        }
        let response = json!({
            "description": reason_phrase(status),
            "headers": headers_of(refusals, route),
            "content": {
                "application/json": { "schema": schema_of(refusals), "examples": examples },
            },
        });
        let base = format!("{}_{status}", name_of(route.dialect()));
        reference("responses", &intern(&mut self.responses, &base, response))
    }

    fn add_advice(&mut self, refusal: &Refusal) {
        let PublicError { status, code, text, advice } = &refusal.error;
        let entry = json!({ "status": status, "code": code, "text": text, "what_to_do": advice });
        let known = self.by_dialect.entry(name_of(refusal.dialect)).or_insert(json!([]));
        if let Some(known) = known.as_array_mut()
            && !known.contains(&entry)
        {
            known.push(entry);
        }
    }

    /// Adds an Example Object unless it is there already, and returns its name.
    fn add_example(&mut self, refusal: &Refusal) -> String {
        let PublicError { code, text, advice, .. } = &refusal.error;
        let example = json!({
            "summary": if text.is_empty() { code } else { &**text },
            "description": advice,
            "value": refusal.body,
        });
        let mut words: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        words.retain(|word| !word.is_empty());
        words.truncate(WORDS_IN_NAME);
        let base = [vec![name_of(refusal.dialect), code], words].concat().join("_");
        intern(&mut self.examples, &base, example)
    }
}

/// Adds a component unless it is there already, and returns its name: `base`, with a number if
/// another component has that name.
fn intern(components: &mut Map<String, Value>, base: &str, component: Value) -> String {
    let mut name = base.to_owned();
    let mut count = 1;
    while components.get(&name).is_some_and(|other| *other != component) {
        count += 1;
        name = format!("{base}_{count}");
    }
    components.insert(name.clone(), component);
    name
}

/// Returns the answers that a request to `route` gets if it is refused for `cause`. There are several
/// if they depend on the request.
fn refusals(cause: Cause, route: Route<'_>, path: &str, snapshot: &Snapshot) -> Vec<Refusal> {
    let max_parameters = snapshot.config.live.limits.form_parts;
    let mut refusals: Vec<Refusal> = Vec::new();
    let authorizations = [HeaderField::Absent, HeaderField::Present(b"")];
    let content_types = [None, Some(&b"application/octet-stream"[..])];
    let heads = authorizations.into_iter().flat_map(|it| content_types.map(|other| (it, other)));
    for (authorization, content_type) in heads {
        let head = RequestHead {
            authorization,
            certificate: &ShownCertificate::Absent,
            dpop: HeaderField::Absent,
            content_type,
            path,
            client_headers: [None; 4],
            query: None,
            max_parameters,
        };
        let is_in_any = route == Route::Validate
            && (cause.is_about_a_token() || cause == Cause::ValidationQuery);
        let dialects = if is_in_any { &Dialect::ALL[..] } else { &[route.dialect()] };
        for &dialect in dialects {
            let error = match route {
                Route::VisionValidate => vision::validation_error(cause),
                _ => dialect.public_error(cause, &head),
            };
            let answer = if is_in_any {
                bearer::refuse(dialect, cause, &head)
            } else {
                route.refuse(cause, &head)
            };
            let refusal = Refusal {
                dialect,
                error,
                body: serde_json::from_slice(&answer.body).unwrap_or_default(),
                headers: headers(cause, route, answer),
            };
            if !refusals
                .iter()
                .any(|other| other.error == refusal.error && other.dialect == dialect)
            {
                refusals.push(refusal);
            }
        }
    }
    refusals
}

/// Returns the header fields of an answer, each with its value; `null` if the value varies.
fn headers(cause: Cause, route: Route<'_>, mut answer: Answer) -> Vec<(&'static str, Value)> {
    if let Route::Page(_) = route {
        push_policy(&mut answer);
    }
    let own = answer.headers.into_iter().filter(|(name, _)| *name != "content-type");
    let mut headers: Vec<_> = own.map(|(name, value)| (name, value.as_ref().into())).collect();
    if cause.retry_after().is_some() {
        headers.push(("retry-after", Value::Null));
    }
    if cause == Cause::Dpop(DpopError::Nonce) {
        headers.push(("dpop-nonce", Value::Null));
    }
    headers
}

/// Returns the Header Objects of a response that is the answer to all `refusals`.
fn headers_of(refusals: &[Refusal], route: Route<'_>) -> Value {
    let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (name, value) in refusals.iter().flat_map(|refusal| &refusal.headers) {
        values.entry(name).or_default().push(value);
    }
    let mut headers = json!({ "X-Request-Id": reference("headers", "X-Request-Id") });
    for (name, values) in values {
        let name = written(name);
        let is_required = values.len() == refusals.len();
        let constants: BTreeSet<_> = values.iter().filter_map(|value| value.as_str()).collect();
        headers[&name] = if constants.is_empty() {
            reference("headers", &name)
        } else {
            json!({ "required": is_required, "schema": { "type": "string", "enum": constants } })
        };
    }
    if route.dialect() == Dialect::Vision {
        echo_client_headers(&mut headers);
    }
    headers
}

/// Adds the header fields that an answer in the `vision` dialect echoes.
pub fn echo_client_headers(headers: &mut Value) {
    for (name, _) in vision::CLIENT_HEADERS {
        headers[name] = reference("headers", name);
    }
}

/// Returns `{"$ref": …}` to a component.
pub fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// Returns the usual spelling of a header field's name.
pub fn written(name: &str) -> String {
    let words = name.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    match name {
        "www-authenticate" => "WWW-Authenticate".to_owned(),
        "dpop-nonce" => "DPoP-Nonce".to_owned(),
        _ => words.collect::<Vec<_>>().join("-"),
    }
}

/// Returns the schema of the body of all `refusals`: exactly their codes and texts.
fn schema_of(refusals: &[Refusal]) -> Value {
    let mut schemas = Vec::new();
    for dialect in Dialect::ALL {
        let errors: Vec<_> = refusals.iter().filter(|it| it.dialect == dialect).collect();
        if let Some(first) = errors.first() {
            schemas.push(match dialect {
                Dialect::Connect => connect_schema(&errors),
                Dialect::Vision => vision_schema(first.error.status, &errors),
                Dialect::Firstvision => closed(&json!({
                    "errorCode": one_of(errors.iter().map(|it| it.error.code)),
                    "errorMessage": one_of(errors.iter().map(|it| &*it.error.text)),
                })),
            });
        }
    }
    if schemas.len() == 1 { schemas.remove(0) } else { json!({ "anyOf": schemas }) }
}

fn connect_schema(errors: &[&Refusal]) -> Value {
    let texts = errors.iter().map(|it| &*it.error.text).filter(|text| !text.is_empty());
    let mut schema = closed(&json!({
        "error": one_of(errors.iter().map(|it| it.error.code)),
        "error_description": one_of(texts),
    }));
    if errors.iter().any(|it| it.error.text.is_empty()) {
        schema["required"] = json!(["error"]);
    }
    schema
}

fn vision_schema(status: u16, errors: &[&Refusal]) -> Value {
    let item = closed(&json!({
        "detail": { "type": "string" },
        "errorCode": one_of(errors.iter().map(|it| it.error.code)),
        "instance": { "type": "string", "description": "The path of the request." },
        "invalid-params": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": one_of(errors.iter().map(|it| &*it.error.text)),
        },
        "source": { "type": "string", "const": "AGT" },
        "status": { "type": "integer", "const": status },
        "title": { "type": "string", "const": reason_phrase(status) },
    }));
    json!({ "type": "array", "minItems": 1, "maxItems": 1, "items": item })
}

/// Returns the schema of an object that has exactly these properties.
fn closed(properties: &Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn one_of<'v>(values: impl Iterator<Item = &'v str>) -> Value {
    json!({ "type": "string", "enum": values.collect::<BTreeSet<_>>() })
}

fn name_of(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Connect => "connect",
        Dialect::Vision => "vision",
        Dialect::Firstvision => "firstvision",
    }
}

/// The number of words of a text in the name of its example.
const WORDS_IN_NAME: usize = 4;
