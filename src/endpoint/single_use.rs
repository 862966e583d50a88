//! What is good for one use is used up, whatever becomes of this process afterwards.
//!
//! After a start everything is refused that was signed before it, since what the process before
//! had accepted is not known any more. That leaves what came before the start and says that it was
//! signed after it, by a client whose clock is ahead: such a use goes to the disk first.

use crate::endpoint::Context;
use crate::oauth::error::Cause;
use crate::store::replay::{Owner, ReplayError};
use crate::store::revocations::RevocationKey;

/// Something that must not be accepted again.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse<'a> {
    /// Who has made it.
    pub owner: Owner<'a>,
    /// Its name, unique for its owner.
    pub token_id: &'a str,
    /// When it was signed, as it says, in Unix seconds.
    pub signed_at: u64,
    /// From when on nobody accepts it anyway, in Unix seconds.
    pub until: u64,
}

/// Uses it up at `now` (Unix seconds). Of any number of uses at the same time one succeeds.
///
/// # Errors
///
/// `replayed` if it was used, `forgotten` if that is not known any more, or the [`Cause`] for which
/// it cannot be remembered.
pub async fn use_up(
    context: &Context,
    single_use: SingleUse<'_>,
    now: u64,
    [replayed, forgotten]: [Cause; 2],
) -> Result<(), Cause> {
    let SingleUse { owner, token_id, signed_at, until } = single_use;
    let key = owner.key_of(token_id);
    let on_disk = RevocationKey::SigningInput(key);
    if context.revocations.contains(&on_disk) {
        return Err(replayed);
    }
    // No client may take the room that revocations need.
    if signed_at > now && !context.revocations.has_much_room() {
        return Err(Cause::ReplayGuardFull);
    }
    context.replay.spend(key, until, now).map_err(|error| match error {
        ReplayError::Forgotten => forgotten,
        ReplayError::Full => Cause::ReplayGuardFull,
        ReplayError::Used => replayed,
    })?;
    if signed_at > now {
        context.revocations.revoke(on_disk, until).await?;
    }
    Ok(())
}
