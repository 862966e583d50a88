//! Collects the secrets in a request to an unknown path. The path is logged only if it contains
//! none of them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::dialect::RequestHead;
use crate::dialect::connect::Form;
use crate::form::parameters::Parameters;
use crate::form::repeated_name::RepeatedName;
use crate::form::urlencoded;
use crate::oauth::header_field::HeaderField;

/// A secret in clear text, wiped when it is dropped.
type Secret = Zeroizing<Vec<u8>>;

/// Collects the secrets in the `Authorization` header, the query and `body`, in every encoding that
/// the dialects accept. Returns `None` if the header, the query or the body cannot be parsed,
/// or if an object in the body repeats a name, because secrets in it would not be found.
pub fn collect(head: &RequestHead<'_>, body: &Bytes) -> Option<Vec<Secret>> {
    let mut secrets = Vec::new();
    match head.authorization {
        HeaderField::Absent => {}
        HeaderField::Present(value) => push_credentials(value, &mut secrets),
        HeaderField::Repeated => return None,
    }
    let query = head.query.unwrap_or_default().as_bytes();
    push_parameters(&urlencoded::parse(query, head.max_parameters).ok()?, &mut secrets);
    if body.is_empty() {
        return Some(secrets);
    }
    if let Ok(document) = serde_json::from_slice(body) {
        // The document holds only one of the values of a repeated name.
        if serde_json::from_slice(body).is_ok_and(|RepeatedName(name)| name.is_some()) {
            return None;
        }
        push_texts("", &document, &mut secrets);
    } else {
        let form = Form::read(head, body.clone()).ok()?;
        push_parameters(&form.parameters(head.max_parameters).ok()?, &mut secrets);
    }
    Some(secrets)
}

/// Adds the text after the scheme of an `Authorization` header. If that text is base64 in any
/// alphabet, also adds the password: the decoded text after the colon, both as sent and
/// form-decoded.
fn push_credentials(value: &[u8], secrets: &mut Vec<Secret>) {
    let after_scheme =
        value.iter().position(u8::is_ascii_whitespace).map_or(value, |at| &value[at..]);
    let credentials = after_scheme.trim_ascii();
    push(credentials, secrets);
    for base64 in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        let Ok(pair) = base64.decode(credentials).map(Zeroizing::new) else { continue };
        let colon = pair.iter().position(|byte| *byte == b':');
        let secret = colon.map_or(&pair[..], |colon| &pair[colon + 1..]);
        push(secret, secrets);
        if let Some(decoded) = std::str::from_utf8(secret).ok().and_then(urlencoded::decode) {
            push(decoded.as_bytes(), secrets);
        }
    }
}

fn push_parameters(parameters: &Parameters<'_>, secrets: &mut Vec<Secret>) {
    for name in parameters.names() {
        parameters.all(name).for_each(|value| push_if_secret(name, value, secrets));
    }
}

/// Adds the secrets among all strings in a JSON document. `name` is the name of the member whose
/// value is `document`.
fn push_texts(name: &str, document: &Value, secrets: &mut Vec<Secret>) {
    match document {
        Value::String(text) => push_if_secret(name, text, secrets),
        Value::Array(values) => values.iter().for_each(|value| push_texts(name, value, secrets)),
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| push_texts(name, value, secrets));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Adds `value` if `name` is the name of a secret. With any other name, `value` may be a secret
/// that was sent under a wrong name. So `value` is also added if it has at least
/// [`SHORTEST_SECRET`] bytes and `name` is not one of the names of public values.
fn push_if_secret(name: &str, value: &str, secrets: &mut Vec<Secret>) {
    let is_public = ["client_id", "grant_type", "scope"].contains(&name);
    let is_secret =
        ["client_secret", "client_assertion", "assertion", "password", "token"].contains(&name);
    if is_secret || !is_public && value.len() >= SHORTEST_SECRET {
        push(value.as_bytes(), secrets);
    }
}

/// The minimum length, in bytes, of a value that is treated as a secret although its name is not
/// the name of a secret. Shorter values occur in many paths by chance.
const SHORTEST_SECRET: usize = 6;

fn push(secret: &[u8], secrets: &mut Vec<Secret>) {
    if !secret.is_empty() {
        secrets.push(Zeroizing::new(secret.to_vec()));
    }
}
