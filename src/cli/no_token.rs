//! Finds clients that cannot get a token. The registry entry of such a client is valid, but
//! probably contains a mistake.

use crate::oauth::client::{AuthMethod, Client};
use crate::oauth::client_secret::ClientSecret;
use crate::time::UnixTime;

/// The state of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretState {
    Valid,
    NotBegun,
    Ended,
}

impl SecretState {
    /// Returns the state of `secret` at `now`.
    pub(super) fn of(secret: &ClientSecret, now: UnixTime) -> Self {
        if secret.expires_at.is_some_and(|end| end <= now) {
            Self::Ended
        } else if secret.not_before.is_some_and(|begin| now < begin) {
            Self::NotBegun
        } else {
            Self::Valid
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotBegun => "not_begun",
            Self::Ended => "ended",
        }
    }
}

/// Returns why the client can get no token at `now`, and what to do about it. `None` if the client
/// can get tokens, is disabled, or has no scope because it only introspects tokens.
pub(super) fn reason(client: &Client, now: UnixTime) -> Option<&'static str> {
    let is_valid = |secret: &ClientSecret| SecretState::of(secret, now) == SecretState::Valid;
    reason_if(client, client.secrets.iter().any(is_valid))
}

/// Like [`reason`], for a client that has a valid secret or not.
pub(super) fn reason_if(client: &Client, has_valid_secret: bool) -> Option<&'static str> {
    if !client.enabled {
        return None;
    }
    let can_prove_itself = AuthMethod::ALL.into_iter().any(|method| {
        let has_what_it_needs = !AuthMethod::DEFAULT.contains(&method) || has_valid_secret;
        client.auth_methods.contains(method) && has_what_it_needs
    });
    if client.auth_methods.is_empty() {
        Some("it has no authentication method: set auth_methods (--method)")
    } else if !can_prove_itself && client.secrets.is_empty() {
        Some("it has no secret: `grantd client rotate-secret` adds one")
    } else if !can_prove_itself {
        Some("none of its secrets is valid now: `grantd client rotate-secret` adds one that is")
    } else if client.scopes.is_empty() && client.introspects.is_empty() {
        Some(
            "it has no scope: add one (--scope), unless it is not meant to get tokens (--no-scope)",
        )
    } else {
        None
    }
}
