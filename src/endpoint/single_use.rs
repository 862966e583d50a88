//! Single use of assertions and DPoP proofs, also across restarts.
//!
//! The record of uses is lost at a restart, so a value that was signed before the start is refused.
//! If a client's clock is ahead, however, a value that was used before the restart may say that it
//! was signed after the start. So the use of a value whose signing time is in the future is also
//! written to disk.

use crate::endpoint::Exchange;
use crate::oauth::error::Cause;
use crate::state::replay::{Owner, ReplayError};
use crate::state::revocations::RevocationKey;
use crate::time::UnixTime;

/// An assertion or a proof that is accepted only once.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse<'a> {
    /// The client or the key that signed the value.
    pub owner: Owner<'a>,
    /// The value's `jti`, unique for its owner.
    pub token_id: &'a str,
    /// The signing time according to the value's claims.
    pub signed_at: UnixTime,
    /// The expiry time of the value.
    pub until: UnixTime,
}

/// Records that the value is used. If several calls for one value run at
/// the same time, exactly one succeeds.
///
/// # Errors
///
/// The caller's cause `replayed` if the value was used before. The caller's cause `forgotten` if
/// the value may have been used before and the record of this use may have been dropped. Another
/// [`Cause`] if the use cannot be recorded.
pub async fn use_up(
    exchange: &Exchange<'_>,
    single_use: SingleUse<'_>,
    [replayed, forgotten]: [Cause; 2],
) -> Result<(), Cause> {
    let Exchange { context, now, .. } = *exchange;
    let SingleUse { owner, token_id, signed_at, until } = single_use;
    let key = owner.key_of(token_id);
    let disk_key = RevocationKey::SigningInput(key);
    if context.revocations.contains(&disk_key) {
        return Err(replayed);
    }
    // Uses are added only while the revocation list is less than half full: the other half is
    // reserved for revocations.
    if signed_at > now && !context.revocations.is_less_than_half_full() {
        return Err(Cause::ReplayGuardFull);
    }
    context.replay.spend(key, until, now).map_err(|error| match error {
        ReplayError::Forgotten => forgotten,
        ReplayError::Full => Cause::ReplayGuardFull,
        ReplayError::Used => replayed,
    })?;
    if signed_at > now {
        context.revocations.revoke(disk_key, until).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::revocations::RevokeError;

    #[test]
    fn a_valid_assertion_whose_use_cannot_be_recorded_costs_no_attempt() {
        for error in [RevokeError::Full, RevokeError::NotWritten, RevokeError::Overloaded] {
            let cause = Cause::from(error);
            assert!(cause.costs_no_attempt(), "{cause:?}");
        }
        assert!(Cause::ReplayGuardFull.costs_no_attempt());
    }
}
