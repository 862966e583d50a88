//! The outcomes of a request: what was issued or served, or why the request was refused.

use std::borrow::Cow;
use std::time::Duration;

use crate::endpoint::Exchange;
use crate::issuer::TokenId;
use crate::oauth::client::Client;
use crate::oauth::confirmation::Confirmation;
use crate::oauth::error::Cause;
use crate::oauth::grant::Grant;
use crate::time::UnixTime;

/// A token that was issued.
#[derive(Debug)]
pub struct Issued<'r, 's> {
    /// The caller's buffer, with the token appended.
    pub buffer: Vec<u8>,
    /// The granted scope.
    pub scope: Cow<'r, str>,
    /// Seconds until the token expires.
    pub lifetime: u32,
    /// The token's `exp`.
    pub expires_at: UnixTime,
    /// The certificate or key that the token is bound to.
    pub confirmation: Confirmation,
    /// Whether the token was issued before.
    pub reuse: Reuse,
    /// The duration of each phase, if the client is registered for `Server-Timing`.
    pub phases: Option<Phases>,
    /// The request, for the log and the audit.
    pub served: Served<'s>,
}

/// A signed token.
pub(super) struct Token {
    pub(super) buffer: Vec<u8>,
    pub(super) expires_at: UnixTime,
    /// The token's `jti`, if it is new and its profile has one.
    pub(super) id: Option<TokenId>,
    pub(super) reuse: Reuse,
    pub(super) phases: Phases,
}

impl<'r, 's> Issued<'r, 's> {
    pub(super) fn of(
        exchange: &Exchange<'_>,
        client: &'s Client,
        grant: Grant<'r>,
        token: Token,
    ) -> Self {
        let Token { buffer, expires_at, id, reuse, phases } = token;
        let lifetime =
            u32::try_from(expires_at.since(exchange.now)).unwrap_or(client.token_lifetime);
        let issuer = exchange.snapshot.issuer.as_str();
        let is_audited = exchange.context.audit.is_some();
        let is_reused = reuse == Reuse::Reused;
        let made = (!is_reused).then_some(Made { token_id: id, lifetime, phases });
        let granted = is_audited.then(|| Granted::of(&grant, issuer, lifetime).into());
        Self {
            buffer,
            scope: grant.scope,
            lifetime,
            expires_at,
            confirmation: grant.confirmation,
            reuse,
            phases: client.server_timing.then_some(phases),
            served: Served { client_id: &client.id, is_reused, made, granted },
        }
    }
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
        let audience = match &*grant.resources {
            [] => grant.client.audiences(issuer).map(Into::into).collect(),
            resources => resources.iter().map(|resource| (*resource).into()).collect(),
        };
        Self { scope: (*grant.scope).into(), audience, lifetime }
    }
}

/// Whether a token was issued before (`token_reuse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// A new token; the client's tokens are never reused.
    Off,
    /// A new token, which may be reused.
    Fresh,
    /// A token that was issued before.
    Reused,
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

impl<'s> Refused<'s> {
    /// Describes the refusal of a request of this client.
    pub(super) fn to(client: &'s Client, cause: Cause) -> Self {
        Self { cause, client_id: Some(&client.id), named: None }
    }
}

impl<C: Into<Cause>> From<C> for Refused<'_> {
    fn from(cause: C) -> Self {
        Self { cause: cause.into(), client_id: None, named: None }
    }
}
