//! The token endpoint (RFC 6749, section 3.2): one decision and one token for every dialect.

use std::borrow::Cow;
use std::sync::Arc;

use crate::endpoint::Context;
use crate::issuer::{TokenId, mint_at_jwt, mint_vision};
use crate::oauth::client::{ContentType, RateLimit, TokenProfile};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::error::Cause;
use crate::oauth::grant::{Grant, GrantRequest};
use crate::signing::engine::SignError;
use crate::store::snapshot::Snapshot;

/// A request for a token, in no dialect any more.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// Who asks.
    pub credentials: Credentials<'a>,
    /// For what.
    pub grant: GrantRequest<'a>,
    /// How it is sent, where the client is registered for one way.
    pub content_type: Option<ContentType>,
    /// What its token looks like, unless the client is registered for another profile.
    pub profile: TokenProfile,
}

/// A token that was issued.
#[derive(Debug)]
pub struct Issued<'r, 's> {
    /// The buffer that was handed in, with the token appended.
    pub buffer: Vec<u8>,
    /// The granted scope.
    pub scope: Cow<'r, str>,
    /// Seconds from now to the token's end.
    pub lifetime: u32,
    /// The token's `exp`, in Unix seconds.
    pub expires_at: u64,
    /// To which client.
    pub client_id: &'s str,
}

/// A request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'s> {
    /// Why.
    pub cause: Cause,
    /// The registered client that the request names, proven or not. Never text from the request:
    /// whoever mistakes the field types a secret there.
    pub client_id: Option<&'s str>,
}

impl<C: Into<Cause>> From<C> for Refused<'_> {
    fn from(cause: C) -> Self {
        Self { cause: cause.into(), client_id: None }
    }
}

/// Authenticates the client, decides what it gets, mints and signs the token at the end of
/// `buffer`.
///
/// # Errors
///
/// [`Refused`]: nothing was issued.
pub async fn issue<'r, 's: 'r>(
    context: &Context,
    snapshot: &'s Snapshot,
    request: &TokenRequest<'r>,
    buffer: Vec<u8>,
) -> Result<Issued<'r, 's>, Refused<'s>> {
    let now = context.clock.unix_seconds();
    let registered = snapshot.clients.get(request.credentials.client_id());
    let client_id = registered.map(|client| &*client.id);
    let refused = |cause| Refused { cause, client_id };

    let client = request.credentials.verify(registered, now).map_err(refused)?;
    // Only now: nobody but the client itself can use up its budget.
    client
        .rate_limit
        .as_ref()
        .map_or(Ok(()), RateLimit::take)
        .map_err(|seconds| refused(Cause::RateLimited(seconds)))?;
    if request.content_type.is_some_and(|sent| sent != client.content_type) {
        return Err(refused(Cause::ContentTypeNotAllowed(client.content_type)));
    }
    let issuer = snapshot.issuer.as_str();
    let grant = Grant::decide(client, &request.grant, issuer).map_err(refused)?;

    let mut token_id = TokenId::default();
    context.random.fill(&mut token_id).map_err(|_| refused(Cause::NoEntropy))?;
    let key = snapshot.keys.signing_key(now).ok_or_else(|| refused(Cause::NoSigningKey))?;
    let expires_at = now + u64::from(client.token_lifetime);
    let token = match client.token_profile.unwrap_or(request.profile) {
        TokenProfile::AtJwt => mint_at_jwt(&grant, issuer, key, now, &token_id, buffer),
        TokenProfile::Vision => mint_vision(&grant, expires_at, buffer),
    }
    .map_err(|_| refused(Cause::Internal))?;
    let signed = context.engine.sign(Arc::clone(key), token).await.map_err(|error| {
        refused(match error {
            SignError::QueueFull => Cause::Overloaded,
            SignError::Failed => Cause::SigningFailed,
        })
    })?;

    Ok(Issued {
        buffer: signed.buffer,
        scope: grant.scope,
        lifetime: client.token_lifetime,
        expires_at,
        client_id: &client.id,
    })
}
