//! The token endpoint (RFC 6749, section 3.2): one decision and one token for every dialect.

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
use crate::store::revocations::RevocationKey;
use crate::store::snapshot::Snapshot;
use crate::telemetry::excerpt::named;

/// A request for a token, in no dialect any more.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// The path that was called, below the issuer.
    pub endpoint: &'a str,
    /// Who asks.
    pub credentials: Credentials<'a>,
    /// The client's certificate.
    pub certificate: &'a ShownCertificate,
    /// Its proof of possession of a key.
    pub dpop: DpopHeader<'a>,
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
    /// To what it is bound.
    pub confirmation: Confirmation,
    /// To which client.
    pub client_id: &'s str,
    /// Whether it was handed out before; `None`: the client's tokens never are.
    pub is_reused: Option<bool>,
    /// How its making went; `None`: it was made before.
    pub made: Option<Made>,
    /// How long that took, for a client that is told.
    pub phases: Option<Phases>,
    /// The same for the audit; `None`: there is none.
    pub granted: Option<Box<Granted>>,
}

/// The grant, as the audit has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Scope tokens, separated by single spaces.
    pub scope: Box<str>,
    /// For whom the token is.
    pub audience: Box<[Box<str>]>,
    /// Seconds from now to the token's end.
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

/// A token that was made for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its `jti`; `None`: tokens of its profile have none.
    pub token_id: Option<TokenId>,
    /// How long it lives, in seconds.
    pub lifetime: u32,
    /// How long each part of its making took.
    pub phases: Phases,
}

/// How long each part of a token's making took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served<'s> {
    /// The client that asked, where it is known.
    pub client_id: &'s str,
    /// Whether the token was handed out before.
    pub is_reused: bool,
    /// The token that was made for it.
    pub made: Option<Made>,
    /// The grant, if there is an audit.
    pub granted: Option<Box<Granted>>,
}

impl<'s> Served<'s> {
    /// A request of this client that made no token.
    pub fn to(client_id: &'s str) -> Self {
        Self { client_id, ..Self::default() }
    }
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'s> {
    /// Why.
    pub cause: Cause,
    /// The registered client that the request names, proven or not. Never text from the request:
    /// whoever mistakes the field types a secret there.
    pub client_id: Option<&'s str>,
    /// The part of the request that the log names: the path that was not found, the scope refused.
    pub named: Option<Box<str>>,
}

impl<C: Into<Cause>> From<C> for Refused<'_> {
    fn from(cause: C) -> Self {
        Self { cause: cause.into(), client_id: None, named: None }
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
    let parsed = Clock::instant();

    let TokenRequest { endpoint, credentials, .. } = request;
    let client = pin!(authenticate(context, snapshot, credentials, endpoint)).await?;
    let refused = |cause| Refused { cause, client_id: Some(&*client.id), named: None };
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
    let mut grant = Grant::decide(client, &request.grant, issuer).map_err(|cause| Refused {
        named: refused_scope(cause, request, client),
        ..refused(cause)
    })?;
    grant.confirmation = confirm(context, snapshot, client, request).await.map_err(refused)?;
    let confirmation = grant.confirmation;
    let decided = Clock::instant();
    let is_audited = context.audit.is_some();
    let (parse, auth) = (parsed - request.received, decided - parsed);
    let told = |phases: Phases| client.server_timing.then_some(phases);

    let key = snapshot.keys.signing_key(now).ok_or_else(|| refused(Cause::NoSigningKey))?;
    // The other profile cannot say what a token is bound to.
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
            phases: told(Phases { parse, auth, queue: Duration::ZERO, sign: Duration::ZERO }),
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
        is_reused: reuse.map(|_| false),
        made: Some(Made { token_id, lifetime, phases }),
        phases: told(phases),
        granted: is_audited.then(|| Granted::of(&grant, issuer, lifetime).into()),
        scope: grant.scope,
    })
}

/// The part of the scope that is the `cause` of a refusal, as the log names it.
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

/// A `vision` token and how long it lives, in seconds. Such a token has no id, so that all of one
/// second are the same: if one of them was revoked, the next lives a second less.
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
    // In a second it is another token.
    Err(Cause::Overloaded)
}

/// Whether a token that is about to be handed out was revoked when it was handed out before. One
/// with an id of its own cannot have been: revoking it makes its client's kept ones forgotten.
fn is_revoked(
    context: &Context,
    profile: TokenProfile,
    key: impl FnOnce() -> RevocationKey,
) -> bool {
    profile == TokenProfile::Vision
        && !context.revocations.is_empty()
        && context.revocations.contains(&key())
}

/// By how many seconds a token may be shorter than its client's are.
const MAX_SHORTENED: u32 = 15;
