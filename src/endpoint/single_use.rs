//! Single use of assertions and DPoP proofs.

use crate::endpoint::Exchange;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::state::uses::{Owner, SingleUse, UseError};

/// Records that the value is used. If several calls for one value run at the same time, exactly one
/// succeeds.
///
/// # Errors
///
/// A [`Cause`]. It is an [`AssertionError`] or a [`DpopError`] if the value was used before, or may
/// have been, because it was signed before the record of uses began.
pub async fn use_up(exchange: &Exchange<'_>, single_use: SingleUse<'_>) -> Result<(), Cause> {
    let owner = single_use.owner;
    exchange.context.uses.spend(single_use).await.map_err(|error| match (error, owner) {
        (UseError::Used, Owner::Client) => Cause::Assertion(AssertionError::Replayed),
        (UseError::Used, Owner::Key(_)) => Cause::Dpop(DpopError::Replayed),
        (UseError::BeforeRecord, Owner::Client) => Cause::Assertion(AssertionError::BeforeRecord),
        (UseError::BeforeRecord, Owner::Key(_)) => Cause::Dpop(DpopError::Time),
        (UseError::Ahead | UseError::Forgotten, _) => Cause::ClockSetBack,
        (UseError::Full, _) => Cause::ReplayGuardFull,
        (UseError::Share, _) => Cause::ReplayGuardShare,
        (UseError::NotRecorded, _) => Cause::UseNotRecorded,
    })
}
