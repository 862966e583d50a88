//! Every secret that a request holds, wherever it stands: none of them may be in the log, not even
//! as a part of the path that was not found.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::dialect::RequestHead;
use crate::dialect::connect::Form;
use crate::form::parameters::Parameters;
use crate::form::{json, urlencoded};
use crate::oauth::client_authentication::Authorization;

/// In clear, to be wiped after use.
type Secret = Zeroizing<Vec<u8>>;

/// Those of the `Authorization` header, the query and `body`, in any encoding. What cannot be read
/// counts as a whole: then each part of the path that is in it is a secret.
pub fn of(head: &RequestHead<'_>, body: &Bytes) -> Vec<Secret> {
    let mut secrets = Vec::new();
    match head.authorization {
        Authorization::Absent => {}
        Authorization::Present(value) => push_credentials(value, &mut secrets),
        Authorization::Repeated => push(head.path.as_bytes(), &mut secrets),
    }
    let query = head.query.unwrap_or_default().as_bytes();
    match urlencoded::parse(query, head.max_parameters) {
        Ok(query) => push_parameters(&query, &mut secrets),
        Err(_) => push_parts_in(query, head.path, &mut secrets),
    }
    let form = Form::read(head, body.clone());
    let is_read = form.is_ok_and(|form| {
        let parameters = form.parameters(head.max_parameters);
        parameters.map(|parameters| push_parameters(&parameters, &mut secrets)).is_ok()
    });
    if is_read || body.is_empty() {
        return secrets;
    }
    match json::parse(body, &[], head.max_parameters) {
        Ok(parameters) => push_parameters(&parameters, &mut secrets),
        Err(_) => push_parts_in(body, head.path, &mut secrets),
    }
    secrets
}

/// What is behind the scheme, and both readings of a Basic pair's second half.
fn push_credentials(value: &[u8], secrets: &mut Vec<Secret>) {
    let behind = value.iter().position(|byte| *byte == b' ').map_or(value, |at| &value[at..]);
    let credentials = behind.trim_ascii();
    push(credentials, secrets);
    let Ok(pair) = STANDARD.decode(credentials).map(Zeroizing::new) else { return };
    let colon = pair.iter().position(|byte| *byte == b':');
    let secret = colon.map_or(&pair[..], |colon| &pair[colon + 1..]);
    push(secret, secrets);
    if let Some(decoded) = std::str::from_utf8(secret).ok().and_then(urlencoded::decode) {
        push(decoded.as_bytes(), secrets);
    }
}

fn push_parameters(parameters: &Parameters<'_>, secrets: &mut Vec<Secret>) {
    for name in ["client_secret", "client_assertion", "assertion", "password", "token"] {
        if let Some(value) = parameters.get(name) {
            push(value.as_bytes(), secrets);
        }
    }
}

fn push_parts_in(unread: &[u8], path: &str, secrets: &mut Vec<Secret>) {
    let parts = path.split('/').filter(|part| part.len() >= SHORTEST_PART);
    for part in parts.filter(|part| memchr::memmem::find(unread, part.as_bytes()).is_some()) {
        push(part.as_bytes(), secrets);
    }
}

fn push(secret: &[u8], secrets: &mut Vec<Secret>) {
    if !secret.is_empty() {
        secrets.push(Zeroizing::new(secret.to_vec()));
    }
}

/// Shorter ones are in any text.
const SHORTEST_PART: usize = 6;
