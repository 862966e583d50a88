//! Revocation of a token by the client that it was issued to (RFC 7009).

use crate::endpoint::Exchange;
use crate::endpoint::authentication::{Purpose, authenticate};
use crate::endpoint::outcome::Refused;
use crate::endpoint::validate::signed;
use crate::oauth::client_authentication::Credentials;
use crate::oauth::error::Cause;

/// Revokes `token`, and returns the client that sent the request. A token that is invalid or has
/// expired is no error (RFC 7009, section 2.2).
///
/// # Errors
///
/// [`Refused`] if client authentication fails, if the token was issued to another client, or if the
/// revocation could not be written to disk. A refusal does not revoke the token.
pub async fn revoke<'s>(
    exchange: &Exchange<'s>,
    credentials: &Credentials<'_>,
    token: &str,
) -> Result<&'s str, Refused<'s>> {
    let registered = authenticate(exchange, credentials, Purpose::Other).await?;
    let client = &registered.client;
    let exchange = &exchange.at_present();
    let known = signed(exchange, token).ok();
    // `current` is not used here, because it also refuses tokens that may become valid later:
    // tokens of a disabled client, and tokens whose `nbf` is in the future.
    let Some(known) = known.filter(|known| known.token.claims.exp > exchange.now) else {
        return Ok(&client.id);
    };
    // "The authorization server [...] verifies whether the token was issued to the client making
    // the revocation request. If this validation fails, the request is refused and the client is
    // informed of the error" (RFC 7009, section 2.1).
    if known.client.id != client.id {
        return Err(Refused::to(client, Cause::TokenNotOwn));
    }
    // The tokens for reuse are dropped before the write to disk, so that `token` is not reused in
    // the meantime.
    if client.token_reuse.is_some() {
        registered.state(exchange.received).tokens.forget();
    }
    let (key, exp) = (known.token.revocation_key, known.token.claims.exp);
    let revoked = exchange.context.revocations.revoke(&client.id, key, exp);
    revoked.await.map_err(|error| Refused::to(client, error))?;
    Ok(&client.id)
}
