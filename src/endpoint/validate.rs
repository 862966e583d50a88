//! Is this access token good? For resource servers, for nginx `auth_request`, and for the client
//! that holds it.

use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::token::Refused;
use crate::jose::jwt::{self, Claims};
use crate::oauth::client::Client;
use crate::oauth::client_authentication::{Authorization, Credentials};
use crate::oauth::error::Cause;
use crate::store::snapshot::Snapshot;

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

    let (claims, client) = current(context, snapshot, token)?;
    let refused = |cause| Refused { cause, client_id: Some(&*client.id) };
    if let Some(audience) = needs.audience
        && !is_for(&claims, client, audience, snapshot.issuer.as_str())
    {
        return Err(refused(Cause::TokenInvalid));
    }
    let granted = |needed: &str| claims.scope.split(' ').any(|scope| scope == needed);
    if needs.scope.is_some_and(|scope| !scope.split(' ').all(granted)) {
        return Err(refused(Cause::TokenScope));
    }
    Ok(Validated { client_id: &client.id, scope: claims.scope, expires_at: claims.exp })
}

/// Whether `token` is good and belongs to the client that asks, and which client that is.
///
/// # Errors
///
/// [`Refused`], if the client is not who it claims to be.
pub async fn own_token<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    token: &str,
) -> Result<(bool, &'s str), Refused<'s>> {
    let registered = snapshot.clients.get(credentials.client_id());
    let now = context.clock.unix_seconds();
    let client = authenticate(context, snapshot, credentials, now)
        .await
        .map_err(|cause| Refused { cause, client_id: registered.map(|client| &*client.id) })?;
    let valid = current(context, snapshot, token).is_ok_and(|(_, holder)| holder.id == client.id);
    Ok((valid, &client.id))
}

/// The claims of a token that we have signed, whose time is not over and whose client may still
/// have one.
fn current<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    token: &str,
) -> Result<(Claims, &'s Client), Cause> {
    let now = context.clock.unix_seconds();
    let claims = jwt::verify(token, &snapshot.keys, now).ok_or(Cause::TokenInvalid)?;
    let client = snapshot.clients.get(&claims.client_id).ok_or(Cause::TokenInvalid)?;
    let foreign = claims.iss.as_deref().is_some_and(|issuer| issuer != snapshot.issuer.as_str());
    if foreign || claims.cnf.is_some() || !client.enabled {
        return Err(Cause::TokenInvalid);
    }
    if claims.exp <= now {
        return Err(Cause::TokenExpired);
    }
    Ok((claims, client))
}

/// A token that names no audience is for its client's.
fn is_for(claims: &Claims, client: &Client, audience: &str, issuer: &str) -> bool {
    match &claims.aud {
        Some(named) => named.contains(audience),
        None if client.audience.is_empty() => audience == issuer,
        None => client.audience.iter().any(|one| **one == *audience),
    }
}
