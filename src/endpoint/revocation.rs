//! A client gives one of its tokens up (RFC 7009).

use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::token::Refused;
use crate::endpoint::validate::signed;
use crate::oauth::client_authentication::Credentials;
use crate::oauth::error::Cause;
use crate::store::snapshot::Snapshot;

/// Makes sure that `token` is good no longer, and says which client has asked at `endpoint`. There is nothing to
/// do for one that is not good anyway (RFC 7009, section 2.2).
///
/// # Errors
///
/// [`Refused`]: the client is not who it claims to be, or the token is not its own, or it is still
/// good, since that it is not could not be written down.
pub async fn revoke<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
    token: &str,
) -> Result<&'s str, Refused<'s>> {
    let client = authenticate(context, snapshot, credentials, endpoint).await?;
    let refused = |cause| Refused { cause, client_id: Some(&*client.id), named: None };
    let now = context.clock.unix_seconds();
    let known = signed(context, snapshot, token, now).ok();
    // Not `current`: the client may be enabled again, and a token's time may only come.
    let Some(known) = known.filter(|known| known.token.claims.exp > now) else {
        return Ok(&client.id);
    };
    // "The authorization server [...] verifies whether the token was issued to the client making
    // the revocation request. If this validation fails, the request is refused and the client is
    // informed of the error" (RFC 7009, section 2.1).
    if known.client.id != client.id {
        return Err(refused(Cause::TokenNotOwn));
    }
    // First, so that it is not handed out while the disk is waited for.
    if let Some(reuse) = &client.token_reuse {
        reuse.forget();
    }
    let revoked = context.revocations.revoke(known.token.revocation_key, known.token.claims.exp);
    revoked.await.map_err(|error| refused(error.into()))?;
    Ok(&client.id)
}
