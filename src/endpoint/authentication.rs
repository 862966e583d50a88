//! Is the client who it claims to be? The same question at every endpoint that asks it.

use crate::endpoint::Context;
use crate::endpoint::metadata::TOKEN_PATH;
use crate::endpoint::token::Refused;
use crate::oauth::client::Client;
use crate::oauth::client_assertion::{AssertionError, Expected};
use crate::oauth::client_authentication::{Credentials, SingleUse};
use crate::oauth::error::Cause;
use crate::store::replay::{Owner, ReplayError};
use crate::store::snapshot::Snapshot;

/// The registered client that `credentials` prove. `endpoint` is the path that was called, below
/// the issuer: an assertion may be made out to it.
///
/// # Errors
///
/// [`Refused`].
pub fn authenticate<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
) -> Result<&'s Client, Refused<'s>> {
    let registered = snapshot.clients.get(credentials.client_id());
    let client_id = registered.map(|client| &*client.id);
    let refused = |cause| Refused { cause, client_id };

    let now = context.clock.unix_seconds();
    let expected = Expected {
        now,
        started_at: context.replay.started_at(),
        issuer: snapshot.issuer.as_str(),
        endpoints: [TOKEN_PATH, endpoint],
    };
    let verified = credentials.verify(registered, &expected).map_err(refused)?;
    if let Some(SingleUse { token_id, until }) = verified.single_use {
        let owner = Owner::Client(&verified.client.id);
        context.replay.spend(owner, token_id, until, now).map_err(|error| {
            refused(match error {
                ReplayError::Forgotten => AssertionError::Time.into(),
                ReplayError::Full => Cause::ReplayGuardFull,
                ReplayError::Used => AssertionError::Replayed.into(),
            })
        })?;
    }
    Ok(verified.client)
}
