//! JWTs that clients have signed: assertions and DPoP proofs (RFC 7515, RFC 7519).
//!
//! Parsing does not verify the signature. Parsing is strict, so that the header and the claims have
//! only one possible reading: base64url has no padding, no known member is repeated, and the header
//! contains no certificate and no URL of a key.

use std::collections::HashMap;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::jose::from_object;
use crate::jose::public_key::{Algorithm, PublicKey};
use crate::time::UnixTime;

/// A parsed JWT whose signature is not verified yet.
pub struct ForeignJwt<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    header: Header,
}

impl<'a> ForeignJwt<'a> {
    /// Splits a JWT in compact serialization (RFC 7515, section 7.1) into its three parts and
    /// parses the header. `None` if the text is longer than 8 KiB or does not have three parts, or
    /// if the header is malformed, contains a certificate or the URL of a key, or requires an
    /// extension.
    pub fn read(text: &'a str) -> Option<Self> {
        // Check the length first, so that a text that is too long costs only one comparison.
        if text.len() > MAX_BYTES {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') || signature.is_empty() {
            return None;
        }
        let header: Header = parse(header)?;
        // `jku` and `x5u` are URLs of keys and certificates, and `x5c` contains certificates (RFC
        // 7515, section 4.1). `crit` and `b64` require an extension (RFC 7797). The server supports
        // none of these members.
        if REFUSED_MEMBERS.iter().any(|name| header.others.contains_key(*name)) {
            return None;
        }
        Some(Self { signed, payload, signature, header })
    }

    /// Parses the claims, which are not verified yet. `None` if the payload is not a JSON object,
    /// or if it cannot be deserialized as a `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        parse(self.payload)
    }

    /// The algorithm in the header's `alg`; `None` if the server does not support the algorithm.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.header.alg.parse().ok()
    }

    /// The `typ` of the header.
    pub fn token_type(&self) -> Option<&str> {
        self.header.typ.as_deref()
    }

    /// The public key in the header's `jwk`. Only the header of a DPoP proof may have a `jwk`.
    pub fn embedded_key(&self) -> Option<&Value> {
        self.header.jwk.as_ref()
    }

    /// Whether one of `keys` has signed the JWT with `algorithm`.
    ///
    /// If the header has a `kid`, only those keys for `algorithm` that have this `kid` are tried.
    /// If the header has no `kid`, all keys for `algorithm` are tried. If there is no such key, the
    /// signature is verified with a key of a different `kid` or with a decoy, and the result is
    /// discarded. So the time does not reveal that there is no such key.
    pub fn is_signed_by(&self, keys: &[PublicKey], algorithm: Algorithm) -> bool {
        let kid = self.header.kid.as_deref();
        let fitting = || keys.iter().filter(|key| key.is_for(algorithm));
        let mut chosen = fitting().filter(|key| kid.is_none() || key.key_id() == kid).peekable();
        if chosen.peek().is_none() {
            let decoy = fitting().next().or_else(|| PublicKey::decoy(algorithm));
            // Verify only to take the time of a verification. The result is discarded.
            black_box(decoy.map(|key| key.verifies(algorithm, self.signed, self.signature)));
            return false;
        }
        chosen.any(|key| key.verifies(algorithm, self.signed, self.signature))
    }

    /// Whether `key`, the parsed [`embedded_key`](Self::embedded_key), has signed the JWT with
    /// `algorithm`.
    pub fn is_signed_by_embedded(&self, key: &PublicKey, algorithm: Algorithm) -> bool {
        key.is_for(algorithm) && key.verifies(algorithm, self.signed, self.signature)
    }
}

/// A time in the claims of a JWT (RFC 7519, section 2). A fraction of a second is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericDate(pub UnixTime);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let fraction = || number.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
        number
            .as_u64()
            .filter(|seconds| *seconds < 1_000_000_000_000)
            .or_else(|| fraction().map(|seconds| seconds as u64))
            .map(|seconds| Self(UnixTime(seconds)))
            .ok_or_else(|| D::Error::custom("not a time"))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    jwk: Option<Value>,
    #[serde(flatten)]
    others: HashMap<String, IgnoredAny>,
}

const REFUSED_MEMBERS: [&str; 5] = ["b64", "crit", "jku", "x5c", "x5u"];

fn parse<T: DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    from_object(&json)
}

/// The greatest length of a JWT. A client assertion with an RSA-4096 signature is shorter than 2
/// KiB.
const MAX_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str) -> String {
        format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn refuses_headers_that_point_to_another_key() {
        assert!(ForeignJwt::read(&jwt(r#"{"alg":"RS256","new":1}"#)).is_some());
        for header in [
            "",
            "[]",
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":"RS256","alg":"none"}"#,
            r#"{"alg":"RS256","jku":"https://a"}"#,
            r#"{"alg":"RS256","jku":null}"#,
            r#"{"alg":"RS256","x5u":"https://a"}"#,
            r#"{"alg":"RS256","x5c":[]}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","kid":1}"#,
        ] {
            assert!(ForeignJwt::read(&jwt(header)).is_none(), "{header}");
        }
        let good = jwt(r#"{"alg":"RS256"}"#);
        let long = format!("{}{good}", "A".repeat(MAX_BYTES));
        let dots = ".".repeat(MAX_BYTES);
        for text in
            ["", ".", "..", "a.b.c", &long, &dots, &format!("{good}."), &good[..good.len() - 2]]
        {
            assert!(ForeignJwt::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn unsupported_algorithms_are_none() {
        for name in ["none", "None", "HS256", "RS512", "ES384", "rs256", ""] {
            let text = jwt(&format!(r#"{{"alg":"{name}"}}"#));
            assert_eq!(ForeignJwt::read(&text).unwrap().algorithm(), None, "{name}");
        }
    }

    #[test]
    fn a_kid_selects_one_key_and_without_one_all_keys_for_the_algorithm_are_tried() {
        use crate::jose::public_key::{KeyShape, VERIFICATIONS};

        let verifications = |keys: &[PublicKey], algorithm: Algorithm, kid: &str| {
            let text = jwt(&format!(r#"{{"alg":"{}"{kid}}}"#, algorithm.as_str()));
            VERIFICATIONS.set(0);
            assert!(!ForeignJwt::read(&text).unwrap().is_signed_by(keys, algorithm));
            VERIFICATIONS.get()
        };
        let jwk = r#"{"kty":"EC","crv":"P-256","kid":"k",
            "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let parse = |jwk: &str| PublicKey::parse(jwk).unwrap();
        let named = [parse(jwk), parse(&jwk.replace("\"k\"", "\"l\""))];
        let unnamed = [KeyShape::P256, KeyShape::Rsa { bits: 4096, exponent: 3 }]
            .map(|shape| PublicKey::like(shape, None).unwrap());
        for algorithm in Algorithm::ALL {
            let of_p256 = if algorithm == Algorithm::Es256 { 2 } else { 1 };
            for (keys, without) in [(&[][..], 1), (&named, of_p256), (&unnamed, 1)] {
                assert_eq!(verifications(keys, algorithm, ""), without, "{algorithm:?}");
                for kid in ["k", "l", "other"] {
                    let kid = format!(r#","kid":"{kid}""#);
                    assert_eq!(verifications(keys, algorithm, &kid), 1, "{algorithm:?}");
                }
            }
        }
    }

    #[test]
    fn a_time_is_a_number() {
        let date = |text| serde_json::from_str::<NumericDate>(text).ok().map(|date| date.0.0);
        assert_eq!(date("5"), Some(5));
        assert_eq!(date("5.9"), Some(5));
        for bad in ["\"5\"", "-1", "-0.5", "1e300", "18446744073709551615", "true", "null", "[]"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }
}
