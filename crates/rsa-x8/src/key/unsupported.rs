//! Replaces `key` on architectures without AVX-512. On these, no `Key` can be created.

use crate::{BATCH, MAX_SIGNATURE_BYTES};

pub(crate) enum Key {}

impl Key {
    pub(crate) fn from_pkcs8(_document: &[u8]) -> Option<Self> {
        None
    }

    pub(crate) fn modulus_bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn sign(
        &self,
        _encoded: &[[u8; MAX_SIGNATURE_BYTES]; BATCH],
        _signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    ) -> [bool; BATCH] {
        match *self {}
    }
}
