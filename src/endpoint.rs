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
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::oauth::dpop::Nonces;
use crate::random::Random;
use crate::signing::engine::Engine;
use crate::store::password_pool::PasswordPool;
use crate::store::replay::ReplayGuard;
use crate::store::revocations::Revocations;
use crate::store::secret_uses::SecretUses;
use crate::store::snapshot::Snapshot;
use crate::store::verified_tokens::VerifiedTokens;

/// What every endpoint works with. One for the process.
pub struct Context {
    /// What requests read; a reload swaps it whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// What signs.
    pub engine: Engine,
    /// What computes slow hashes of secrets.
    pub passwords: PasswordPool,
    /// When which secret was used last.
    pub secret_uses: SecretUses,
    /// Tokens that are good no longer.
    pub revocations: Revocations,
    /// Tokens whose signature need not be checked again.
    pub verified: VerifiedTokens,
    /// Wall-clock time.
    pub clock: Clock,
    /// Unpredictable bytes.
    pub random: Random,
    /// What may be used once, and was.
    pub replay: ReplayGuard,
    /// What makes nonces for proofs of possession.
    pub nonces: Nonces,
}

impl Context {
    /// The snapshot that one request reads from beginning to end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// What makes nonces, if proofs of possession must have one under this snapshot.
    pub fn nonces(&self, snapshot: &Snapshot) -> Option<&Nonces> {
        snapshot.config.dpop_nonce.then_some(&self.nonces)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("engine", &self.engine).finish_non_exhaustive()
    }
}
