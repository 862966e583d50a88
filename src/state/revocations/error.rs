//! Why a token was not revoked.

use crate::oauth::error::Cause;

/// The reason why a token was not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeError {
    /// The limit of revoked tokens is reached.
    Full,
    /// Too many revocations wait for the disk.
    Overloaded,
    /// The revocation could not be written to disk.
    NotWritten,
}

impl From<RevokeError> for Cause {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Full => Self::RevocationsFull,
            RevokeError::NotWritten | RevokeError::Overloaded => Self::RevocationNotWritten,
        }
    }
}
