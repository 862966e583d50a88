//! Clients that no request can get a token for: a registry may hold them, but they cannot be meant.

use crate::oauth::client::{AuthMethod, Client};
use crate::oauth::client_secret::ClientSecret;

/// Where a secret stands at `now` (Unix seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretState {
    Valid,
    NotBegun,
    Ended,
}

impl SecretState {
    pub(super) fn of(secret: &ClientSecret, now: u64) -> Self {
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

/// Why the client gets no token at `now` (Unix seconds) and what helps. `None`: it can get one, or it
/// is not meant to: it is disabled, or it only asks about the tokens of others.
pub(super) fn reason(client: &Client, now: u64) -> Option<&'static str> {
    let is_valid = |secret: &ClientSecret| SecretState::of(secret, now) == SecretState::Valid;
    reason_if(client, client.secrets.iter().any(is_valid))
}

/// The same for a client that is about to have a valid secret.
pub(super) fn reason_with_new_secret(client: &Client) -> Option<&'static str> {
    reason_if(client, true)
}

fn reason_if(client: &Client, has_valid_secret: bool) -> Option<&'static str> {
    if !client.enabled {
        return None;
    }
    let can_prove_itself = AuthMethod::ALL.into_iter().any(|method| {
        let has_what_it_needs = !AuthMethod::DEFAULT.contains(&method) || has_valid_secret;
        client.auth_methods.contains(method) && has_what_it_needs
    });
    if client.auth_methods.is_empty() {
        Some("it has no way to authenticate: set auth_methods (--method)")
    } else if !can_prove_itself && client.secrets.is_empty() {
        Some("it has no secret: `grantd client rotate-secret` adds one")
    } else if !can_prove_itself {
        Some("none of its secrets is valid now: `grantd client rotate-secret` adds one that is")
    } else if client.scopes.is_empty() && client.introspects.is_empty() {
        Some("it has no scope: add one (--scope), unless it is meant to have none (--no-scope)")
    } else {
        None
    }
}
