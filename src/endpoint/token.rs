//! The token endpoint (RFC 6749, section 3.2), the same for every dialect: authenticates the
//! client, decides the grant, binds it, and reuses or mints a token.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Exchange;
use crate::endpoint::authentication::{Purpose, authenticate};
use crate::endpoint::confirmation::confirm;
use crate::endpoint::outcome::{Issued, Phases, Refused, Reuse, Token};
use crate::form::media_type::ContentType;
use crate::issuer::{TokenId, mint_at_jwt, mint_vision};
use crate::jose::jws::SigningInput;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client::{Client, TokenProfile};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_certificate::ShownCertificate;
use crate::oauth::error::Cause;
use crate::oauth::grant::{Grant, GrantRequest};
use crate::oauth::header_field::HeaderField;
use crate::oauth::scope::ScopeError;
use crate::registry::registered::Registered;
use crate::signing::engine::SignError;
use crate::state::revocations::RevocationKey;
use crate::state::token_reuse::{Kind, Reusable};
use crate::telemetry::excerpt::named;
use crate::time::UnixTime;

/// A token request, independent of its dialect.
pub struct TokenRequest<'a> {
    /// The client authentication.
    pub credentials: Credentials<'a>,
    /// The client's certificate.
    pub certificate: &'a ShownCertificate,
    /// The client's DPoP proof.
    pub dpop: HeaderField<'a>,
    /// The HTTP method of the request, which a DPoP proof must name.
    pub method: &'static str,
    /// The requested grant.
    pub grant: GrantRequest<'a>,
    /// The request's Content-Type; `None` in a dialect that does not compare it with the
    /// Content-Type registered for the client.
    pub content_type: Option<ContentType>,
    /// The token profile of the dialect, which the client's registration may override.
    pub profile: TokenProfile,
}

/// Authenticates the client, decides the grant, and appends a token to `buffer`. The token is a
/// reused one if the client's registration allows reuse and a kept token fits; otherwise, it is a
/// new one.
///
/// # Errors
///
/// [`Refused`] if nothing was issued.
pub async fn issue<'r, 's: 'r>(
    exchange: &Exchange<'s>,
    request: &TokenRequest<'r>,
    mut buffer: Vec<u8>,
) -> Result<Issued<'r, 's>, Refused<'s>> {
    let Exchange { context, snapshot, .. } = *exchange;
    let parsed = context.clock.instant();
    let authenticated = authenticate(exchange, &request.credentials, Purpose::Token);
    let registered = pin!(authenticated).await?;
    let client = &registered.client;
    let refused = |cause| Refused::to(client, cause);
    let mut grant = decide(exchange, client, request)?;
    let confirmed = confirm(exchange, client, request.certificate, request.dpop, request.method);
    grant.confirmation = pin!(confirmed).await.map_err(refused)?;
    let exchange = &exchange.at_present();
    let decided = context.clock.instant();
    let (parse, auth) = (parsed - exchange.received, decided - parsed);

    let key = snapshot.keys.signing_key(exchange.key_time());
    let key = key.ok_or_else(|| refused(Cause::NoSigningKey))?;
    let kind = kind_of(exchange, &grant, request.profile, key);
    if let Some(expires_at) = find_reusable(exchange, registered, &kind, &mut buffer) {
        let phases = Phases { parse, auth, queue: Duration::ZERO, sign: Duration::ZERO };
        let token = Token { buffer, expires_at, id: None, reuse: Reuse::Reused, phases };
        return Ok(Issued::of(exchange, client, grant, token));
    }
    let begin = buffer.len();
    let Unsigned { input, id, expires_at } =
        mint(exchange, &grant, kind.profile, key, buffer).map_err(refused)?;
    let signed = pin!(context.engine.sign(Arc::clone(&key.private_key), input));
    let signed = signed.await.map_err(|error| match error {
        SignError::QueueFull => refused(Cause::Overloaded),
        SignError::Failed => refused(Cause::SigningFailed),
    })?;
    let reuse = keep(exchange, registered, &kind, (id, expires_at), &signed.buffer[begin..]);
    let (queue, sign) = (signed.taken - decided, signed.done - signed.taken);
    let phases = Phases { parse, auth, queue, sign };
    let token = Token { buffer: signed.buffer, expires_at, id, reuse, phases };
    Ok(Issued::of(exchange, client, grant, token))
}

/// Decides the grant of `client`, which is not bound to a certificate or key yet.
fn decide<'r, 's: 'r>(
    exchange: &Exchange<'s>,
    client: &'s Client,
    request: &TokenRequest<'r>,
) -> Result<Grant<'r>, Refused<'s>> {
    if request.content_type.is_some_and(|sent| sent != client.content_type) {
        return Err(Refused::to(client, Cause::ContentTypeNotAllowed(client.content_type)));
    }
    let issuer = exchange.snapshot.issuer.as_str();
    Grant::decide(client, &request.grant, issuer).map_err(|cause| Refused {
        named: refused_scope(cause, request, client),
        ..Refused::to(client, cause)
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

/// Returns the kind of the token for `grant`. `profile` is the profile of the dialect. Tokens of the
/// `vision` profile cannot be bound, so a bound token always has the profile of RFC 9068.
fn kind_of<'g>(
    exchange: &Exchange<'g>,
    grant: &'g Grant<'_>,
    profile: TokenProfile,
    key: &'g SigningKey,
) -> Kind<'g> {
    let Grant { client, scope, resources, confirmation } = grant;
    let is_bound = !confirmation.is_empty();
    let profile = client.token_profile.unwrap_or(profile);
    Kind {
        issuer: exchange.snapshot.issuer.as_str(),
        profile: if is_bound { TokenProfile::AtJwt } else { profile },
        key_id: key.key_id(),
        scope,
        resources,
        confirmation: *confirmation,
    }
}

/// Appends a kept token of this kind to `buffer`, and returns when the token expires. `None` if
/// there is no such token.
fn find_reusable(
    exchange: &Exchange<'_>,
    registered: &Registered,
    kind: &Kind<'_>,
    buffer: &mut Vec<u8>,
) -> Option<UnixTime> {
    registered.client.token_reuse?;
    let begin = buffer.len();
    let tokens = &registered.state(exchange.received).tokens;
    let Reusable { expires_at, revocation_key } = tokens.find(kind, exchange.now, buffer)?;
    if is_revoked(exchange, &registered.client.id, expires_at, || revocation_key) {
        buffer.truncate(begin);
        return None;
    }
    Some(expires_at)
}

/// Keeps a new token if the client's tokens are reused. The token is given with its `jti` and with
/// the time at which it expires.
fn keep(
    exchange: &Exchange<'_>,
    registered: &Registered,
    kind: &Kind<'_>,
    (id, expires_at): (Option<TokenId>, UnixTime),
    token: &[u8],
) -> Reuse {
    let client = &registered.client;
    if client.token_reuse.is_none() {
        return Reuse::Off;
    }
    let revocation_key = id.map_or_else(|| RevocationKey::of(token, None), RevocationKey::TokenId);
    let tokens = &registered.state(exchange.received).tokens;
    tokens.keep(client, kind, exchange.now, Reusable { expires_at, revocation_key }, token);
    Reuse::Fresh
}

/// A token without its signature.
struct Unsigned {
    input: SigningInput,
    id: Option<TokenId>,
    expires_at: UnixTime,
}

/// Mints a token after the text in `buffer`.
fn mint(
    exchange: &Exchange<'_>,
    grant: &Grant<'_>,
    profile: TokenProfile,
    key: &SigningKey,
    buffer: Vec<u8>,
) -> Result<Unsigned, Cause> {
    let Exchange { context, snapshot, now, .. } = *exchange;
    if !context.engine.has_room() {
        return Err(Cause::Overloaded);
    }
    let expires_at = now + u64::from(grant.client.token_lifetime);
    let cut_off = context.revocations.cut_off(&grant.client.id);
    if cut_off >= expires_at {
        let wait = u32::try_from(cut_off.since(expires_at)).unwrap_or(u32::MAX);
        return Err(Cause::CutOff(wait.saturating_add(1)));
    }
    let mut id = TokenId::default();
    context.random.fill(&mut id).map_err(|_| Cause::NoEntropy)?;
    if profile == TokenProfile::Vision {
        return mint_unrevoked(exchange, grant, buffer);
    }
    let input = mint_at_jwt(grant, snapshot.issuer.as_str(), key, now, &id, buffer);
    Ok(Unsigned { input: input.map_err(|_| Cause::Internal)?, id: Some(id), expires_at })
}

/// Mints a `vision` token that is not revoked.
///
/// A `vision` token has no `jti`, so all `vision` tokens that are minted for one grant in the same
/// second are equal, and revoking one revokes all. If the minted token equals a revoked token, the
/// lifetime is shortened by one second at a time until the token differs from all revoked tokens.
fn mint_unrevoked(
    exchange: &Exchange<'_>,
    grant: &Grant<'_>,
    mut buffer: Vec<u8>,
) -> Result<Unsigned, Cause> {
    let longest = grant.client.token_lifetime;
    for lifetime in (longest.saturating_sub(MAX_SHORTENED).max(1)..=longest).rev() {
        let expires_at = exchange.now + u64::from(lifetime);
        let input = mint_vision(grant, expires_at, buffer).map_err(|_| Cause::Internal)?;
        let key = || RevocationKey::of_signing_input(input.as_bytes());
        if !is_revoked(exchange, &grant.client.id, expires_at, key) {
            return Ok(Unsigned { input, id: None, expires_at });
        }
        buffer = input.discard();
    }
    // If the client retries in the next second, a different token is minted.
    Err(Cause::Overloaded)
}

/// Whether a token that is about to be issued was issued before and then revoked, in any process, or
/// is revoked with all tokens of the client up to a cut-off.
fn is_revoked(
    exchange: &Exchange<'_>,
    client_id: &str,
    expires_at: UnixTime,
    key: impl FnOnce() -> RevocationKey,
) -> bool {
    let revocations = &exchange.context.revocations;
    !revocations.is_empty() && revocations.contains(&key(), client_id, expires_at)
}

/// The maximum number of seconds by which the lifetime of a `vision` token is shortened.
const MAX_SHORTENED: u32 = 15;
