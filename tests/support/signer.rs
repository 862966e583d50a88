//! A client's private key: signatures and the public JWK.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// A key and its algorithm.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) algorithm: &'static str,
    key: Key,
}

#[derive(Clone)]
enum Key {
    Rsa(Arc<RsaKeyPair>),
    Ec(Arc<EcdsaKeyPair>),
    Ed(Arc<Ed25519KeyPair>),
}

impl Signer {
    /// One signer for each algorithm.
    pub(crate) fn all() -> [Self; 4] {
        [Self::rs256(), Self::ps256(), Self::es256(), Self::eddsa()]
    }

    /// Returns an RS256 signer. The tests share one RSA key, because it takes a second to make a
    /// key.
    pub(crate) fn rs256() -> Self {
        static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
        let key = KEY.get_or_init(|| Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
        Self { algorithm: "RS256", key: Key::Rsa(Arc::clone(key)) }
    }

    /// Returns a PS256 signer with the key of [`Signer::rs256`].
    pub(crate) fn ps256() -> Self {
        Self { algorithm: "PS256", ..Self::rs256() }
    }

    /// Returns an ES256 signer with a new key.
    pub(crate) fn es256() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { algorithm: "ES256", key: Key::Ec(Arc::new(key)) }
    }

    /// Returns an EdDSA signer with a new key.
    pub(crate) fn eddsa() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        Self { algorithm: "EdDSA", key: Key::Ed(Arc::new(key)) }
    }

    /// Returns the public key.
    pub(crate) fn jwk(&self) -> Value {
        match &self.key {
            Key::Rsa(key) => {
                let public = key.public_key();
                let [n, e] = [public.modulus(), public.exponent()]
                    .map(|number| URL_SAFE_NO_PAD.encode(number.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "n": n, "e": e })
            }
            Key::Ec(key) => {
                let point = key.public_key().as_ref();
                let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
            Key::Ed(key) => {
                let x = URL_SAFE_NO_PAD.encode(key.public_key());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        }
    }

    /// Returns a key set with this key only.
    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    /// Returns the JWK thumbprint (RFC 7638): the hash of the required members in alphabetical
    /// order.
    pub(crate) fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let mut names: Vec<_> = jwk.as_object().unwrap().keys().collect();
        names.sort();
        let members: Vec<_> =
            names.iter().map(|name| format!("\"{name}\":{}", jwk[*name])).collect();
        let text = format!("{{{}}}", members.join(","));
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
    }

    /// Returns the private key of an RSA signer as PEM.
    pub(crate) fn pem(&self) -> String {
        let Key::Rsa(key) = &self.key else { panic!("not an RSA key") };
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&**key).unwrap();
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let label = "PRIVATE KEY";
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// Signs a JWT with this header and these claims. The header may be invalid.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs a JWT whose header and claims need not be JSON.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Key::Ec(key) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
