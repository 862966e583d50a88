//! DPoP (RFC 9449): verifies proofs. With a proof, a client shows that it holds the private key to
//! which its token is bound. The caller must check that the proof was not used before.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;

use crate::jose::foreign::{ForeignJwt, NumericDate};
use crate::jose::public_key::PublicKey;
use crate::jose::thumbprint::Thumbprint;
use crate::time::UnixTime;

/// A valid proof. A proof may be used only once, so the caller must record its use.
#[derive(Debug)]
pub struct Proof {
    /// The thumbprint of the key that signed the proof.
    pub thumbprint: Thumbprint,
    /// The proof's `jti`, unique per key.
    pub token_id: String,
    /// The proof's `iat`: the time at which the client claims to have signed the proof.
    pub issued_at: UnixTime,
    /// The time from which the proof is refused as too old.
    pub until: UnixTime,
}

impl Proof {
    /// Verifies the proof of a request to `target` (RFC 9449, section 4.3). `nonces` are the server's nonces; `None` if a proof needs no nonce.
    ///
    /// # Errors
    ///
    /// A [`DpopError`]. It is [`DpopError::Nonce`] only if the proof is valid apart from the nonce.
    pub fn verify(
        text: &[u8],
        target: Target<'_>,
        now: UnixTime,
        nonces: Option<&Nonces>,
    ) -> Result<Self, DpopError> {
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
        let urls = [&*claims.htu, target.url].map(normalized);
        if claims.htm != target.method || urls[0].is_none() || urls[0] != urls[1] {
            return Err(DpopError::Target);
        }
        let issued_at = claims.iat.0;
        if issued_at > now + SKEW || now.since(issued_at) > MAX_AGE {
            return Err(DpopError::Time);
        }
        if !jwt.is_signed_by_embedded(&key, algorithm) {
            return Err(DpopError::Signature);
        }
        if let Some(nonces) = nonces
            && !claims.nonce.is_some_and(|nonce| nonces.accept(&nonce, now))
        {
            return Err(DpopError::Nonce);
        }
        let until = issued_at + MAX_AGE + 1;
        Ok(Self { thumbprint: key.thumbprint, token_id: claims.jti, issued_at, until })
    }
}

/// The request that a proof must name.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The URL, without query and fragment.
    pub url: &'a str,
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpopError {
    /// The proof's algorithm is not supported.
    Algorithm,
    /// The key in the proof is not a public key of a supported type.
    Key,
    /// The proof cannot be parsed or lacks a claim, or the `DPoP` header is repeated.
    Malformed,
    /// The `DPoP` header is absent, but the client's tokens must be bound to a key.
    Missing,
    /// The proof's nonce is absent, wrong or too old.
    Nonce,
    /// The proof was used before.
    Replayed,
    /// The key in the proof does not verify the signature.
    Signature,
    /// The method (`htm`) or the URL (`htu`) in the proof differs from the request.
    Target,
    /// The proof is too old, from the future, or from before this process started.
    Time,
}

/// Stateless nonces (RFC 9449, section 8). A nonce is a keyed hash of the number of a time window.
pub struct Nonces(hmac::Key);

impl Nonces {
    /// Creates nonces with a secret `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the current nonce at `now`. The nonce is accepted for 60 to 120 seconds after `now`.
    pub fn current(&self, now: UnixTime) -> String {
        self.of(now.0 / WINDOW)
    }

    /// Whether `nonce` is the nonce of the current time window or of the window before it.
    fn accept(&self, nonce: &str, now: UnixTime) -> bool {
        let window = now.0 / WINDOW;
        // This comparison need not take constant time: nonces are not secret, because any client
        // can request a nonce.
        [window, window.wrapping_sub(1)].into_iter().any(|window| self.of(window) == nonce)
    }

    fn of(&self, window: u64) -> String {
        let tag = hmac::sign(&self.0, &window.to_be_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
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

/// Normalizes a URL (RFC 3986, sections 6.2.2 and 6.2.3) and removes query and fragment. `None` if
/// `url` is not a valid http or https URL.
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
    // A path that ends in `.` or `..` normalizes to a path that ends in a slash, so append an empty
    // segment. A path that ends in a slash already has an empty last segment.
    if ends_in_slash && segments.last().is_none_or(|last| !last.is_empty()) {
        segments.push(Cow::Borrowed(""));
    }
    Some(format!("/{}", segments.join("/")))
}

/// Decodes percent-encoded unreserved characters, and writes the hex digits of all other triplets
/// in upper case. `None` if a `%` is not followed by two hex digits.
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

/// The maximum time by which the clock of a client may be ahead, in seconds.
const SKEW: u64 = 10;
/// The maximum age of a proof, in seconds.
const MAX_AGE: u64 = 60;
/// The length of a time window for nonces, in seconds.
const WINDOW: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_urls_normalize_to_one() {
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
        let nonce = nonces.current(UnixTime(600));
        for (now, accepted) in [(600, true), (719, true), (720, false), (599, false)] {
            assert_eq!(nonces.accept(&nonce, UnixTime(now)), accepted, "{now}");
        }
        assert!(!nonces.accept("", UnixTime(600)));
        assert!(!Nonces::new(&[8; 32]).accept(&nonce, UnixTime(600)));
    }
}
