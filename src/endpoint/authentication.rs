//! Client authentication (RFC 6749, section 2.3) for every endpoint that asks who is there.

use crate::endpoint::Context;
use crate::oauth::client::Client;
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_secret::ClientSecret;
use crate::oauth::error::Cause;
use crate::store::password_pool::QueueFull;
use crate::store::snapshot::Snapshot;

/// Which client has sent `credentials`, if their claim is true at `now` (Unix seconds).
///
/// # Errors
///
/// The [`Cause`]. Whether the client is unknown or its secret wrong, the same work was done.
pub async fn authenticate<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    now: u64,
) -> Result<&'s Client, Cause> {
    let registered = snapshot.clients.get(credentials.client_id());
    let mut secret = credentials.find_secret(registered, now);
    if secret.is_none() && !snapshot.decoys.are_fast() {
        secret = find_slow_secret(context, snapshot, registered, credentials, now).await?;
    }
    let client = credentials.verify(registered, secret, now)?;
    if let Some(secret) = secret {
        context.secret_uses.record(client, secret, now);
    }
    Ok(client)
}

/// Which of the client's secrets was given, as slow hashes tell. For an unknown client as many are
/// computed as for a known one, whatever was given.
async fn find_slow_secret<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    registered: Option<&'s Client>,
    credentials: &Credentials<'_>,
    now: u64,
) -> Result<Option<&'s ClientSecret>, Cause> {
    let (client_id, given) = (credentials.client_id(), credentials.client_secret());
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
