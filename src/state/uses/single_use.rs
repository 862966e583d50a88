//! An assertion or a proof that is accepted only once.

use ring::digest::{Context, SHA256};

use crate::state::group_commit::Waiting;
use crate::state::shares::ClientTag;
use crate::time::UnixTime;

/// An assertion or a proof that is accepted only once.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse<'a> {
    /// The id of the authenticated client.
    pub client_id: &'a str,
    /// The client or the key that signed the value.
    pub owner: Owner<'a>,
    /// The value's `jti`, unique for its owner.
    pub token_id: &'a str,
    /// The signing time according to the value's claims.
    pub signed_at: UnixTime,
    /// The expiry time of the value.
    pub until: UnixTime,
}

/// The owner of a `jti`. Two owners may use the same `jti`, but one owner must not use a `jti`
/// twice.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The client that signed an assertion.
    Client,
    /// The thumbprint of the key that signed a DPoP proof.
    Key(&'a [u8]),
}

impl SingleUse<'_> {
    /// The key of the entry. It is a hash of the owner too, so that an owner cannot block the `jti`
    /// of another owner.
    pub(super) fn key(&self) -> Key {
        let (kind, owner) = match self.owner {
            Owner::Client => (b'c', self.client_id.as_bytes()),
            Owner::Key(thumbprint) => (b'k', thumbprint),
        };
        let mut hash = Context::new(&SHA256);
        hash.update(&[kind]);
        hash.update(&(owner.len() as u64).to_be_bytes());
        hash.update(owner);
        hash.update(self.token_id.as_bytes());
        let hash = hash.finish();
        std::array::from_fn(|index| hash.as_ref()[index])
    }
}

/// A hash of an owner and a `jti`, shortened to 128 bits.
pub(crate) type Key = [u8; 16];

/// One used assertion or proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// The client that used it.
    pub(crate) client: ClientTag,
    /// Its expiry.
    pub(crate) until: UnixTime,
}

/// A use that a request wants to record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) entry: Entry,
    pub(crate) signed_at: UnixTime,
}

/// A use to record, and the request that waits for it.
pub(crate) type Wish = Waiting<Use, Result<(), UseError>>;

/// The reason why a use of an assertion or proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseError {
    /// It was signed in the future by the clock of the record, and could be used again if the record
    /// were lost.
    Ahead,
    /// It was signed before the record began, and may have been used then.
    BeforeRecord,
    /// Its entry may have been dropped, and it may have been used.
    Forgotten,
    /// The record is full.
    Full,
    /// The use could not be written to the file, or not in time.
    NotRecorded,
    /// The client holds its share of the record.
    Share,
    /// It was used before.
    Used,
}
