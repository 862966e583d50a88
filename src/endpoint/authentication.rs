//! Is the client who it claims to be? The same question at every endpoint that asks it.

use std::pin::pin;
use std::sync::atomic::Ordering;

use crate::clock::Clock;
use crate::config::AssertionAudience;
use crate::endpoint::Context;
use crate::endpoint::metadata::TOKEN_PATH;
use crate::endpoint::single_use::{SingleUse, use_up};
use crate::endpoint::token::Refused;
use crate::oauth::client::Client;
use crate::oauth::client_assertion::{AssertionError, Expected};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_secret::ClientSecret;
use crate::oauth::error::Cause;
use crate::store::password_pool::QueueFull;
use crate::store::replay::Owner;
use crate::store::snapshot::Snapshot;

/// The registered client that `credentials` prove. `endpoint` is the path that was called, below
/// the issuer: an assertion may be made out to it.
///
/// # Errors
///
/// [`Refused`]. Whether the client is unknown or its secret wrong, the same work was done.
pub async fn authenticate<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
) -> Result<&'s Client, Refused<'s>> {
    let registered = snapshot.clients.get(credentials.client_id());
    let client_id = registered.map(|client| &*client.id);
    let refused = |cause| Refused { cause, client_id };

    let (named, source) = (credentials.client_id(), credentials.source());
    let (throttle, limits) = (&context.throttle, &snapshot.config.failures);
    // Of both looks: to take a later one for the second would only make it milder.
    let begin = Clock::instant();
    let may_try = || {
        let checked = throttle.check(named, source, limits, begin);
        checked.map_err(|seconds| refused(Cause::Throttled(seconds)))
    };
    may_try()?;
    if credentials.is_raw() {
        context.raw_pairs.fetch_add(1, Ordering::Relaxed);
    }
    let proven = pin!(prove(context, snapshot, registered, credentials, endpoint)).await;
    // Others may have failed in the meantime, and this may be one of their many guesses.
    may_try()?;
    match proven {
        Ok(client) => {
            throttle.succeeded(named, source);
            Ok(client)
        }
        Err(cause) => {
            if cause.is_a_guess() {
                throttle.failed(named, source, limits, Clock::instant());
            }
            Err(refused(cause))
        }
    }
}

/// Whether the credentials are those of `registered`, the client that they name, if there is one.
async fn prove<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    registered: Option<&'s Client>,
    credentials: &Credentials<'_>,
    endpoint: &str,
) -> Result<&'s Client, Cause> {
    let now = context.clock.unix_seconds();
    let mut secret = credentials.find_secret(registered, now);
    if let Some(given) = credentials.client_secret()
        && secret.is_none()
        && !snapshot.decoys.are_fast()
    {
        let found = find_slow_secret(context, snapshot, registered, credentials, given, now);
        secret = found.await?;
    }
    let expected = Expected {
        now,
        started_at: context.replay.started_at(),
        issuer: snapshot.issuer.as_str(),
        endpoints: match snapshot.config.assertion_audience {
            AssertionAudience::Endpoint => Some([TOKEN_PATH, endpoint]),
            AssertionAudience::Issuer => None,
        },
    };
    let verified = credentials.verify(registered, secret, &expected)?;
    if let Some(assertion) = verified.assertion {
        let single_use = SingleUse {
            owner: Owner::Client(&verified.client.id),
            token_id: assertion.token_id,
            signed_at: assertion.signed_at,
            until: assertion.until,
        };
        let unusable = [AssertionError::Replayed.into(), AssertionError::Time.into()];
        use_up(context, single_use, now, unusable).await?;
        context.assertion_audiences.count(assertion.audience.label());
    }
    if let Some(secret) = secret {
        context.secret_uses.record(verified.client, secret, now);
    }
    Ok(verified.client)
}

/// Which of the client's secrets was given, as slow hashes tell. For an unknown client as many are
/// computed as for a known one, whatever was given.
async fn find_slow_secret<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    registered: Option<&'s Client>,
    credentials: &Credentials<'_>,
    given: &str,
    now: u64,
) -> Result<Option<&'s ClientSecret>, Cause> {
    let client_id = credentials.client_id();
    let is_of = |hash| context.passwords.is_of(hash, client_id, given, &snapshot.verdicts);
    let full = |QueueFull| Cause::PasswordQueueFull;

    // For everybody, since it takes time of its own.
    let decoys = snapshot.decoys.hashes(context.passwords.keyed(client_id));
    let Some(client) = registered else {
        for hash in decoys {
            is_of(hash).await.map_err(full)?;
        }
        return Ok(None);
    };
    let mut found = None;
    for secret in &client.secrets {
        let Some(hash) = secret.hash.as_slow() else { continue };
        if is_of(hash).await.map_err(full)? {
            if secret.is_current(now) {
                return Ok(Some(secret));
            }
            found = Some(secret);
        }
    }
    Ok(found)
}
