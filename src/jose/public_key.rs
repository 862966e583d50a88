//! The public keys of clients, as JSON Web Keys (RFC 7517; RFC 7518, section 6; RFC 8037), and the
//! four signature algorithms that are supported with these keys.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::jose::from_object;
use crate::jose::thumbprint::{Thumbprint, rsa_thumbprint, sha256, without_leading_zeros};

/// An asymmetric signature algorithm (RFC 7518, section 3.1; RFC 8037, section 3.1). `none` and
/// HMAC have no variant, so that no JWT can select them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The algorithm's registered name (RFC 7518, section 3.1), such as `RS256`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Whether the algorithm can be used with keys of this shape.
    fn fits(self, shape: KeyShape) -> bool {
        match self {
            Self::Rs256 | Self::Ps256 => matches!(shape, KeyShape::Rsa { .. }),
            Self::Es256 => shape == KeyShape::P256,
            Self::EdDsa => shape == KeyShape::Ed25519,
        }
    }

    fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
        found.ok_or("\"RS256\", \"PS256\", \"ES256\" or \"EdDSA\"")
    }
}

/// A client's public key.
#[derive(Clone)]
pub struct PublicKey {
    key_id: Option<Box<str>>,
    /// The key's type and size, which determine how long a verification takes.
    pub shape: KeyShape,
    /// The key's `alg`: the only algorithm that the key may be used with (RFC 7517, section 4.4).
    /// `None` if the key has no `alg`.
    pub algorithm: Option<Algorithm>,
    verifier: DecodingKey,
    /// The first eight bytes of the modulus; `None` unless this is an RSA key.
    modulus_front: Option<u64>,
    /// The key's thumbprint (RFC 7638).
    pub thumbprint: Thumbprint,
}

/// Two keys are equal if they have the same thumbprint, key id and algorithm.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        let Self { key_id, shape: _, algorithm, verifier: _, modulus_front: _, thumbprint } = self;
        *key_id == other.key_id && *algorithm == other.algorithm && *thumbprint == other.thumbprint
    }
}

impl PublicKey {
    /// Parses one JWK.
    ///
    /// # Errors
    ///
    /// [`Unusable`] says why the key cannot verify signatures. Its text contains no part of the
    /// key.
    pub fn parse(jwk: &str) -> Result<Self, Unusable> {
        use Unusable::{Faulty, ForOtherUse};

        let members: Members =
            from_object(jwk.as_bytes()).ok_or(Faulty("is not a JSON Web Key"))?;
        if members.k.is_some() || members.kty == "oct" {
            return Err(Faulty("is a symmetric key; only public keys belong here"));
        }
        if members.holds_private() {
            return Err(Faulty("contains the private key; register only the public members"));
        }
        if members.key_use.is_some_and(|key_use| key_use != "sig") {
            return Err(ForOtherUse("is not for signatures: its `use` is not \"sig\""));
        }
        let can_verify = |operations: &Vec<String>| operations.iter().any(|it| it == "verify");
        if !members.key_ops.as_ref().is_none_or(can_verify) {
            return Err(ForOtherUse("is not for signatures: its `key_ops` has no \"verify\""));
        }
        let algorithm = match members.alg.as_deref().map(str::parse::<Algorithm>) {
            None => None,
            Some(Ok(algorithm)) => Some(algorithm),
            Some(Err(_)) => return Err(ForOtherUse("has an `alg` that is not supported")),
        };
        let mut key = match (members.kty.as_str(), members.crv.as_deref()) {
            ("RSA", _) => Self::rsa(&bytes(members.n)?, &bytes(members.e)?)?,
            ("EC", Some("P-256")) => Self::p256(&bytes(members.x)?, &bytes(members.y)?)?,
            ("OKP", Some("Ed25519")) => Self::ed25519(&bytes(members.x)?)?,
            _ => {
                return Err(ForOtherUse(
                    "is of a type that is not supported; RSA, EC P-256 and OKP Ed25519 are",
                ));
            }
        };
        if algorithm.is_some_and(|algorithm| !algorithm.fits(key.shape)) {
            return Err(Faulty("has an `alg` that does not match its type"));
        }
        key.algorithm = algorithm;
        key.key_id = members.kid.map(Into::into);
        Ok(key)
    }

    /// Returns a decoy: a key for `algorithm` that belongs to no client. A verification with a
    /// decoy takes as long as a verification with a client's key. So the time does not reveal that
    /// the client has no such key.
    pub fn decoy(algorithm: Algorithm) -> Option<&'static Self> {
        static DECOYS: OnceLock<[Option<PublicKey>; 3]> = OnceLock::new();
        let decoys = DECOYS.get_or_init(|| DECOYS_AS_JWK.map(|jwk| Self::parse(jwk).ok()));
        decoys.iter().flatten().find(|key| algorithm.fits(key.shape))
    }

    /// Returns a key of this shape that belongs to no client. A verification with this key takes as
    /// long as a verification with a client's key of the same shape.
    pub fn like(shape: KeyShape, algorithm: Option<Algorithm>) -> Option<Self> {
        let mut key = match shape {
            KeyShape::Rsa { bits, exponent } => {
                let modulus = odd_number(bits.into());
                Self::rsa(&modulus, &exponent.to_be_bytes()).ok()?
            }
            KeyShape::P256 => Self::parse(DECOYS_AS_JWK[1]).ok()?,
            KeyShape::Ed25519 => Self::parse(DECOYS_AS_JWK[2]).ok()?,
        };
        key.algorithm = algorithm;
        Some(key)
    }

    /// Creates an RSA key from its modulus and its public exponent, both big-endian.
    ///
    /// # Errors
    ///
    /// [`KeyProblem`] if the modulus does not have 2048 to 4096 bits, or if the modulus or the
    /// exponent cannot belong to an RSA key.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyProblem> {
        let (n, e) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err("is an RSA key of fewer than 2048 or more than 4096 bits");
        }
        // The modulus and the exponent of an RSA key are odd. An exponent of 1 leaves the message
        // unchanged, and an exponent of more than 32 bits only makes verification slow.
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !is_odd(n) || !is_odd(e) || e == [1] || e.len() > 4 {
            return Err("has a modulus or an exponent that is not valid for an RSA key");
        }
        let [n64, e64] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number));
        let verifier = DecodingKey::from_rsa_raw_components(n, e);
        let exponent = e.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        // `bits` is at most 4096, so the cast loses nothing.
        let shape = KeyShape::Rsa { bits: bits as u16, exponent };
        let modulus_front = n.first_chunk().map(|front| u64::from_be_bytes(*front));
        Ok(Self { modulus_front, ..Self::new(shape, verifier, rsa_thumbprint(&n64, &e64)) })
    }

    /// Creates a P-256 key from the coordinates of its point, each of 32 bytes, big-endian.
    ///
    /// # Errors
    ///
    /// [`KeyProblem`] if `x` and `y` are not the coordinates of a point of P-256.
    pub fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyProblem> {
        let point = [&[4], x, y].concat();
        let is_on_curve = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).is_ok();
        if x.len() != 32 || y.len() != 32 || !is_on_curve {
            return Err("is not a point of P-256");
        }
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Ok(Self::new(KeyShape::P256, DecodingKey::from_ec_der(&point), sha256(members.as_bytes())))
    }

    /// Creates an Ed25519 key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyProblem`] if `x` does not have 32 bytes.
    pub fn ed25519(x: &[u8]) -> Result<Self, KeyProblem> {
        if x.len() != 32 {
            return Err("is not an Ed25519 key, which has 32 bytes");
        }
        let encoded = URL_SAFE_NO_PAD.encode(x);
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{encoded}"}}"#);
        Ok(Self::new(KeyShape::Ed25519, DecodingKey::from_ed_der(x), sha256(members.as_bytes())))
    }

    fn new(shape: KeyShape, verifier: DecodingKey, thumbprint: Thumbprint) -> Self {
        Self { key_id: None, shape, algorithm: None, verifier, modulus_front: None, thumbprint }
    }

    /// The `kid`, if the key has one.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Whether the key's type and its `alg`, if any, permit this algorithm.
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        algorithm.fits(self.shape) && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether `signature`, in base64url, is a signature of `message` by this key. The time of this
    /// check depends on the key's shape, but not on the key's bytes.
    pub fn verifies(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        #[cfg(test)]
        VERIFICATIONS.set(VERIFICATIONS.get() + 1);
        let verify = |signature: &str| {
            let (message, algorithm) = (message.as_bytes(), algorithm.of_library());
            jsonwebtoken::crypto::verify(signature, message, &self.verifier, algorithm)
        };
        if !algorithm.fits(self.shape) {
            return false;
        }
        let Some(largest) = self.modulus_front else {
            return verify(signature).unwrap_or(false);
        };
        // An RSA signature is a number below the modulus. The library refuses a greater number at
        // once, without a calculation. The difference in time would reveal the modulus, and thereby
        // whether the key belongs to a client or is a decoy. So if the number is too large, a
        // smaller number is verified in its place, and the result is ignored.
        let Ok(mut number) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let is_too_large =
            number.first_chunk().is_some_and(|front| u64::from_be_bytes(*front) > largest);
        if let Some(first) = number.first_mut() {
            *first = if is_too_large { 0 } else { *first };
        }
        verify(&URL_SAFE_NO_PAD.encode(number)).unwrap_or(false) && !is_too_large
    }
}

/// The public keys of the examples in RFC 7638, section 3.1 (RSA), RFC 7517, appendix A.1 (P-256),
/// and RFC 8037, appendix A.2 (Ed25519). No client uses one of these keys.
const DECOYS_AS_JWK: [&str; 3] = [
    r#"{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}"#,
    r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
];

#[cfg(test)]
thread_local! {
    /// The number of signatures that were verified on this thread.
    pub(crate) static VERIFICATIONS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// A problem with a key, as a predicate that follows the name of the key, such as "is not a JSON
/// Web Key".
pub type KeyProblem = &'static str;

/// The reason why a key cannot verify signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The key is valid, but is not for verifying signatures or is of an unsupported type. A JWK
    /// Set may contain such keys.
    ForOtherUse(KeyProblem),
    /// The key is malformed, or must not be registered, such as a private key.
    Faulty(KeyProblem),
}

impl From<KeyProblem> for Unusable {
    fn from(problem: KeyProblem) -> Self {
        Self::Faulty(problem)
    }
}

/// The type and size of a key, which determine how long a verification takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyShape {
    /// An RSA key.
    Rsa {
        /// The length of the modulus, in bits.
        bits: u16,
        /// The public exponent.
        exponent: u32,
    },
    /// An elliptic-curve key on P-256.
    P256,
    /// An Ed25519 key.
    Ed25519,
}

/// Returns an odd number of exactly `bits` bits, big-endian: always the same number for the same
/// `bits`. Its factors are unknown.
fn odd_number(bits: usize) -> Vec<u8> {
    let hashes = (0..bits.div_ceil(256)).flat_map(|block| sha256(&block.to_be_bytes()));
    let mut number: Vec<u8> = hashes.take(bits.div_ceil(8)).collect();
    let top_bit = (bits - 1) % 8;
    if let Some(first) = number.first_mut() {
        *first = *first & ((1 << top_bit) - 1) | 1 << top_bit;
    }
    if let Some(last) = number.last_mut() {
        *last |= 1;
    }
    number
}

/// The known members of a JWK. Other members are ignored (RFC 7517, section 4).
#[derive(Deserialize)]
struct Members {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    // Members of private and symmetric keys. Only their presence is recorded, not their values.
    k: Option<IgnoredAny>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    #[serde(rename = "priv")]
    private: Option<IgnoredAny>,
}

impl Members {
    fn holds_private(&self) -> bool {
        let Self { d, p, q, dp, dq, qi, oth, private, .. } = self;
        [d, p, q, dp, dq, qi, oth, private].iter().any(|member| member.is_some())
    }
}

fn bytes(member: Option<String>) -> Result<Vec<u8>, KeyProblem> {
    let member = member.ok_or("lacks a member that its type must have")?;
    URL_SAFE_NO_PAD.decode(member).map_err(|_| "has a member that is not base64url without padding")
}

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, appendix A.3.
    const P256: &str = r#"{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    /// The example of RFC 8037, appendix A.2, with a `kid` and an `alg`.
    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k","alg":"EdDSA"}"#;

    #[test]
    fn the_thumbprint_matches_the_rfc() {
        // RFC 8037, appendix A.3, and RFC 7638, section 3.1.
        for (jwk, expected) in [
            (ED25519, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            (DECOYS_AS_JWK[0], "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        ] {
            let key = PublicKey::parse(jwk).unwrap();
            assert_eq!(URL_SAFE_NO_PAD.encode(key.thumbprint), expected);
        }
    }

    #[test]
    fn a_signature_of_the_rfc_verifies_only_with_its_own_key_and_algorithm() {
        // RFC 8037, appendix A.4.
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let key = PublicKey::parse(ED25519).unwrap();
        assert!(key.verifies(Algorithm::EdDsa, message, signature));
        assert!(!key.verifies(Algorithm::EdDsa, "eyJhbGciOiJFZERTQSJ9.", signature));
        assert!(!key.verifies(Algorithm::Es256, message, signature));
        assert!(!key.verifies(Algorithm::EdDsa, message, ""));
        assert!(key.is_for(Algorithm::EdDsa) && !key.is_for(Algorithm::Rs256));
        assert_eq!(key.key_id(), Some("k"));
    }

    #[test]
    fn refuses_keys_that_are_not_public_signature_keys() {
        assert!(PublicKey::parse(P256).is_ok());
        let with = |more: &str| P256.replacen('{', &format!("{{{more},"), 1);
        for (jwk, problem) in [
            (with(r#""d":"AA""#), "private"),
            (with(r#""d":"""#), "private"),
            (with(r#""k":"AA""#), "symmetric"),
            (r#"{"kty":"oct","k":"AA"}"#.to_owned(), "symmetric"),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(), "fewer than 2048"),
            (r#"{"kty":"RSA","n":"AQAB"}"#.to_owned(), "lacks a member"),
            (r#"{"kty":"RSA","n":"","e":""}"#.to_owned(), "fewer than 2048"),
            (P256.replace("f83O", "f83P"), "not a point"),
            (P256.replace("f83O", ""), "not a point"),
            (r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AA","priv":"AA"}"#.to_owned(), "private"),
            (ED25519.replace("11qY", ""), "32 bytes"),
            (ED25519.replace("11qY", "1+qY"), "base64url"),
            (ED25519.replace("EdDSA", "RS256"), "`alg`"),
            (with(r#""kty":"EC""#), "not a JSON Web Key"),
            ("[]".to_owned(), "not a JSON Web Key"),
        ] {
            let Unusable::Faulty(found) = PublicKey::parse(&jwk).unwrap_err() else {
                panic!("not refused: {jwk}")
            };
            assert!(found.contains(problem), "{found} is not {problem}: {jwk}");
        }
        for (n, e) in [(&[0xFF; 256][..], &[1][..]), (&[0xFF; 256], &[2]), (&[0xFE; 256], &[3])] {
            assert!(PublicKey::rsa(n, e).is_err());
        }
        assert!(PublicKey::rsa(&[0xFF; 256], &[1, 0, 1]).is_ok());
        assert!(PublicKey::rsa(&[0xFF; 513], &[1, 0, 1]).is_err());
        assert!(PublicKey::rsa(&[0x7F; 256], &[1, 0, 1]).is_err());
    }

    /// An RSA signature is a number below the modulus. A greater number is refused, but only after
    /// a smaller number has been verified, so that the refusal takes as long as a verification.
    #[test]
    fn a_number_above_the_modulus_is_not_a_signature() {
        let key = PublicKey::like(KeyShape::Rsa { bits: 2048, exponent: 65_537 }, None).unwrap();
        let own = PublicKey::parse(DECOYS_AS_JWK[0]).unwrap();
        for key in [&key, &own] {
            for number in
                [vec![0xFF; 256], vec![0x01; 256], vec![0; 256], vec![0xFF; 255], Vec::new()]
            {
                let signature = URL_SAFE_NO_PAD.encode(number);
                assert!(!key.verifies(Algorithm::Rs256, "message", &signature));
                assert!(!key.verifies(Algorithm::Ps256, "message", &signature));
            }
            assert!(!key.verifies(Algorithm::Rs256, "message", "no base64url!"));
        }
    }

    #[test]
    fn a_decoy_has_the_requested_shape() {
        for (bits, exponent) in [(2048, 65_537), (2049, 3), (3072, 65_537), (4096, 0x0100_0001)] {
            let shape = KeyShape::Rsa { bits, exponent };
            let key = PublicKey::like(shape, Some(Algorithm::Ps256)).unwrap();
            assert_eq!((key.shape, key.algorithm), (shape, Some(Algorithm::Ps256)));
        }
        for shape in [KeyShape::P256, KeyShape::Ed25519] {
            assert_eq!(PublicKey::like(shape, None).unwrap().shape, shape);
        }
    }
}
