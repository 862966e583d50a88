//! Writes the header and the claims of an access token for a grant (RFC 9068, or the `vision`
//! profile). The module `signing` adds the signature.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::jose::jws::{PayloadWriter, SigningInput};
use crate::keys::signing_key::SigningKey;
use crate::oauth::grant::Grant;
use crate::time::UnixTime;

/// The `jti` of a token: 128 random bits (RFC 9068, section 2.2).
pub type TokenId = [u8; 16];

/// The names that a client's static claims must not use. The server sets some of these claims
/// itself. A static claim with one of the other names would change the meaning of the token (RFC
/// 7519, section 4.1; RFC 9068, section 2.2; RFC 7800; RFC 8693).
pub const RESERVED_CLAIMS: [&str; 16] = [
    "iss",
    "exp",
    "aud",
    "sub",
    "client_id",
    "iat",
    "jti",
    "scope",
    "nbf",
    "cnf",
    "act",
    "may_act",
    "acr",
    "amr",
    "auth_time",
    "typ",
];

/// Appends the header and the claims of an `at+jwt` for `grant` to `buffer`.
///
/// `now` is the time of issue. The claims are in the order of RFC 9068, section 2.2; the client's
/// static claims come last.
///
/// # Errors
///
/// No error occurs in practice, because writing to memory does not fail.
pub fn mint_at_jwt(
    grant: &Grant<'_>,
    issuer: &str,
    key: &SigningKey,
    now: UnixTime,
    token_id: &TokenId,
    buffer: Vec<u8>,
) -> io::Result<SigningInput> {
    let client = grant.client;
    let mut payload = PayloadWriter::begin(buffer, &key.at_jwt_header);
    payload.write_all(b"{\"iss\":")?;
    write_string(&mut payload, issuer)?;
    write!(payload, ",\"exp\":{},\"aud\":", now + u64::from(client.token_lifetime))?;
    write_audience(&mut payload, grant, issuer)?;
    payload.write_all(b",\"sub\":")?;
    write_string(&mut payload, &client.id)?;
    payload.write_all(b",\"client_id\":")?;
    write_string(&mut payload, &client.id)?;
    write!(payload, ",\"iat\":{now},\"jti\":\"")?;
    let mut encoded = [0; 22];
    let length = URL_SAFE_NO_PAD.encode_slice(token_id, &mut encoded).map_err(io::Error::other)?;
    payload.write_all(&encoded[..length])?;
    payload.write_all(b"\",\"scope\":")?;
    write_string(&mut payload, &grant.scope)?;
    if !grant.confirmation.is_empty() {
        write!(payload, ",\"cnf\":{}", grant.confirmation.to_json())?;
    }
    payload.write_all(client.extra_claims.as_bytes())?;
    payload.write_all(b"}")?;
    Ok(payload.finish())
}

/// Appends the header and the claims of a `vision` token for `grant` to `buffer`, in the format of
/// the documents of the `vision` and `firstvision` dialects.
///
/// # Errors
///
/// No error occurs in practice, because writing to memory does not fail.
pub fn mint_vision(
    grant: &Grant<'_>,
    expires_at: UnixTime,
    buffer: Vec<u8>,
) -> io::Result<SigningInput> {
    let client = grant.client;
    let mut payload = PayloadWriter::begin(buffer, VISION_HEADER);
    payload.write_all(b"{\"scope\":")?;
    write_string(&mut payload, &grant.scope)?;
    payload.write_all(b",\"client_id\":")?;
    write_string(&mut payload, &client.id)?;
    payload.write_all(client.extra_claims.as_bytes())?;
    write!(payload, ",\"exp\":{expires_at}}}")?;
    Ok(payload.finish())
}

/// `{"alg":"RS256"}` in base64url. The documents of the `vision` and `firstvision` dialects give a
/// token exactly this header.
const VISION_HEADER: &str = "eyJhbGciOiJSUzI1NiJ9";

/// Writes the value of `aud`: the requested resources. If the request names no resources, the value
/// is the client's audience. If the client has no audience, the value is the issuer. A single
/// audience is written as a string; several audiences are written as an array (RFC 7519, section
/// 4.1.3).
fn write_audience(payload: &mut PayloadWriter, grant: &Grant<'_>, issuer: &str) -> io::Result<()> {
    match grant.resources.as_slice() {
        [] => write_one_or_several(payload, grant.client.audiences(issuer)),
        resources => write_one_or_several(payload, resources.iter().copied()),
    }
}

fn write_one_or_several<'a>(
    out: &mut impl Write,
    mut items: impl Iterator<Item = &'a str> + Clone,
) -> io::Result<()> {
    if items.clone().nth(1).is_none() {
        return items.try_for_each(|only| write_string(out, only));
    }
    for (index, item) in items.enumerate() {
        out.write_all(if index == 0 { b"[" } else { b"," })?;
        write_string(out, item)?;
    }
    out.write_all(b"]")
}

fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(out, text)?)
}
