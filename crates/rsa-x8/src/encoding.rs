//! Encodes a message as the number that is signed.

use ring::digest::{SHA256, digest};

/// The DER of a SHA-256 DigestInfo up to the hash (RFC 8017, section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Fills `encoded` with the EMSA-PKCS1-v1_5 encoding of `message` (RFC 8017, section 9.2):
/// `00 01 ff … ff 00`, the DigestInfo, the SHA-256 hash.
pub(crate) fn encode(message: &[u8], encoded: &mut [u8]) {
    let hash = digest(&SHA256, message);
    let tail = DIGEST_INFO.len() + hash.as_ref().len();
    let (padding, info) = encoded.split_at_mut(encoded.len() - tail);
    padding.fill(0xff);
    padding[0] = 0;
    padding[1] = 1;
    padding[padding.len() - 1] = 0;
    info[..DIGEST_INFO.len()].copy_from_slice(&DIGEST_INFO);
    info[DIGEST_INFO.len()..].copy_from_slice(hash.as_ref());
}
