//! The token endpoint (RFC 6749, section 3.2), the same for every dialect: authenticates the
//! client, decides the grant, binds it, and reuses or mints a token.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::confirmation::confirm;
use crate::endpoint::outcome::{Granted, Issued, Made, Phases, Refused, Reuse};
use crate::form::media_type::ContentType;
use crate::issuer::{TokenId, mint_at_jwt, mint_vision};
use crate::jose::jws::SigningInput;
use crate::oauth::client::{Client, RateLimit, TokenProfile};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_certificate::ShownCertificate;
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
        && !is_revoked(context, client, profile, expires_at, || {
            RevocationKey::of(&buffer[begin..], None)
        })
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
            reuse: Reuse::Reused,
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
    if context.revocations.is_cut_off(&client.id, expires_at) {
        // A token of the next second expires after the cut-off.
        return Err(refused(Cause::Overloaded));
    }
    let signed = context.engine.sign(Arc::clone(key), token).await.map_err(|error| {
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
        reuse: if reuse.is_some() { Reuse::Fresh } else { Reuse::Off },
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
        let expires_at = now + u64::from(lifetime);
        if !is_revoked(context, grant.client, TokenProfile::Vision, expires_at, key) {
            return Ok((token, lifetime));
        }
        buffer = token.discard();
    }
    // If the client retries in the next second, a different token is minted.
    Err(Cause::Overloaded)
}

/// Whether a token that is about to be issued was issued before and then revoked, alone or with all
/// tokens of the client up to a cut-off. Alone, only a `vision` token can be: with the other
/// profile, a new token has a new `jti`, and a revocation clears the client's tokens for reuse.
fn is_revoked(
    context: &Context,
    client: &Client,
    profile: TokenProfile,
    expires_at: u64,
    key: impl FnOnce() -> RevocationKey,
) -> bool {
    if profile == TokenProfile::Vision && !context.revocations.is_empty() {
        return context.revocations.contains(&key(), &client.id, expires_at);
    }
    context.revocations.is_cut_off(&client.id, expires_at)
}

/// The maximum number of seconds by which the lifetime of a `vision` token is shortened.
const MAX_SHORTENED: u32 = 15;
