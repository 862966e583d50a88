//! A client in a file of the state directory: a hash of its id.

use ring::digest::{Context, SHA256};

/// The first bytes of a hash of a client id.
pub(super) fn client_tag<const BYTES: usize>(client_id: &str) -> [u8; BYTES] {
    let mut hash = Context::new(&SHA256);
    hash.update(b"grantd client\0");
    hash.update(client_id.as_bytes());
    let hash = hash.finish();
    std::array::from_fn(|index| hash.as_ref()[index])
}
