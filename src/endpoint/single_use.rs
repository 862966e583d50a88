//! Single use of assertions and DPoP proofs.

use crate::endpoint::Exchange;
use crate::oauth::error::Cause;
use crate::state::uses::{SingleUse, UseError};

/// Records that the value is used. If several calls for one value run at the same time, exactly one
/// succeeds.
///
/// # Errors
///
/// The caller's cause `replayed` if the value was used before. The caller's cause `unknown` if
/// it may have been used before: it was signed before the record of uses began. Another [`Cause`]
/// if the use cannot be recorded.
pub async fn use_up(
    exchange: &Exchange<'_>,
    single_use: SingleUse<'_>,
    [replayed, unknown]: [Cause; 2],
) -> Result<(), Cause> {
    exchange.context.uses.spend(single_use).await.map_err(|error| match error {
        UseError::Used => replayed,
        UseError::BeforeRecord => unknown,
        UseError::Ahead | UseError::Forgotten => Cause::ClockSetBack,
        UseError::Full => Cause::ReplayGuardFull,
        UseError::Share => Cause::ReplayGuardShare,
        UseError::NotRecorded => Cause::UseNotRecorded,
    })
}
