//! Is this access token good? For resource servers, for nginx `auth_request`, and for the client
//! that holds it.

use std::sync::Arc;

use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::token::Refused;
use crate::jose::jwt::Claims;
use crate::oauth::client::Client;
use crate::oauth::client_authentication::{Authorization, Credentials};
use crate::oauth::error::Cause;
use crate::store::snapshot::Snapshot;
use crate::store::verified_tokens::VerifiedToken;

/// What a resource needs of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Scope tokens, separated by spaces; all of them must have been granted.
    pub scope: Option<&'a str>,
    /// Who the token must be for.
    pub audience: Option<&'a str>,
}

/// A token that is good.
#[derive(Debug)]
pub struct Validated<'s> {
    /// To whom it was issued.
    pub client_id: &'s str,
    /// What it grants.
    pub scope: String,
    /// Its end, in Unix seconds.
    pub expires_at: u64,
}

/// Looks at the bearer token of a request (RFC 6750, section 2.1).
///
/// # Errors
///
/// [`Refused`], with the cause that decides about the challenge.
pub fn bearer<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    authorization: Authorization<'_>,
    needs: Needs<'_>,
) -> Result<Validated<'s>, Refused<'s>> {
    let header = match authorization {
        Authorization::Absent => return Err(Cause::TokenMissing.into()),
        Authorization::Repeated => return Err(Cause::TokenInvalid.into()),
        Authorization::Present(header) => header,
    };
    let header = std::str::from_utf8(header).map_err(|_| Cause::TokenInvalid)?;
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Cause::BearerMissing.into());
    }

    let current = unbound(context, snapshot, token)?;
    let refused = |cause| Refused { cause, client_id: Some(&*current.client.id), named: None };
    if let Some(audience) = needs.audience
        && !current.is_for(audience, snapshot.issuer.as_str())
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

/// Whether `token` is good and belongs to the client that asks at `endpoint`, and which client that
/// is.
///
/// # Errors
///
/// [`Refused`], if the client is not who it claims to be.
pub async fn own_token<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
    token: &str,
) -> Result<(bool, &'s str), Refused<'s>> {
    let client = authenticate(context, snapshot, credentials, endpoint).await?;
    let valid = unbound(context, snapshot, token).is_ok_and(|own| own.client.id == client.id);
    Ok((valid, &client.id))
}

/// A token that we have signed, and the client that it was issued to.
pub(super) struct Signed<'s> {
    pub(super) token: Arc<VerifiedToken>,
    pub(super) client: &'s Client,
}

impl Signed<'_> {
    /// When it was issued, in Unix seconds. One that does not say was issued a lifetime before its
    /// end, as far as anybody knows.
    pub(super) fn issued_at(&self) -> u64 {
        let Claims { iat, exp, .. } = self.token.claims;
        iat.unwrap_or_else(|| exp.saturating_sub(self.client.token_lifetime.into()))
    }

    /// Whether it is for `audience`. One that names nobody is for its client's.
    pub(super) fn is_for(&self, audience: &str, issuer: &str) -> bool {
        match &self.token.claims.aud {
            Some(named) => named.contains(audience),
            None if self.client.audience.is_empty() => audience == issuer,
            None => self.client.audience.iter().any(|one| **one == *audience),
        }
    }
}

/// The token, if a published key of ours has signed it in our name for a client that is registered.
/// Whether it is still good, or good already, is not looked at.
pub(super) fn signed<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    token: &str,
    now: u64,
) -> Result<Signed<'s>, Cause> {
    let token = context.verified.verify(token, &snapshot.keys, now).ok_or(Cause::TokenInvalid)?;
    let Claims { client_id, iss, .. } = &token.claims;
    let client = snapshot.clients.get(client_id).ok_or(Cause::TokenInvalid)?;
    if iss.as_deref().is_some_and(|issuer| issuer != snapshot.issuer.as_str()) {
        return Err(Cause::TokenInvalid);
    }
    Ok(Signed { token, client })
}

/// The token, if it is good: [`signed`], in its time, not revoked, of a client that may still have
/// one.
pub(super) fn current<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    token: &str,
) -> Result<Signed<'s>, Cause> {
    let now = context.clock.unix_seconds();
    let signed = signed(context, snapshot, token, now)?;
    let claims = &signed.token.claims;
    if !signed.client.enabled || claims.nbf.is_some_and(|begin| begin > now) {
        return Err(Cause::TokenInvalid);
    }
    if claims.exp <= now {
        return Err(Cause::TokenExpired);
    }
    if signed.issued_at() < signed.client.not_before
        || context.revocations.contains(&signed.token.revocation_key)
    {
        return Err(Cause::TokenRevoked);
    }
    Ok(signed)
}

/// The token, if it is good by itself: one that is bound to a key or certificate is no bearer token
/// (RFC 7800).
fn unbound<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    token: &str,
) -> Result<Signed<'s>, Cause> {
    let current = current(context, snapshot, token)?;
    if current.token.claims.cnf.is_some() { Err(Cause::TokenInvalid) } else { Ok(current) }
}
