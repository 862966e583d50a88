//! Client authentication, the same at every endpoint that requires it. An attempt is refused if its
//! failure budgets are exhausted, and an unknown client costs the same work as a known one.

use std::hint::black_box;
use std::mem::forget;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::clock::Clock;
use crate::config::AssertionAudience;
use crate::endpoint::Exchange;
use crate::endpoint::metadata::TOKEN_PATH;
use crate::endpoint::outcome::Refused;
use crate::endpoint::single_use::use_up;
use crate::guard::gcra::Taken;
use crate::guard::password_pool::{Comparison, Turn};
use crate::guard::throttle::Attempt;
use crate::oauth::client::{AuthMethod, Client};
use crate::oauth::client_assertion::{Accepted, ClientAssertion};
use crate::oauth::client_authentication::{Credentials, Proof};
use crate::oauth::client_certificate::ClientCertificate;
use crate::oauth::client_secret::{ClientSecret, FastHash, find_secret, is_demo_secret};
use crate::oauth::decoy::Kind;
use crate::oauth::error::Cause;
use crate::oauth::password_hash::PasswordHash;
use crate::registry::registered::Registered;
use crate::state::uses::{Owner, SingleUse};

/// Authenticates the client that `credentials` name, and returns it.
///
/// # Errors
///
/// [`Refused`]. The work for a refusal is the same whether the client is unknown or the secret is
/// wrong.
pub async fn authenticate<'s>(
    exchange: &Exchange<'s>,
    credentials: &Credentials<'_>,
    purpose: Purpose,
) -> Result<&'s Registered, Refused<'s>> {
    let Some(raw) = &credentials.raw else {
        let mut only = Claim::begin(exchange, credentials, purpose)?;
        let checked = pin!(only.check()).await;
        return only.settle(checked);
    };
    let readings = [credentials, raw].map(|reading| Claim::begin(exchange, reading, purpose));
    // This future is boxed. Unboxed, it would enlarge the future of every request, although few
    // requests have two readings.
    Box::pin(check_either(readings)).await
}

/// The kind of request that a client authenticates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A token request, which takes one request from the client's rate limit.
    Token,
    /// Any other request.
    Other,
}

/// Authenticates a client by HTTP Basic credentials that can be read in two ways: form-decoded or as
/// sent. The caller has found that the two readings differ.
async fn check_either<'s>(
    readings: [Result<Claim<'_, 's>, Refused<'s>>; 2],
) -> Result<&'s Registered, Refused<'s>> {
    let (mut only, throttled) = match readings {
        [Ok(decoded), Ok(raw)] => {
            let is_raw_cached = raw.is_cached();
            return check_in_turn(if is_raw_cached { [raw, decoded] } else { [decoded, raw] })
                .await;
        }
        [Ok(only), Err(throttled)] | [Err(throttled), Ok(only)] => (only, throttled),
        [Err(throttled), Err(_)] => return Err(throttled),
    };
    // The readings name different clients, and the budget of one of these clients is exhausted.
    // Only the reading that names the other client is checked.
    let checked = only.check().await;
    only.settle(checked).map_err(|refused| match refused.cause {
        // The credentials were right.
        Cause::RateLimited(_) => refused,
        _ => throttled,
    })
}

/// Checks two readings of the same client id and secret in turn. Each attempt is charged to the
/// client that the reading names.
///
/// If the second reading is right, the charge for the first reading is refunded, unless the first
/// reading names another registered client. Without this exception, an attacker with a client of
/// its own could guess the secrets of another client without charge. The attacker would send pairs
/// whose second reading is the id and secret of its own client.
async fn check_in_turn<'s>(
    [mut first, mut second]: [Claim<'_, 's>; 2],
) -> Result<&'s Registered, Refused<'s>> {
    let cause = match first.check().await {
        Err(cause) if cause.retry_after().is_none() => cause,
        // Either the first reading is right, or it was refused because a budget or the capacity is
        // exhausted. After such a refusal, checking the second reading would only add load.
        checked => return first.settle(checked),
    };
    let wrong = first.refused(cause);
    let clock = &first.exchange.context.clock;
    first
        .attempt
        .take(clock.instant())
        .map_err(|seconds| first.refused(Cause::Throttled(seconds)))?;
    let checked = second.check().await;
    let named = [first.client(), second.client()].map(|named| named.map(|client| &*client.id));
    let settled = second.settle(checked);
    // Only a client that is proven can exceed its rate limit.
    let is_right = matches!(settled, Ok(_) | Err(Refused { cause: Cause::RateLimited(_), .. }));
    if is_right && (named[0].is_none() || named[0] == named[1]) {
        // This cannot fail, because the attempt was charged above.
        let _ = first.attempt.was_no_guess(clock.instant());
    }
    match settled {
        // Both readings were refused. If only the second reading names a registered client, report
        // the refusal of the second reading; otherwise, report the refusal of the first reading.
        Err(Refused { cause: Cause::UnknownClient | Cause::WrongSecret, client_id, .. })
            if wrong.client_id.is_some() || client_id.is_none() =>
        {
            Err(wrong)
        }
        settled => settled,
    }
}

/// The claim of a request to be from a client, and its charge to the failure budgets.
struct Claim<'c, 's> {
    exchange: &'c Exchange<'s>,
    credentials: &'c Credentials<'c>,
    /// The client that is registered under the claimed id. If there is no such client, this is the
    /// kind of client whose authentication cost is imitated.
    registered: Result<&'s Registered, &'s Kind>,
    attempt: Attempt<'s>,
    purpose: Purpose,
    /// The token request taken from the client's rate limit.
    request: Option<TakenRequest<'s>>,
    begin: Instant,
}

/// A token request taken from a client's rate limit. It is given back when this value is dropped,
/// unless it is forgotten: an attempt may be refused after the request was taken, and its client may
/// close the connection while the attempt waits.
struct TakenRequest<'s> {
    registered: &'s Registered,
    clock: &'s Clock,
    taken: Taken,
}

impl Drop for TakenRequest<'_> {
    fn drop(&mut self) {
        let now = self.clock.instant();
        self.registered.state(now).give_back(self.taken, now);
    }
}

impl<'c, 's> Claim<'c, 's> {
    /// Finds the client, or the decoy of an unknown client, and begins an attempt if the failure
    /// budgets are not exhausted. Checks nothing yet.
    fn begin(
        exchange: &'c Exchange<'s>,
        credentials: &'c Credentials<'c>,
        purpose: Purpose,
    ) -> Result<Self, Refused<'s>> {
        let Exchange { context, snapshot, network, .. } = *exchange;
        let client_id = &credentials.client_id;
        let decoy = || snapshot.decoys.kind(&context.decoy_key, client_id);
        let registered = snapshot.clients.find(client_id).ok_or_else(decoy);
        let client = registered.ok().map(|registered| &registered.client);
        let is_guessable =
            registered.map_or_else(Kind::is_guessable, |it| it.client.is_guessable());
        let is_active = client.is_some_and(|client| client.enabled);
        let limits = &snapshot.config.live.failures;
        // Until the attempt is charged, `begin` is used as the current time, so that the clock need
        // not be read again. The budgets refill with time, so a check that uses this earlier time
        // never overestimates a budget.
        let begin = context.clock.instant();
        let throttle = &context.throttle;
        let attempt = throttle
            .begin(client_id, network, is_guessable, is_active, limits, begin)
            .map_err(|wait| refused(exchange, client_id, client, Cause::Throttled(wait)))?;
        Ok(Self { exchange, credentials, registered, attempt, purpose, request: None, begin })
    }

    /// Checks the credentials and returns the client. Uses up an assertion.
    async fn check(&mut self) -> Result<&'s Registered, Cause> {
        let Exchange { context, now, .. } = *self.exchange;
        let credentials = self.credentials;
        let (registered, assertion) = match &credentials.proof {
            Proof::Secret { by, secret } => {
                let secret = pin!(self.check_secret(*by, secret.as_str())).await?;
                let registered = self.permitted(*by)?;
                let found = &registered.state(self.begin).uses;
                context.secret_uses.record(&registered.client, secret, found, now);
                (registered, None)
            }
            Proof::Assertion(assertion) => {
                let accepted = self.check_assertion(assertion)?;
                (self.permitted(AuthMethod::PrivateKeyJwt)?, Some(accepted))
            }
            Proof::Certificate(certificate) => {
                let by = self.check_certificate(certificate)?;
                (self.permitted(by)?, None)
            }
        };
        // Taken after the proof, so that only the client itself can exhaust its rate limit, and
        // before the use of the assertion, so that the client can send the assertion again later.
        // Copies of one assertion hold a request each only while they wait for its use.
        self.take_request(registered)?;
        if let Some(assertion) = assertion {
            let single_use = SingleUse {
                client_id: &registered.client.id,
                owner: Owner::Client,
                token_id: assertion.token_id,
                signed_at: assertion.signed_at,
                until: assertion.until,
            };
            use_up(self.exchange, single_use).await?;
            let form = assertion.audience.label();
            context.metrics.assertion_audiences.with_label_values(&[form]).inc();
        }
        Ok(registered)
    }

    /// Takes a token request from the client's rate limit, if it has one.
    fn take_request(&mut self, registered: &'s Registered) -> Result<(), Cause> {
        let clock = &self.exchange.context.clock;
        if let Some(limit) = registered.client.rate_limit
            && self.purpose == Purpose::Token
        {
            let taken = registered.state(self.begin).take_request(limit, clock.instant());
            let taken = taken.map_err(Cause::RateLimited)?;
            self.request = Some(TakenRequest { registered, clock, taken });
        }
        Ok(())
    }

    fn client(&self) -> Option<&'s Client> {
        self.registered.ok().map(|registered| &registered.client)
    }

    /// Returns the client if it is enabled and may authenticate by this method.
    fn permitted(&self, by: AuthMethod) -> Result<&'s Registered, Cause> {
        let registered = self.registered.map_err(|_| Cause::UnknownClient)?;
        let client = &registered.client;
        if !client.enabled {
            return Err(Cause::ClientDisabled);
        }
        if client.auth_methods.contains(by) {
            Ok(registered)
        } else {
            Err(Cause::AuthMethodNotAllowed)
        }
    }

    /// Finds the client's secret that equals `given` and is valid now.
    async fn check_secret(
        &mut self,
        by: AuthMethod,
        given: &str,
    ) -> Result<&'s ClientSecret, Cause> {
        let Exchange { snapshot, now, .. } = *self.exchange;
        let hash = FastHash::of(given);
        let mut found = find_secret(&hash, self.client().map(|client| &*client.secrets), now);
        if found.is_none() && !snapshot.decoys.are_fast {
            // The cache is checked first, so that no hash is computed if one of the secrets is
            // cached.
            found = self.find_cached(by, given);
            if found.is_none() {
                // This future is boxed, because few requests compute a slow hash.
                found = Box::pin(self.find_slow(given)).await?;
            }
        }
        if !snapshot.allows_demo_secrets && bool::from(is_demo_secret(&hash)) {
            return Err(Cause::DemoSecret);
        }
        self.client().ok_or(Cause::UnknownClient)?;
        let secret = found.ok_or(Cause::WrongSecret)?;
        if secret.is_current(now) { Ok(secret) } else { Err(Cause::SecretNotCurrent) }
    }

    /// Finds the client's secret that matches `given` according to the verdict cache. The cache is
    /// used only for a secret with which the client can authenticate: otherwise, a cached verdict
    /// would make the refusal of a right secret faster than the refusal of a wrong secret.
    fn find_cached(&self, by: AuthMethod, given: &str) -> Option<&'s ClientSecret> {
        let passwords = &self.exchange.context.passwords;
        self.permitted(by).ok()?.client.secrets.iter().find(|secret| {
            secret.is_current(self.exchange.now)
                && secret.hash.as_slow().is_some_and(|hash| {
                    passwords.was_right(&passwords.attempt(self.comparison(hash, given)))
                })
        })
    }

    /// Whether the secret of the credentials matches according to the verdict cache.
    fn is_cached(&self) -> bool {
        let Proof::Secret { by, secret } = &self.credentials.proof else { return false };
        self.find_cached(*by, secret.as_str()).is_some()
    }

    /// Finds the client's secret whose slow hash matches `given`. Prefers a current secret to an
    /// expired one. If the client is not registered, computes as many slow hashes as its decoy
    /// requires.
    async fn find_slow(&mut self, given: &str) -> Result<Option<&'s ClientSecret>, Cause> {
        let turn = self.turn();
        let registered = match self.registered {
            Ok(registered) => registered,
            Err(decoy) => {
                for hash in &decoy.hashes {
                    self.matches(hash, given, turn).await?;
                }
                return Ok(None);
            }
        };
        let mut found = None;
        for secret in &registered.client.secrets {
            let Some(hash) = secret.hash.as_slow() else { continue };
            if self.matches(hash, given, turn).await? {
                if secret.is_current(self.exchange.now) {
                    return Ok(Some(secret));
                }
                found = Some(secret);
            }
        }
        Ok(found)
    }

    /// Charges the attempt and computes a slow hash.
    async fn matches(
        &mut self,
        hash: &Arc<PasswordHash>,
        given: &str,
        turn: Turn,
    ) -> Result<bool, Cause> {
        let context = self.exchange.context;
        let comparison = self.comparison(hash, given);
        let name = context.passwords.attempt(comparison);
        self.attempt.take(context.clock.instant()).map_err(Cause::Throttled)?;
        context.passwords.compute(name, comparison, turn).await
    }

    fn comparison<'a>(&self, hash: &'a Arc<PasswordHash>, secret: &'a str) -> Comparison<'a>
    where
        'c: 'a,
    {
        Comparison { client_id: &self.credentials.client_id, hash, secret }
    }

    /// Returns the place of the attempt's slow hashes in the password queue, which divides its
    /// capacity among sources. If the client is known at the network of the request, the source is
    /// the client, whatever the network. Otherwise, the source is the network or, if the network is
    /// shared, the pair of client id and network.
    fn turn(&self) -> Turn {
        let (attempt, is_shared) = (&self.attempt, self.exchange.network.is_shared);
        let is_known = attempt.is_known;
        let source = match (is_known, is_shared) {
            (true, _) => attempt.client_key(&self.credentials.client_id),
            (false, true) => attempt.pair,
            (false, false) => attempt.network_key(),
        };
        let shared_network = is_shared.then(|| attempt.network_key());
        Turn { source, shared_network, is_known }
    }

    /// Checks an assertion, whose use the caller must record. For an unknown client, verifies the
    /// signature with the keys of its decoy, so that the refusal takes as long as for a registered
    /// client.
    fn check_assertion<'a>(
        &self,
        assertion: &'a ClientAssertion<'_>,
    ) -> Result<Accepted<'a>, Cause> {
        let Exchange { snapshot, endpoint, now, .. } = *self.exchange;
        let endpoints = match snapshot.config.live.assertion_audience {
            AssertionAudience::Endpoint => Some([TOKEN_PATH, endpoint]),
            AssertionAudience::Issuer => None,
        };
        let accepted = assertion.check(snapshot.issuer.as_str(), endpoints, now);
        let accepted = accepted.map_err(Cause::Assertion)?;
        let (keys, algorithm) = match self.registered {
            Ok(Registered { client, .. }) => (&*client.keys, client.assertion_algorithm),
            Err(decoy) => (&*decoy.keys, decoy.assertion_algorithm),
        };
        let verified = assertion.verify(keys, algorithm);
        self.client().ok_or(Cause::UnknownClient)?;
        verified.map_err(Cause::Assertion).map(|()| accepted)
    }

    /// Returns the method by which `certificate` authenticates the client: `tls_client_auth` if the
    /// subject matches, `self_signed_tls_client_auth` if the key matches (RFC 8705, sections 2.1
    /// and 2.2).
    fn check_certificate(&self, certificate: &ClientCertificate) -> Result<AuthMethod, Cause> {
        let client = self.client().ok_or(Cause::UnknownClient)?;
        let by = |method| client.auth_methods.contains(method);
        let subject = client.certificate_subject.as_deref();
        let [by_name, by_key] = [AuthMethod::TlsClientAuth, AuthMethod::SelfSignedTlsClientAuth];
        if by(by_name) && subject.is_some_and(|subject| certificate.is_for(subject)) {
            Ok(by_name)
        } else if by(by_key) && certificate.has_key_of(&client.keys) {
            Ok(by_key)
        } else {
            Err(Cause::CertificateMismatch)
        }
    }

    /// Ends the attempt. Depending on the result of the check, the attempt keeps its charge, is
    /// charged now, or gets its charge back.
    fn settle(self, checked: Result<&'s Registered, Cause>) -> Result<&'s Registered, Refused<'s>> {
        let client = self.client();
        let Self { exchange, credentials, attempt, request, begin, .. } = self;
        let refused = |cause| refused(exchange, &credentials.client_id, client, cause);
        let now = if attempt.has_paid() { exchange.context.clock.instant() } else { begin };
        let charged = match checked {
            Ok(_) => attempt.was_right(now),
            // The budget was exhausted, so there was no charge.
            Err(Cause::Throttled(_)) => Ok(()),
            Err(cause) if cause.costs_no_attempt() => attempt.was_no_guess(now),
            Err(_) => attempt.was_wrong(now),
        };
        charged.map_err(|seconds| refused(Cause::Throttled(seconds)))?;
        let registered = checked.map_err(refused)?;
        if credentials.is_raw {
            exchange.context.raw_pairs.fetch_add(1, Ordering::Relaxed);
        }
        // The request stays taken.
        forget(request);
        Ok(registered)
    }

    fn refused(&self, cause: Cause) -> Refused<'s> {
        refused(self.exchange, &self.credentials.client_id, self.client(), cause)
    }
}

fn refused<'s>(
    exchange: &Exchange<'_>,
    client_id: &str,
    client: Option<&'s Client>,
    cause: Cause,
) -> Refused<'s> {
    if client.is_some() {
        // `Claim::begin` has already chosen a decoy for an unknown id. Here a decoy is chosen for a
        // known id too, so that the refusal takes the same time.
        black_box(exchange.snapshot.decoys.kind(&exchange.context.decoy_key, client_id));
    }
    Refused { cause, client_id: client.map(|client| &*client.id), named: None }
}
