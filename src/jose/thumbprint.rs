//! Thumbprints of keys and certificates.

use ring::digest::{SHA256, digest};

/// The SHA-256 thumbprint of a key (RFC 7638) or of a certificate (RFC 8705, section 3.1).
pub type Thumbprint = [u8; 32];

/// Returns the thumbprint of an RSA key (RFC 7638, section 3): SHA-256 over the required members of
/// its JWK in alphabetical order.
pub fn rsa_thumbprint(modulus: &str, exponent: &str) -> Thumbprint {
    sha256(format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#).as_bytes())
}

/// Returns `number` (big-endian) in the fewest bytes, as Base64urlUInt requires (RFC 7518, section
/// 2).
pub fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

/// Returns the SHA-256 hash of `bytes`.
pub fn sha256(bytes: &[u8]) -> Thumbprint {
    let mut hash = Thumbprint::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lose_their_leading_zeros() {
        assert_eq!(without_leading_zeros(&[0, 0, 1, 0]), [1, 0]);
    }
}
