//! One file per endpoint: the story of one request, from values to values.

pub mod authentication;
pub mod confirmation;
pub mod introspection;
pub mod metadata;
pub mod revocation;
pub mod single_use;
pub mod token;
pub mod validate;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Config;
use crate::oauth::decoy::DecoyKey;
use crate::oauth::dpop::Nonces;
use crate::random::{NoEntropy, Random};
use crate::signing::engine::Engine;
use crate::store::password_pool::PasswordPool;
use crate::store::replay::ReplayGuard;
use crate::store::revocations::Revocations;
use crate::store::secret_uses::SecretUses;
use crate::store::snapshot::Snapshot;
use crate::store::throttle::Throttle;
use crate::store::verified_tokens::VerifiedTokens;
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::metrics::AssertionAudiences;

/// What every endpoint works with. One for the process.
pub struct Context {
    /// What requests read; a reload swaps it whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// What signs.
    pub engine: Engine,
    /// What computes slow hashes of secrets.
    pub passwords: PasswordPool,
    /// The key that says which kind of client an unknown id stands for.
    pub decoy_key: DecoyKey,
    /// When which secret was used last.
    pub secret_uses: SecretUses,
    /// Why the files that were read last are not in force.
    pub reload_fault: ArcSwapOption<String>,
    /// Tokens that are good no longer.
    pub revocations: Revocations,
    /// Tokens whose signature need not be checked again.
    pub verified: VerifiedTokens,
    /// Who writes down what was done.
    pub audit: Option<Audit>,
    /// Wall-clock time.
    pub clock: Clock,
    /// How the assertions that have authenticated name this server.
    pub assertion_audiences: AssertionAudiences,
    /// How many Basic pairs were right as they stand, and not form-decoded.
    pub raw_pairs: AtomicU64,
    /// Budgets of failed attempts to authenticate.
    pub throttle: Throttle,
    /// Unpredictable bytes.
    pub random: Random,
    /// What may be used once, and was.
    pub replay: ReplayGuard,
    /// What makes nonces for proofs of possession, from when on they are asked for.
    pub nonces: OnceLock<Nonces>,
}

impl Context {
    /// The snapshot that one request reads from beginning to end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Writes this down, where there is somebody who does.
    pub fn tell(&self, event: &Event<'_>) {
        if let Some(audit) = &self.audit {
            audit.tell(event);
        }
    }

    /// What makes nonces, if proofs of possession must have one under this snapshot.
    pub fn nonces(&self, snapshot: &Snapshot) -> Option<&Nonces> {
        self.nonces.get().filter(|_| snapshot.config.live.dpop_nonce)
    }

    /// Makes ready what a snapshot under `config` will need.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`].
    pub fn prepare(&self, config: &Config) -> Result<(), NoEntropy> {
        if config.live.dpop_nonce && self.nonces.get().is_none() {
            let mut key = Zeroizing::new([0; 32]);
            self.random.fill(&mut *key)?;
            self.nonces.get_or_init(|| Nonces::new(&key));
        }
        Ok(())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("engine", &self.engine).finish_non_exhaustive()
    }
}
