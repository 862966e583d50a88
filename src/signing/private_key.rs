//! An RSA private key, read once into the form of each library that signs with it.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rsa::{KeyPair, PublicKeyComponents};
use rsa_x8::BatchKey;

use crate::jose::thumbprint::{rsa_thumbprint, without_leading_zeros};

/// An RSA private key, in the forms of ring, aws-lc and the batch signer.
pub struct PrivateKey {
    /// The key's thumbprint in base64url (RFC 7638).
    pub thumbprint: String,
    /// The modulus in base64url, as in a JWK.
    pub modulus: String,
    /// The public exponent in base64url, as in a JWK.
    pub exponent: String,
    /// The form for signing with ring.
    pub ring: KeyPair,
    pub(super) aws_lc: aws_lc_rs::rsa::KeyPair,
    /// The form for signing in batches. `None` if the processor lacks AVX-512 IFMA, or the key does
    /// not have two primes and 2048, 3072 or 4096 bits. Only [`Backends::prepare`] compares its
    /// signatures with ring's.
    ///
    /// [`Backends::prepare`]: crate::signing::backends::Backends::prepare
    pub batch: Option<BatchKey>,
    /// The result of the trial of batches. Empty before the trial.
    pub(super) batch_pays_from: OnceLock<Option<usize>>,
}

impl PrivateKey {
    /// Parses a key from a PKCS#8 document (RFC 5208).
    ///
    /// # Errors
    ///
    /// A text if the document is not an RSA key of 2048 to 4096 bits, or if its numbers are
    /// inconsistent. It names the property that is wrong, and contains no key material.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, String> {
        let aws_lc = aws_lc_rs::rsa::KeyPair::from_pkcs8(document);
        let ring = KeyPair::from_pkcs8(document);
        let ring = ring.map_err(|error| unusable(&error.to_string(), aws_lc.is_ok()))?;
        let aws_lc = aws_lc.map_err(|error| unusable(&error.to_string(), false))?;
        let public = PublicKeyComponents::<Vec<u8>>::from(ring.public());
        let modulus = URL_SAFE_NO_PAD.encode(without_leading_zeros(&public.n));
        let exponent = URL_SAFE_NO_PAD.encode(without_leading_zeros(&public.e));
        let thumbprint = URL_SAFE_NO_PAD.encode(rsa_thumbprint(&modulus, &exponent));
        let batch = BatchKey::from_pkcs8(document);
        let batch_pays_from = OnceLock::new();
        Ok(Self { thumbprint, modulus, exponent, ring, aws_lc, batch, batch_pays_from })
    }

    /// The smallest number of tokens for which a batch is faster than single signatures. `None` if
    /// the key must not sign in batches.
    pub(super) fn batch_pays_from(&self) -> Option<usize> {
        self.batch_pays_from.get().copied().flatten()
    }
}

/// Says why a key cannot be used. `error` is the name of the error of ring or AWS-LC. AWS-LC takes
/// smaller public exponents than ring, so a key that `is_right_for_aws_lc` is not too short.
fn unusable(error: &str, is_right_for_aws_lc: bool) -> String {
    let problem = match error {
        "TooSmall" if is_right_for_aws_lc => "its public exponent is less than 65537",
        "TooSmall" => "it has fewer than 2048 bits, or its public exponent is less than 65537",
        "TooLarge" => "it has more than 4096 bits, or its public exponent more than 33",
        "WrongAlgorithm" => "it is a key of another algorithm",
        "InvalidEncoding" => "its encoding is damaged",
        "InvalidComponent" | "InconsistentComponents" => "its numbers do not belong together",
        "PrivateModulusLenNotMultipleOf512Bits" => "its size is not a multiple of 1024 bits",
        "VersionNotSupported" => "it is of an unknown version of PKCS#8",
        other => other,
    };
    format!("not a usable RSA key of 2048 to 4096 bits: {problem}")
}

#[cfg(test)]
impl PrivateKey {
    /// Generates the document of a key of 2048 bits.
    pub(crate) fn generate_document() -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        use aws_lc_rs::rsa::{KeyPair, KeySize};
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let document: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        document.as_ref().to_vec()
    }

    pub(super) fn generate() -> Self {
        Self::from_pkcs8(&Self::generate_document()).unwrap()
    }

    /// Generates a key that cannot sign in batches.
    pub(super) fn generate_without_batch() -> Self {
        Self { batch: None, ..Self::generate() }
    }
}
