//! Proof of possession of a key (DPoP, RFC 9449): a token is bound to the key that signs a proof
//! with every request.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;

use crate::jose::foreign::{ForeignJwt, NumericDate};
use crate::jose::public_key::{PublicKey, Thumbprint};

/// The `DPoP` header of a request.
#[derive(Clone, Copy, Debug, Default)]
pub enum DpopHeader<'a> {
    /// There is none.
    #[default]
    Absent,
    /// Its value.
    Present(&'a [u8]),
    /// There are two or more.
    Repeated,
}

/// What a proof must be for, and when.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedProof<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's URL, without query and fragment.
    pub url: &'a str,
    /// The time, in Unix seconds.
    pub now: u64,
    /// When this process began to remember what was used, in Unix seconds.
    pub started_at: u64,
    /// What makes nonces, where they are asked for.
    pub nonces: Option<&'a Nonces>,
}

/// A proof that is right, but for whether it was used before.
#[derive(Debug)]
pub struct Proof {
    /// Of the key that has signed it.
    pub thumbprint: Thumbprint,
    /// Its `jti`: good for one use.
    pub token_id: String,
    /// When it was made, as it says, in Unix seconds.
    pub issued_at: u64,
    /// From when on nobody accepts it anyway, in Unix seconds.
    pub until: u64,
}

impl Proof {
    /// Verifies a proof (RFC 9449, section 4.3).
    ///
    /// # Errors
    ///
    /// The [`DpopError`]. Only a proof that is right in every other way is asked for a nonce.
    pub fn verify(text: &[u8], expected: &ExpectedProof<'_>) -> Result<Self, DpopError> {
        let text = std::str::from_utf8(text).map_err(|_| DpopError::Malformed)?;
        let jwt = ForeignJwt::read(text).ok_or(DpopError::Malformed)?;
        if jwt.token_type() != Some("dpop+jwt") {
            return Err(DpopError::Malformed);
        }
        let algorithm = jwt.algorithm().ok_or(DpopError::Algorithm)?;
        let jwk = jwt.embedded_key().ok_or(DpopError::Malformed)?.to_string();
        let key = PublicKey::parse(&jwk).map_err(|_| DpopError::Key)?;
        let claims: Claims = jwt.claims().ok_or(DpopError::Malformed)?;
        if claims.jti.is_empty() {
            return Err(DpopError::Malformed);
        }
        let urls = [&*claims.htu, expected.url].map(normalized);
        if claims.htm != expected.method || urls[0].is_none() || urls[0] != urls[1] {
            return Err(DpopError::Target);
        }
        let (now, issued_at) = (expected.now, claims.iat.0);
        if now.abs_diff(issued_at) > SKEW || issued_at <= expected.started_at {
            return Err(DpopError::Time);
        }
        if !jwt.is_signed_by_embedded(&key, algorithm) {
            return Err(DpopError::Signature);
        }
        if let Some(nonces) = expected.nonces
            && !claims.nonce.is_some_and(|nonce| nonces.accept(&nonce, now))
        {
            return Err(DpopError::Nonce);
        }
        let until = issued_at + SKEW + 1;
        Ok(Self { thumbprint: key.thumbprint(), token_id: claims.jti, issued_at, until })
    }
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpopError {
    /// Its algorithm is none that is accepted.
    Algorithm,
    /// Its key is no public key that is accepted.
    Key,
    /// It cannot be read, lacks something, or there are two.
    Malformed,
    /// There is none, and the client's tokens must be bound.
    Missing,
    /// It has no nonce, or one that is too old.
    Nonce,
    /// It was used before.
    Replayed,
    /// Its key has not signed it.
    Signature,
    /// It is for another request.
    Target,
    /// It is too old, from the future, or from before this process.
    Time,
}

/// Nonces that need no memory (RFC 9449, section 8): a keyed hash of the present window of time.
pub struct Nonces(hmac::Key);

impl Nonces {
    /// Nonces under `key`, which nobody else knows.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The nonce to use at `now` (Unix seconds), good for 60 seconds at least and 120 at most.
    pub fn current(&self, now: u64) -> String {
        self.of(now / WINDOW)
    }

    /// Whether `nonce` is of this window of time or the last.
    fn accept(&self, nonce: &str, now: u64) -> bool {
        let window = now / WINDOW;
        // No secret is compared: whoever can ask gets the present one.
        [window, window.wrapping_sub(1)].into_iter().any(|window| self.of(window) == nonce)
    }

    fn of(&self, window: u64) -> String {
        let tag = hmac::sign(&self.0, &window.to_be_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(…)")
    }
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: NumericDate,
    nonce: Option<String>,
}

/// A URL in one spelling (RFC 3986, section 6.2.2 and 6.2.3), without query and fragment. `None` if
/// it is no http URL.
fn normalized(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    let authority = authority.strip_suffix(':').unwrap_or(authority);
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let path = normalized_path(path)?;
    Some(format!("{scheme}://{authority}{path}"))
}

fn normalized_path(path: &str) -> Option<String> {
    let mut segments: Vec<Cow<'_, str>> = Vec::new();
    let mut ends_in_slash = true;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        let segment = normalized_segment(segment)?;
        ends_in_slash = matches!(&*segment, "" | "." | "..");
        match &*segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    // A last dot stands for the directory itself; a last empty segment is there already.
    if ends_in_slash && segments.last().is_none_or(|last| !last.is_empty()) {
        segments.push(Cow::Borrowed(""));
    }
    Some(format!("/{}", segments.join("/")))
}

/// Triplets of unreserved characters are decoded, others written in upper case.
fn normalized_segment(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut text = String::with_capacity(segment.len());
    let mut pieces = segment.split('%');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = u8::from_str_radix(digits?, 16).ok()?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to memory cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text.push_str(&piece[2..]);
    }
    Some(Cow::Owned(text))
}

/// How far a client's clock may be off, and how old a proof may be, in seconds.
const SKEW: u64 = 10;
/// Seconds for which a nonce is handed out.
const WINDOW: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_spelling() {
        let same = "https://auth.example/connect/token";
        for url in [
            same,
            "HTTPS://Auth.Example/connect/token",
            "https://auth.example:443/connect/token",
            "https://auth.example:/connect/token",
            "https://auth.example/connect/token?a=b",
            "https://auth.example/connect/token#a",
            "https://auth.example/connect/./x/../token",
            "https://auth.example/%63onnect/tok%65n",
        ] {
            assert_eq!(normalized(url).as_deref(), Some(same), "{url}");
        }
        for url in [
            "https://auth.example/connect/token/",
            "https://auth.example/connect/Token",
            "https://auth.example//connect/token",
            "https://auth.example:80/connect/token",
            "http://auth.example/connect/token",
            "https://auth.example.evil/connect/token",
            "https://auth.example/connect%2Ftoken",
            "/connect/token",
            "auth.example/connect/token",
            "ftp://auth.example/connect/token",
            "https:///connect/token",
            "https://a@auth.example/connect/token",
            "https://auth.example/connect/token%",
            "https://auth.example/connect/token%zz",
            "",
        ] {
            assert_ne!(normalized(url).as_deref(), Some(same), "{url}");
        }
        assert_eq!(normalized("http://a"), normalized("http://a:80/"));
        assert_eq!(normalized("http://a/%c3%a9/.."), Some("http://a/".to_owned()));
    }

    #[test]
    fn a_nonce_lives_for_two_windows() {
        let nonces = Nonces::new(&[7; 32]);
        let nonce = nonces.current(600);
        for (now, accepted) in [(600, true), (719, true), (720, false), (599, false)] {
            assert_eq!(nonces.accept(&nonce, now), accepted, "{now}");
        }
        assert!(!nonces.accept("", 600));
        assert!(!Nonces::new(&[8; 32]).accept(&nonce, 600));
    }
}
