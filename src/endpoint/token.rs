//! The token endpoint (RFC 6749, section 3.2): one decision and one token for every dialect.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::issuer::{TokenId, mint_at_jwt, mint_vision};
use crate::oauth::client::{ContentType, RateLimit, TokenProfile};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::error::Cause;
use crate::oauth::grant::{Grant, GrantRequest};
use crate::oauth::reuse::Kind;
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
    /// When the whole request was there.
    pub received: Instant,
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
    /// Whether it was handed out before; `None`: the client's tokens never are.
    pub is_reused: Option<bool>,
    /// How long that took, for a client that is told.
    pub phases: Option<Phases>,
}

/// How long each part of a token's making took.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Reading the request.
    pub parse: Duration,
    /// Authenticating the client and deciding the grant.
    pub auth: Duration,
    /// Minting, and waiting for a signing thread. Nothing, if the token was made before.
    pub queue: Duration,
    /// Signing. Nothing, if the token was made before.
    pub sign: Duration,
}

/// A request that was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served<'s> {
    /// The client that asked, where it is known.
    pub client_id: &'s str,
    /// Whether the token was handed out before.
    pub is_reused: bool,
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

/// Authenticates the client, decides what it gets, and puts its token at the end of `buffer`: a new
/// one, minted and signed, or one that was made before if the client may be given that.
///
/// # Errors
///
/// [`Refused`]: nothing was issued.
pub async fn issue<'r, 's: 'r>(
    context: &Context,
    snapshot: &'s Snapshot,
    request: &TokenRequest<'r>,
    mut buffer: Vec<u8>,
) -> Result<Issued<'r, 's>, Refused<'s>> {
    let now = context.clock.unix_seconds();
    let registered = snapshot.clients.get(request.credentials.client_id());
    let client_id = registered.map(|client| &*client.id);
    let refused = |cause| Refused { cause, client_id };
    let is_timed = registered.is_some_and(|client| client.server_timing);
    let parsed = is_timed.then(Clock::instant);

    let client =
        authenticate(context, snapshot, &request.credentials, now).await.map_err(refused)?;
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
    let decided = Clock::instant();
    let phases = |queue, sign| {
        parsed.map(|parsed| {
            let (parse, auth) = (parsed - request.received, decided - parsed);
            Phases { parse, auth, queue, sign }
        })
    };

    let key = snapshot.keys.signing_key(now).ok_or_else(|| refused(Cause::NoSigningKey))?;
    let profile = client.token_profile.unwrap_or(request.profile);
    let kind =
        Kind { profile, key_id: key.key_id(), scope: &grant.scope, resources: &grant.resources };
    let reuse = client.token_reuse.as_ref();
    if let Some(expires_at) = reuse.and_then(|reuse| reuse.find(&kind, now, &mut buffer)) {
        return Ok(Issued {
            buffer,
            scope: grant.scope,
            lifetime: u32::try_from(expires_at - now).unwrap_or(client.token_lifetime),
            expires_at,
            client_id: &client.id,
            is_reused: Some(true),
            phases: phases(Duration::ZERO, Duration::ZERO),
        });
    }

    let mut token_id = TokenId::default();
    context.random.fill(&mut token_id).map_err(|_| refused(Cause::NoEntropy))?;
    let expires_at = now + u64::from(client.token_lifetime);
    let begin = buffer.len();
    let token = match profile {
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
    if let Some(reuse) = reuse {
        reuse.keep(&kind, now, expires_at, &signed.buffer[begin..]);
    }

    Ok(Issued {
        buffer: signed.buffer,
        lifetime: client.token_lifetime,
        expires_at,
        client_id: &client.id,
        is_reused: reuse.map(|_| false),
        phases: phases(signed.taken - decided, signed.done - signed.taken),
        scope: grant.scope,
    })
}
