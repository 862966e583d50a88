//! Client authentication, the same at every endpoint that requires it. An attempt is refused if its
//! failure budgets are exhausted, and an unknown client costs the same work as a known one.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::clock::Clock;
use crate::config::AssertionAudience;
use crate::endpoint::Context;
use crate::endpoint::metadata::TOKEN_PATH;
use crate::endpoint::outcome::Refused;
use crate::endpoint::single_use::use_up;
use crate::guard::password_pool::{Comparison, Turn};
use crate::guard::throttle::Attempt;
use crate::oauth::client::Client;
use crate::oauth::client_assertion::{AssertionError, Expected};
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_secret::{ClientSecret, FastHash, is_demo_secret};
use crate::oauth::decoy::Kind;
use crate::oauth::error::Cause;
use crate::oauth::password_hash::PasswordHash;
use crate::snapshot::Snapshot;
use crate::state::uses::{Owner, SingleUse};

/// Authenticates the client that `credentials` name, and returns its registration. `endpoint` is
/// the called path, relative to the issuer. With
/// [`AssertionAudience::Endpoint`](crate::config::AssertionAudience::Endpoint), an assertion may
/// have the URL of this path as the audience.
///
/// # Errors
///
/// [`Refused`]. The work for a refusal is the same whether the client is unknown or the secret is
/// wrong.
pub async fn authenticate<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
) -> Result<&'s Client, Refused<'s>> {
    let begin = |credentials| Try::begin(context, snapshot, credentials, endpoint);
    let Some(raw) = credentials.raw_reading() else {
        let mut only = begin(credentials)?;
        let verified = pin!(only.claim.verify(context, &mut only.attempt)).await;
        return only.settle(verified);
    };
    // This future is boxed. Unboxed, it would enlarge the future of every request, although few
    // requests have two readings.
    Box::pin(verify_either(context, begin(credentials), begin(raw))).await
}

/// Authenticates a client by HTTP Basic credentials that can be read in two ways: form-decoded
/// (`decoded`) or as sent (`raw`). The caller has found that the two readings differ.
async fn verify_either<'s>(
    context: &Context,
    decoded: Result<Try<'_, 's>, Refused<'s>>,
    raw: Result<Try<'_, 's>, Refused<'s>>,
) -> Result<&'s Client, Refused<'s>> {
    let (mut only, throttled) = match (decoded, raw) {
        (Ok(decoded), Ok(raw)) => {
            let is_raw_cached = raw.claim.is_cached(context);
            let tries = if is_raw_cached { [raw, decoded] } else { [decoded, raw] };
            return verify_in_turn(tries).await;
        }
        (Ok(only), Err(throttled)) | (Err(throttled), Ok(only)) => (only, throttled),
        (Err(throttled), Err(_)) => return Err(throttled),
    };
    // The readings name different clients, and the budget of one of these clients is exhausted.
    // Only the reading that names the other client is tried.
    let verified = only.verify().await;
    only.settle(verified).map_err(|_wrong| throttled)
}

/// Tries two readings of the same client id and secret in turn. Each attempt is charged to the
/// client that the reading names.
///
/// If the second reading is right, the charge for the first reading is refunded, unless the first
/// reading names another registered client. Without this exception, an attacker with a client of
/// its own could guess the secrets of another client without charge. The attacker would send pairs
/// whose second reading is the id and secret of its own client.
async fn verify_in_turn<'s>(
    [mut first, mut second]: [Try<'_, 's>; 2],
) -> Result<&'s Client, Refused<'s>> {
    let cause = match first.verify().await {
        Err(cause) if cause.retry_after().is_none() => cause,
        // Either the first reading is right, or it was refused because a budget or the capacity is
        // exhausted. After such a refusal, trying the second reading would only add load.
        verified => return first.settle(verified),
    };
    let wrong = first.refused(cause);
    let now = Clock::instant();
    first.attempt.take(now).map_err(|seconds| first.refused(Cause::Throttled(seconds)))?;
    let verified = second.verify().await;
    match second.settle(verified) {
        Ok(client) => {
            if first.claim.registered.is_none_or(|named| named.id == client.id) {
                // This cannot fail, because the attempt was charged above.
                let _ = first.attempt.was_no_guess(Clock::instant());
            }
            Ok(client)
        }
        // Both readings were refused. If only the second reading names a registered client, report
        // the refusal of the second reading; otherwise, report the refusal of the first reading.
        Err(Refused { cause: Cause::UnknownClient | Cause::WrongSecret, client_id, .. })
            if wrong.client_id.is_some() || client_id.is_none() =>
        {
            Err(wrong)
        }
        refused => refused,
    }
}

/// One attempt at client authentication: the claim and its charge to the failure budgets.
struct Try<'c, 's> {
    context: &'c Context,
    claim: Presented<'c, 's>,
    attempt: Attempt<'c>,
    begin: Instant,
}

impl<'c, 's> Try<'c, 's> {
    /// Begins an attempt if the failure budgets are not exhausted. Verifies nothing yet.
    fn begin(
        context: &'c Context,
        snapshot: &'s Snapshot,
        credentials: &'c Credentials<'c>,
        endpoint: &'c str,
    ) -> Result<Self, Refused<'s>> {
        let client_id = credentials.client_id();
        let registered = snapshot.clients.get(client_id);
        let decoy =
            registered.is_none().then(|| snapshot.decoys.kind(&context.decoy_key, client_id));
        let is_guessable =
            registered.map_or_else(|| decoy.is_some_and(Kind::is_guessable), Client::is_guessable);
        let (network, limits) = (credentials.network(), &snapshot.config.live.failures);
        let claim = Presented { snapshot, credentials, registered, decoy, endpoint };
        // Until the attempt is charged, `begin` is used as the current time, so that the clock need
        // not be read again. The budgets refill with time, so a check that uses this earlier time
        // never overestimates a budget.
        let begin = Clock::instant();
        let is_active = registered.is_some_and(|client| client.enabled);
        let throttle = &context.throttle;
        let attempt = throttle.begin(client_id, network, is_guessable, is_active, limits, begin);
        match attempt {
            Ok(attempt) => Ok(Self { context, claim, attempt, begin }),
            Err(seconds) => Err(claim.refused(context, Cause::Throttled(seconds))),
        }
    }

    async fn verify(&mut self) -> Result<&'s Client, Cause> {
        pin!(self.claim.verify(self.context, &mut self.attempt)).await
    }

    /// Ends the attempt. Depending on the result `verified`, the attempt keeps its charge, is
    /// charged now, or gets its charge back.
    fn settle(self, verified: Result<&'s Client, Cause>) -> Result<&'s Client, Refused<'s>> {
        let Self { context, claim, attempt, begin } = self;
        let now = if attempt.has_paid() { Clock::instant() } else { begin };
        let charged = match verified {
            Ok(_) => attempt.was_right(now),
            // The budget was exhausted, so there was no charge.
            Err(Cause::Throttled(_)) => Ok(()),
            Err(cause) if cause.costs_no_attempt() => attempt.was_no_guess(now),
            Err(_) => attempt.was_wrong(now),
        };
        charged.map_err(|seconds| claim.refused(context, Cause::Throttled(seconds)))?;
        if verified.is_ok() && claim.credentials.is_raw() {
            context.raw_pairs.fetch_add(1, Ordering::Relaxed);
        }
        verified.map_err(|cause| claim.refused(context, cause))
    }

    fn refused(&self, cause: Cause) -> Refused<'s> {
        self.claim.refused(self.context, cause)
    }
}

/// The client id that a request presents, and the data needed to authenticate the client.
struct Presented<'c, 's> {
    snapshot: &'s Snapshot,
    credentials: &'c Credentials<'c>,
    /// The client that is registered under the claimed id; `None` if there is no such client.
    registered: Option<&'s Client>,
    /// For an id that is not registered: the kind of client whose authentication cost is imitated.
    decoy: Option<&'s Kind>,
    /// The called path, relative to the issuer.
    endpoint: &'c str,
}

impl<'s> Presented<'_, 's> {
    fn refused(&self, context: &Context, cause: Cause) -> Refused<'s> {
        if self.registered.is_some() {
            // `begin` has already chosen a decoy for an unknown id. Here a decoy is chosen for a
            // known id too, so that the refusal takes the same time.
            black_box(self.snapshot.decoys.kind(&context.decoy_key, self.credentials.client_id()));
        }
        Refused { cause, client_id: self.registered.map(|client| &*client.id), named: None }
    }

    /// Verifies the claim and returns the client.
    async fn verify(
        &self,
        context: &Context,
        attempt: &mut Attempt<'_>,
    ) -> Result<&'s Client, Cause> {
        let Self { snapshot, credentials, registered, decoy, endpoint } = *self;
        let now = context.clock.unix_seconds();
        let mut secret = None;
        if let Some(given) = credentials.client_secret() {
            let hash = FastHash::of(given);
            secret = Credentials::find_secret(&hash, registered, now);
            if secret.is_none() && !snapshot.decoys.are_fast() {
                secret = self.find_slow_secret(context, attempt, given, now).await?;
            }
            if !snapshot.allows_demo_secrets && bool::from(is_demo_secret(&hash)) {
                return Err(Cause::DemoSecret);
            }
        }
        let expected = Expected {
            now,
            issuer: snapshot.issuer.as_str(),
            endpoints: match snapshot.config.live.assertion_audience {
                AssertionAudience::Endpoint => Some([TOKEN_PATH, endpoint]),
                AssertionAudience::Issuer => None,
            },
        };
        let verified = credentials.verify(registered, secret, decoy, &expected)?;
        if let Some(assertion) = verified.assertion {
            let single_use = SingleUse {
                client_id: &verified.client.id,
                owner: Owner::Client,
                token_id: assertion.token_id,
                signed_at: assertion.signed_at,
                until: assertion.until,
            };
            use AssertionError::{BeforeRecord, Replayed, Time};
            use_up(context, single_use, [Replayed, BeforeRecord, Time].map(Cause::from)).await?;
            context.assertion_audiences.count(assertion.audience.label());
        }
        if let Some(secret) = secret {
            context.secret_uses.record(verified.client, secret, now);
        }
        Ok(verified.client)
    }

    /// Finds the client's current secret that matches `given` according to the verdict cache.
    fn find_cached(&self, context: &Context, given: &str, now: u64) -> Option<&'s ClientSecret> {
        let client_id = self.credentials.client_id();
        self.registered?.secrets.iter().find(|secret| {
            self.can_authenticate_with(secret, now)
                && secret.hash.as_slow().is_some_and(|hash| {
                    let comparison = Comparison { client_id, hash, secret: given };
                    context.passwords.was_right(&context.passwords.attempt(comparison))
                })
        })
    }

    /// Whether the client can authenticate with `secret`. If it cannot, the verdict cache is not
    /// used, because a cached verdict would make the refusal of a right secret faster than the
    /// refusal of a wrong secret.
    fn can_authenticate_with(&self, secret: &ClientSecret, now: u64) -> bool {
        let by = self.credentials.secret_method();
        self.registered.is_some_and(|client| {
            client.enabled && by.is_some_and(|method| client.auth_methods.contains(method))
        }) && secret.is_current(now)
    }

    /// Whether the given secret matches according to the verdict cache.
    fn is_cached(&self, context: &Context) -> bool {
        let now = context.clock.unix_seconds();
        let given = self.credentials.client_secret();
        given.is_some_and(|given| self.find_cached(context, given, now).is_some())
    }

    /// Finds the client's secret whose slow hash matches `given`. Prefers a current secret to an
    /// expired one. If the client is not registered, computes as many slow hashes as its decoy
    /// requires.
    async fn find_slow_secret(
        &self,
        context: &Context,
        attempt: &mut Attempt<'_>,
        given: &str,
        now: u64,
    ) -> Result<Option<&'s ClientSecret>, Cause> {
        let client_id = self.credentials.client_id();
        let (is_known, pair) = (attempt.is_known(), attempt.pair());
        let is_shared = self.credentials.network().is_shared();
        // The password queue divides its capacity among sources. If the client is known at the
        // network of the request, the source is the client, whatever the network. Otherwise, the
        // source is the network or, if the network is shared, the pair of client id and network.
        let source = match (is_known, is_shared) {
            (true, _) => attempt.client_key(client_id),
            (false, true) => pair,
            (false, false) => attempt.network_key(),
        };
        let shared_network = is_shared.then(|| attempt.network_key());
        let turn = Turn { source, shared_network, is_known };
        let compare = |hash: &'s Arc<PasswordHash>| Comparison { client_id, hash, secret: given };
        // The cache is checked before the loop, so that no hash is computed if one of the secrets
        // is cached.
        if let Some(secret) = self.find_cached(context, given, now) {
            return Ok(Some(secret));
        }
        let mut is_of = async |hash: &'s Arc<PasswordHash>| -> Result<bool, Cause> {
            let name = context.passwords.attempt(compare(hash));
            attempt.take(Clock::instant()).map_err(Cause::Throttled)?;
            Ok(context.passwords.compute(name, compare(hash), turn).await?)
        };

        let Some(client) = self.registered else {
            for hash in self.decoy.iter().flat_map(|decoy| &decoy.hashes) {
                is_of(hash).await?;
            }
            return Ok(None);
        };
        let mut found = None;
        for secret in &client.secrets {
            let Some(hash) = secret.hash.as_slow() else { continue };
            if is_of(hash).await? {
                if secret.is_current(now) {
                    return Ok(Some(secret));
                }
                found = Some(secret);
            }
        }
        Ok(found)
    }
}
