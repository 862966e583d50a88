//! Validation of access tokens: for nginx's `auth_request`, for introspection and revocation, and
//! for a client that asks about its own token.

use std::sync::Arc;

use crate::endpoint::Exchange;
use crate::endpoint::authentication::{Purpose, authenticate};
use crate::endpoint::outcome::Refused;
use crate::keys::jwt::Claims;
use crate::oauth::client::Client;
use crate::oauth::client_authentication::Credentials;
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;
use crate::state::verified_tokens::VerifiedToken;
use crate::time::UnixTime;

/// The scope and the audience that a resource requires of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Scope tokens, separated by spaces, all of which must have been granted.
    pub scope: Option<&'a str>,
    /// The audience that the token must have.
    pub audience: Option<&'a str>,
}

/// A valid token.
#[derive(Debug)]
pub struct Validated<'s> {
    /// The client that the token was issued to.
    pub client_id: &'s str,
    /// The granted scope.
    pub scope: String,
    /// The token's `exp`.
    pub expires_at: UnixTime,
}

/// Validates the bearer token in an `Authorization` header (RFC 6750, section 2.1).
///
/// # Errors
///
/// [`Refused`]. Its cause determines the `WWW-Authenticate` challenge.
pub fn bearer<'s>(
    exchange: &Exchange<'s>,
    authorization: HeaderField<'_>,
    needs: Needs<'_>,
) -> Result<Validated<'s>, Refused<'s>> {
    let header = match authorization {
        HeaderField::Absent => return Err(Cause::TokenMissing.into()),
        HeaderField::Repeated => return Err(Cause::TokenInvalid.into()),
        HeaderField::Present(header) => header,
    };
    let header = std::str::from_utf8(header).map_err(|_| Cause::TokenInvalid)?;
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Cause::BearerMissing.into());
    }

    require_fresh(exchange)?;
    let current = unbound(exchange, token)?;
    let refused = |cause| Refused::to(current.client, cause);
    if let Some(audience) = needs.audience
        && !current.is_for(audience, exchange.snapshot.issuer.as_str())
    {
        return Err(refused(Cause::TokenInvalid));
    }
    let claims = &current.token.claims;
    let granted = |needed: &str| claims.scope.split(' ').any(|scope| scope == needed);
    if needs.scope.is_some_and(|scope| !scope.split_ascii_whitespace().all(granted)) {
        return Err(refused(Cause::TokenScope));
    }
    Ok(Validated {
        client_id: &current.client.id,
        scope: claims.scope.clone(),
        expires_at: claims.exp,
    })
}

/// Authenticates the client that sent the request. Returns two values: whether `token` is a valid
/// bearer token that was issued to this client, and the client's id.
///
/// # Errors
///
/// [`Refused`] if client authentication fails, or if the server must not vouch for a token at
/// present.
pub async fn own_token<'s>(
    exchange: &Exchange<'s>,
    credentials: &Credentials<'_>,
    token: &str,
) -> Result<(bool, &'s str), Refused<'s>> {
    let client = &authenticate(exchange, credentials, Purpose::Other).await?.client;
    let exchange = &exchange.at_present();
    require_fresh(exchange).map_err(|cause| Refused::to(client, cause))?;
    let valid = unbound(exchange, token).is_ok_and(|own| own.client.id == client.id);
    Ok((valid, &client.id))
}

/// Refuses to vouch for a token while revocations may be unknown here.
pub(super) fn require_fresh(exchange: &Exchange<'_>) -> Result<(), Cause> {
    if exchange.context.is_stale() { Err(Cause::StoreStale) } else { Ok(()) }
}

/// A token with a valid signature by a key of the issuer, and the client that it was issued to.
pub(super) struct Signed<'s> {
    pub(super) token: Arc<VerifiedToken>,
    pub(super) client: &'s Client,
    /// When the token was issued. If the token has no `iat`, this is the `exp` minus the longest
    /// lifetime with which it may have been issued.
    pub(super) issued_at: UnixTime,
}

impl Signed<'_> {
    /// Whether the token has this `audience`. A token without an `aud` counts as having the
    /// audiences registered for its client or, if none are registered, the issuer.
    pub(super) fn is_for(&self, audience: &str, issuer: &str) -> bool {
        match &self.token.claims.aud {
            Some(named) => named.contains(audience),
            None => self.client.audiences(issuer).any(|one| one == audience),
        }
    }
}

/// Verifies the token's signature, issuer and client. Does not check its time or whether it is
/// revoked.
pub(super) fn signed<'s>(exchange: &Exchange<'s>, token: &str) -> Result<Signed<'s>, Cause> {
    let Exchange { context, snapshot, now, .. } = *exchange;
    let token = context.verified.verify(token, &snapshot.keys, context.key_time(snapshot, now));
    let token = token.ok_or(Cause::TokenInvalid)?;
    let Claims { client_id, iss, iat, exp, .. } = &token.claims;
    let client = snapshot.clients.get(client_id).ok_or(Cause::TokenInvalid)?;
    if iss.as_deref().is_some_and(|issuer| issuer != snapshot.issuer.as_str()) {
        return Err(Cause::TokenInvalid);
    }
    let issued_at = iat.unwrap_or_else(|| {
        *exp - snapshot.lifetimes.longest(client_id, client.token_lifetime, *exp)
    });
    Ok(Signed { token, client, issued_at })
}

/// Verifies that the token is [`signed`] and valid now: between its `nbf` and its `exp`, not
/// revoked, and issued to a client that is enabled.
pub(super) fn current<'s>(exchange: &Exchange<'s>, token: &str) -> Result<Signed<'s>, Cause> {
    let Exchange { context, now, .. } = *exchange;
    let signed = signed(exchange, token)?;
    let claims = &signed.token.claims;
    if !signed.client.enabled || claims.nbf.is_some_and(|begin| begin > now) {
        return Err(Cause::TokenInvalid);
    }
    if claims.exp <= now {
        return Err(Cause::TokenExpired);
    }
    if signed.issued_at < signed.client.not_before
        || context.revocations.contains(&signed.token.revocation_key, &signed.client.id, claims.exp)
    {
        return Err(Cause::TokenRevoked);
    }
    Ok(signed)
}

/// Verifies that the token is [`current`] and is a bearer token, that is, not bound to a key or a
/// certificate (RFC 7800).
fn unbound<'s>(exchange: &Exchange<'s>, token: &str) -> Result<Signed<'s>, Cause> {
    let current = current(exchange, token)?;
    if current.token.claims.cnf.is_some() { Err(Cause::TokenInvalid) } else { Ok(current) }
}
