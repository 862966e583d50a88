//! The token endpoint (RFC 6749, section 3.2), the same for every dialect: authenticates the
//! client, decides the grant, binds it, and reuses or mints a token.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::confirmation::confirm;
use crate::issuer::{TokenId, mint_at_jwt, mint_vision};
use crate::jose::jws::SigningInput;
use crate::oauth::client::{Client, ContentType, RateLimit, TokenProfile};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_certificate::ShownCertificate;
use crate::oauth::confirmation::Confirmation;
use crate::oauth::dpop::DpopHeader;
use crate::oauth::error::Cause;
use crate::oauth::grant::{Grant, GrantRequest};
use crate::oauth::reuse::Kind;
use crate::oauth::scope::ScopeError;
use crate::signing::engine::SignError;
use crate::snapshot::Snapshot;
use crate::state::revocations::RevocationKey;
use crate::telemetry::excerpt::named;

/// A token request, independent of its dialect.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// The called path, relative to the issuer.
    pub endpoint: &'a str,
    /// The client authentication.
    pub credentials: Credentials<'a>,
    /// The client's certificate.
    pub certificate: &'a ShownCertificate,
    /// The client's DPoP proof.
    pub dpop: DpopHeader<'a>,
    /// The requested grant.
    pub grant: GrantRequest<'a>,
    /// The request's Content-Type; `None` in a dialect that does not compare it with the
    /// Content-Type registered for the client.
    pub content_type: Option<ContentType>,
    /// The token profile of the dialect, which the client's registration may override.
    pub profile: TokenProfile,
    /// When all of the request was read.
    pub received: Instant,
}

/// A token that was issued.
#[derive(Debug)]
pub struct Issued<'r, 's> {
    /// The caller's buffer, with the token appended.
    pub buffer: Vec<u8>,
    /// The granted scope.
    pub scope: Cow<'r, str>,
    /// Seconds until the token expires.
    pub lifetime: u32,
    /// The token's `exp`, in Unix seconds.
    pub expires_at: u64,
    /// The certificate or key that the token is bound to.
    pub confirmation: Confirmation,
    /// The client that the token was issued to.
    pub client_id: &'s str,
    /// Whether the token was issued before; `None` if the client's tokens are never reused.
    pub is_reused: Option<bool>,
    /// The new token; `None` if the token is reused.
    pub made: Option<Made>,
    /// The duration of each phase, if the client is registered for `Server-Timing`.
    pub phases: Option<Phases>,
    /// The grant, if there is an audit.
    pub granted: Option<Box<Granted>>,
}

/// The grant, as the audit records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Scope tokens, separated by single spaces.
    pub scope: Box<str>,
    /// The token's audience.
    pub audience: Box<[Box<str>]>,
    /// Seconds until the token expires.
    pub lifetime: u32,
}

impl Granted {
    fn of(grant: &Grant<'_>, issuer: &str, lifetime: u32) -> Self {
        let audience = if !grant.resources.is_empty() {
            grant.resources.iter().map(|resource| (*resource).into()).collect()
        } else if grant.client.audience.is_empty() {
            [issuer.into()].into()
        } else {
            grant.client.audience.clone()
        };
        Self { scope: (*grant.scope).into(), audience, lifetime }
    }
}

/// A new token that was minted and signed for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The token's `jti`; `None` if its profile has none.
    pub token_id: Option<TokenId>,
    /// The token's lifetime, in seconds.
    pub lifetime: u32,
    /// The duration of each phase.
    pub phases: Phases,
}

/// How long each phase of a token request took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Parsing the request.
    pub parse: Duration,
    /// Authenticating the client and deciding the grant.
    pub auth: Duration,
    /// Minting, and waiting for a signing thread. Zero if the token is reused.
    pub queue: Duration,
    /// Signing. Zero if the token is reused.
    pub sign: Duration,
}

/// A request that was served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served<'s> {
    /// The client; empty at endpoints that neither authenticate a client nor validate a token.
    pub client_id: &'s str,
    /// Whether a token was reused.
    pub is_reused: bool,
    /// The new token, if there is one.
    pub made: Option<Made>,
    /// The grant, if there is an audit.
    pub granted: Option<Box<Granted>>,
}

impl<'s> Served<'s> {
    /// Describes a served request of this client for which no token was issued.
    pub fn to(client_id: &'s str) -> Self {
        Self { client_id, ..Self::default() }
    }
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'s> {
    /// Why the request was refused.
    pub cause: Cause,
    /// The registered client that the request names, authenticated or not. Never a text from the
    /// request, because that text may be a secret in the wrong field.
    pub client_id: Option<&'s str>,
    /// The part of the request to log: the path that was not found, or the refused scope.
    pub named: Option<Box<str>>,
}

impl<C: Into<Cause>> From<C> for Refused<'_> {
    fn from(cause: C) -> Self {
        Self { cause: cause.into(), client_id: None, named: None }
    }
}

/// Authenticates the client, decides the grant, and appends a token to `buffer`. The token is a
/// reused one if the client's registration allows reuse and a kept token fits; otherwise, it is a
/// new one.
///
/// # Errors
///
/// [`Refused`] if nothing was issued.
pub async fn issue<'r, 's: 'r>(
    context: &Context,
    snapshot: &'s Snapshot,
    request: &TokenRequest<'r>,
    mut buffer: Vec<u8>,
) -> Result<Issued<'r, 's>, Refused<'s>> {
    let now = context.clock.unix_seconds();
    let parsed = Clock::instant();

    let TokenRequest { endpoint, credentials, .. } = request;
    let client = pin!(authenticate(context, snapshot, credentials, endpoint)).await?;
    let refused = |cause| Refused { cause, client_id: Some(&*client.id), named: None };
    // This check follows client authentication, so that only the client itself can exhaust its rate
    // limit.
    client
        .rate_limit
        .as_ref()
        .map_or(Ok(()), RateLimit::take)
        .map_err(|seconds| refused(Cause::RateLimited(seconds)))?;
    if request.content_type.is_some_and(|sent| sent != client.content_type) {
        return Err(refused(Cause::ContentTypeNotAllowed(client.content_type)));
    }
    let issuer = snapshot.issuer.as_str();
    let mut grant = Grant::decide(client, &request.grant, issuer).map_err(|cause| Refused {
        named: refused_scope(cause, request, client),
        ..refused(cause)
    })?;
    grant.confirmation = confirm(context, snapshot, client, request).await.map_err(refused)?;
    let confirmation = grant.confirmation;
    let decided = Clock::instant();
    let is_audited = context.audit.is_some();
    let (parse, auth) = (parsed - request.received, decided - parsed);
    let server_timing = |phases: Phases| client.server_timing.then_some(phases);

    let key = snapshot.keys.signing_key(now).ok_or_else(|| refused(Cause::NoSigningKey))?;
    // Tokens of the `vision` profile cannot be bound, so a bound token always has the profile of
    // RFC 9068.
    let profile = if confirmation.is_empty() {
        client.token_profile.unwrap_or(request.profile)
    } else {
        TokenProfile::AtJwt
    };
    let (scope, resources) = (&*grant.scope, &*grant.resources);
    let kind = Kind { profile, key_id: key.key_id(), scope, resources, confirmation };
    let reuse = client.token_reuse.as_ref();
    let begin = buffer.len();
    let found = reuse.and_then(|reuse| reuse.find(&kind, now, &mut buffer));
    if let Some(expires_at) = found
        && !is_revoked(context, profile, || RevocationKey::of(&buffer[begin..], None))
    {
        let lifetime = u32::try_from(expires_at - now).unwrap_or(client.token_lifetime);
        return Ok(Issued {
            buffer,
            granted: is_audited.then(|| Granted::of(&grant, issuer, lifetime).into()),
            scope: grant.scope,
            lifetime,
            expires_at,
            confirmation,
            client_id: &client.id,
            is_reused: Some(true),
            made: None,
            phases: server_timing(Phases {
                parse,
                auth,
                queue: Duration::ZERO,
                sign: Duration::ZERO,
            }),
        });
    }

    if !context.engine.has_room() {
        return Err(refused(Cause::Overloaded));
    }
    let mut token_id = TokenId::default();
    context.random.fill(&mut token_id).map_err(|_| refused(Cause::NoEntropy))?;
    buffer.truncate(begin);
    let (token, lifetime) = match profile {
        TokenProfile::AtJwt => mint_at_jwt(&grant, issuer, key, now, &token_id, buffer)
            .map(|token| (token, client.token_lifetime))
            .map_err(|_| Cause::Internal),
        TokenProfile::Vision => mint_unrevoked(context, &grant, now, buffer),
    }
    .map_err(refused)?;
    let expires_at = now + u64::from(lifetime);
    let signed =
        context.engine.sign(Arc::clone(key.private_key()), token).await.map_err(|error| {
            refused(match error {
                SignError::QueueFull => Cause::Overloaded,
                SignError::Failed => Cause::SigningFailed,
            })
        })?;
    if let Some(reuse) = reuse {
        reuse.keep(&kind, now, expires_at, &signed.buffer[begin..]);
    }

    let (queue, sign) = (signed.taken - decided, signed.done - signed.taken);
    let phases = Phases { parse, auth, queue, sign };
    let token_id = (profile == TokenProfile::AtJwt).then_some(token_id);
    Ok(Issued {
        buffer: signed.buffer,
        lifetime,
        expires_at,
        confirmation,
        client_id: &client.id,
        is_reused: reuse.map(|_| false),
        made: Some(Made { token_id, lifetime, phases }),
        phases: server_timing(phases),
        granted: is_audited.then(|| Granted::of(&grant, issuer, lifetime).into()),
        scope: grant.scope,
    })
}

/// Returns the part of the scope that caused a refusal, for the log.
fn refused_scope(cause: Cause, request: &TokenRequest<'_>, client: &Client) -> Option<Box<str>> {
    let Cause::Scope(why) = cause else { return None };
    let scope = request.grant.scope?;
    let refused = match why {
        ScopeError::Malformed => scope,
        ScopeError::NotAllowed => {
            scope.split(' ').find(|token| !client.scopes.contains(token)).unwrap_or(scope)
        }
    };
    Some(named(refused.as_bytes(), &request.credentials.secrets()).into())
}

/// Mints a `vision` token that is not revoked, and returns its lifetime in seconds.
///
/// A `vision` token has no `jti`, so all `vision` tokens that are minted for one grant in the same
/// second are equal, and revoking one revokes all. If the minted token equals a revoked token, the
/// lifetime is shortened by one second at a time until the token differs from all revoked tokens.
fn mint_unrevoked(
    context: &Context,
    grant: &Grant<'_>,
    now: u64,
    mut buffer: Vec<u8>,
) -> Result<(SigningInput, u32), Cause> {
    let longest = grant.client.token_lifetime;
    for lifetime in (longest.saturating_sub(MAX_SHORTENED).max(1)..=longest).rev() {
        let token = mint_vision(grant, now + u64::from(lifetime), buffer);
        let token = token.map_err(|_| Cause::Internal)?;
        let key = || RevocationKey::of_signing_input(token.as_bytes());
        if !is_revoked(context, TokenProfile::Vision, key) {
            return Ok((token, lifetime));
        }
        buffer = token.discard();
    }
    // If the client retries in the next second, a different token is minted.
    Err(Cause::Overloaded)
}

/// Whether a token that is about to be issued was issued before and then revoked. That is possible
/// only for a `vision` token. With the other profile, a new token has a new `jti`, and a reused
/// token cannot have been revoked: a revocation clears the client's tokens for reuse.
fn is_revoked(
    context: &Context,
    profile: TokenProfile,
    key: impl FnOnce() -> RevocationKey,
) -> bool {
    profile == TokenProfile::Vision
        && !context.revocations.is_empty()
        && context.revocations.contains(&key())
}

/// The maximum number of seconds by which the lifetime of a `vision` token is shortened.
const MAX_SHORTENED: u32 = 15;
