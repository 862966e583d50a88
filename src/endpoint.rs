//! The endpoints. Each endpoint authenticates the client if the endpoint requires authentication,
//! applies the rules of `oauth` and returns values. The code depends on no HTTP library and no
//! dialect.

pub mod authentication;
pub mod confirmation;
pub mod introspection;
pub mod metadata;
pub mod outcome;
pub mod revocation;
pub mod single_use;
pub mod token;
pub mod validate;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Config;
use crate::guard::password_pool::PasswordPool;
use crate::guard::throttle::Throttle;
use crate::keys::life::{KeyState, KeyTime};
use crate::keys::rotation::longest_postponement;
use crate::oauth::client_network::ClientNetwork;
use crate::oauth::decoy::DecoyKey;
use crate::oauth::dpop::Nonces;
use crate::random::{NoEntropy, Random};
use crate::signing::engine::Engine;
use crate::snapshot::Snapshot;
use crate::snapshot::loss::Loss;
use crate::state::key_rotation::KeyRotation;
use crate::state::revocations::Revocations;
use crate::state::secret_uses::SecretUses;
use crate::state::store_health::StoreHealth;
use crate::state::uses::Uses;
use crate::state::verified_tokens::VerifiedTokens;
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::time::UnixTime;

/// The state that all endpoints of a server share.
pub struct Context {
    /// The current snapshot. A reload replaces it as a whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// Signs tokens.
    pub engine: Engine,
    /// Computes slow hashes of secrets.
    pub passwords: PasswordPool,
    /// The key that assigns a decoy to each unknown client id.
    pub decoy_key: DecoyKey,
    /// How often and when each secret was used.
    pub secret_uses: Arc<SecretUses>,
    /// The faults that the last reload found, and what is in force because of them; `None` if there
    /// are none.
    pub reload_fault: ArcSwapOption<String>,
    /// The loss of files before the start; `None` if nothing was lost.
    pub loss: Option<Loss>,
    /// The revoked tokens.
    pub revocations: Revocations,
    /// The cache of tokens whose signature was verified.
    pub verified: VerifiedTokens,
    /// The audit; `None` if it is off.
    pub audit: Option<Arc<Audit>>,
    /// The time.
    pub clock: Clock,
    /// The metrics of the server.
    pub metrics: Arc<Metrics>,
    /// The recent refusals.
    pub refusals: Refusals,
    /// Counts the authentications by HTTP Basic in which the client id and secret were used as
    /// sent, although form-decoding would have changed them or failed.
    pub raw_pairs: AtomicU64,
    /// The budgets for failed attempts at client authentication.
    pub throttle: Throttle,
    /// The source of random bytes.
    pub random: Random,
    /// The assertions and proofs that were used. The server accepts none of them again.
    pub uses: Uses,
    /// How the rotation of the signing keys goes.
    pub key_rotation: Arc<KeyRotation>,
    /// How well this server knows the store in a database; `None` if its state is in files.
    pub store: Option<Arc<StoreHealth>>,
    /// Generates the nonces of DPoP proofs. The cell is empty until a configuration requires
    /// nonces.
    pub nonces: OnceLock<Nonces>,
}

impl Context {
    /// Returns the current snapshot. Each request must call this method only once. Then a reload in
    /// the middle of a request does not affect that request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Writes `event` to the audit, if there is one.
    pub fn write_audit(&self, event: &Event<'_>) {
        if let Some(audit) = &self.audit {
            audit.write(event);
        }
    }

    /// Whether the server must not vouch for a token, because it has not reached the store for too
    /// long.
    pub fn is_stale(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_stale(self.clock.instant()))
    }

    /// The time for which the keys of `snapshot` are judged at `now`.
    pub fn key_time(&self, snapshot: &Snapshot, now: UnixTime) -> KeyTime {
        let Some(store) = &self.store else { return now.into() };
        let hold_back = longest_postponement(snapshot.config.live.jwks_max_age);
        KeyTime { now, known: store.known(now, self.clock.instant()), hold_back }
    }

    /// Why the server does not know what is in the store, and what follows; `None` if it does.
    pub fn store_fault(&self) -> Option<String> {
        let max_age = self.snapshot().config.live.jwks_max_age;
        self.store.as_ref()?.fault(self.clock.instant(), max_age)
    }

    /// Why the rotation of keys is held up; `None` if it is not. Each server notices if no server
    /// makes the next key.
    pub fn rotation_fault(&self) -> Option<String> {
        let (snapshot, now) = (self.snapshot(), self.clock.now());
        let at = self.key_time(&snapshot, now);
        let is_late = |signs_from: UnixTime| now.since(signs_from) > LATE_SECONDS;
        let is_overdue = || {
            self.store.as_ref().is_none_or(|store| store.is_up())
                && snapshot.config.live.rotate_every.is_some()
                && snapshot.keys.states(at).all(|(_, state)| state != KeyState::Published)
                && snapshot.keys.signing_key(at).is_some_and(|key| is_late(key.times().signs_from))
        };
        self.key_rotation.fault().or_else(|| is_overdue().then(|| OVERDUE.to_owned()))
    }

    /// Returns the generator of nonces if `snapshot` requires a nonce in DPoP proofs.
    pub fn nonces(&self, snapshot: &Snapshot) -> Option<&Nonces> {
        self.nonces.get().filter(|_| snapshot.config.live.dpop_nonce)
    }

    /// Creates the generator of DPoP nonces if `config` requires nonces and the generator does not
    /// exist yet.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the system has no random bytes.
    pub fn prepare(&self, config: &Config) -> Result<(), NoEntropy> {
        if config.live.dpop_nonce && self.nonces.get().is_none() {
            let mut key = Zeroizing::new([0; 32]);
            self.random.fill(&mut *key)?;
            self.nonces.get_or_init(|| Nonces::new(&key));
        }
        Ok(())
    }
}

/// One request, as every step of an endpoint sees it.
#[derive(Clone, Copy)]
pub struct Exchange<'s> {
    /// The state of the server.
    pub context: &'s Context,
    /// The snapshot that the request reads.
    pub snapshot: &'s Snapshot,
    /// The called path, relative to the issuer. The URL in a client assertion or a DPoP proof is
    /// compared with the issuer's URL followed by this path.
    pub endpoint: &'s str,
    /// The client network for which failed attempts are counted.
    pub network: ClientNetwork,
    /// When all of the request, including its body, was read.
    pub received: Instant,
    /// The same time of the wall clock. Client authentication is decided for
    /// this time.
    pub now: UnixTime,
}

impl<'s> Exchange<'s> {
    /// Begins an exchange for a request that has just been read.
    pub fn new(
        context: &'s Context,
        snapshot: &'s Snapshot,
        endpoint: &'s str,
        network: ClientNetwork,
    ) -> Self {
        let (received, now) = (context.clock.instant(), context.clock.now());
        Self { context, snapshot, endpoint, network, received, now }
    }

    /// The time for which keys are judged.
    pub fn key_time(&self) -> KeyTime {
        self.context.key_time(self.snapshot, self.now)
    }

    /// Returns the exchange at the present time. Client authentication and the use of a proof may
    /// have waited for seconds.
    pub fn at_present(&self) -> Self {
        Self { now: self.context.clock.now(), ..*self }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// The next key is made when the present one begins to sign, or within this time.
const LATE_SECONDS: u64 = 600;
const OVERDUE: &str = "the next signing key is overdue, and no server makes it: see the log of each \
                       server with keys.rotate_every";
