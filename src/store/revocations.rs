//! Tokens that were revoked before their time was over (RFC 7009).
//!
//! Only revoked tokens have a row, and only until their time is over. Requests look into memory; a
//! thread of its own writes rows to the disk, all that wait at once, and a revocation counts when
//! its row is there. If it cannot be written, whoever asked is told so, and the token stays good:
//! what is answered now and what is true after a restart are the same.

mod ledger;
mod revoked;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use tracing::error;

use crate::clock::{Clock, join_soon};
use crate::fault::Fault;
use crate::oauth::error::Cause;
use crate::store::revocations::ledger::{Ledger, Row};
use crate::store::revocations::revoked::Revoked;

/// Under what a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationKey {
    /// Its `jti`, the 128 bits that we give every `at+jwt`.
    TokenId([u8; 16]),
    /// SHA-256 of its signing input, for a token without a `jti` of ours.
    SigningInput([u8; 32]),
}

impl RevocationKey {
    /// The key of `token`, whose `jti` this is.
    pub fn of(token: &[u8], jti: Option<&str>) -> Self {
        jti.and_then(decode).map_or_else(
            || {
                let end = token.iter().rposition(|&byte| byte == b'.').unwrap_or(token.len());
                Self::of_signing_input(&token[..end])
            },
            Self::TokenId,
        )
    }

    /// The key of a token without a `jti`, by all of it but its signature.
    pub fn of_signing_input(signing_input: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, signing_input).as_ref());
        Self::SigningInput(hash)
    }

    /// Random or a hash, all of it: any byte spreads keys evenly.
    fn first_byte(&self) -> u8 {
        match self {
            Self::TokenId([first, ..]) | Self::SigningInput([first, ..]) => *first,
        }
    }
}

/// Exactly this many bytes of base64url without padding.
fn decode<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Why a token was not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeError {
    /// As many tokens are revoked as the limit allows.
    Full,
    /// More revocations wait for the disk than can be held.
    Overloaded,
    /// The disk did not take it.
    NotWritten,
}

impl From<RevokeError> for Cause {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Full => Self::RevocationsFull,
            RevokeError::NotWritten => Self::RevocationNotWritten,
            RevokeError::Overloaded => Self::Overloaded,
        }
    }
}

/// All revoked tokens whose time is not over.
pub struct Revocations {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Revocations {
    /// Reads what was revoked from `directory`, which is created if need be, and keeps every other
    /// process from it. New rows are taken up to `limit` of them; each takes 56 to 112
    /// bytes of memory, and a line of 38 or 62 bytes on the disk; a file has at most twice as many
    /// lines as are needed, and a thousand.
    ///
    /// If the directory cannot be written, that is logged, and tokens are revoked once it can.
    ///
    /// # Errors
    ///
    /// The [`Fault`]: what stands there cannot be read. Tokens that were revoked must not become
    /// good by a fault.
    pub fn open(directory: &Path, limit: usize, clock: Clock) -> Result<Self, Fault> {
        let now = clock.unix_seconds();
        let (ledger, rows) = Ledger::open(directory)?;
        let no_thread = |error: io::Error| {
            Fault::new(directory, format!("no thread to write with: {error}; allow it more"))
        };
        let shared = Arc::new(Shared {
            revoked: Revoked::default(),
            queue: Mutex::default(),
            arrival: Condvar::new(),
            clock,
            limit,
        });
        shared.revoked.insert(rows.into_iter().filter(|row| !row.is_over(now)));
        let writing = Arc::clone(&shared);
        let builder = thread::Builder::new().name("revocations".to_owned());
        let writer = builder.spawn(move || writing.write_to(ledger)).map_err(no_thread)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Reads what stands in `directory` as [`Self::open`] would, and changes nothing.
    ///
    /// # Errors
    ///
    /// The [`Fault`].
    pub fn check(directory: &Path) -> Result<(), Fault> {
        ledger::check(directory)
    }

    /// Whether the token of this key was revoked.
    pub fn contains(&self, key: &RevocationKey) -> bool {
        self.shared.revoked.contains(key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.shared.revoked.len()
    }

    /// Whether at least half of the room for rows is left.
    pub fn has_much_room(&self) -> bool {
        self.len() < self.shared.limit.div_ceil(2)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revokes the token of this key, whose time is over at `expires_at` (Unix seconds). On disk
    /// and in force when this completes. One that was revoked already stays so.
    ///
    /// # Errors
    ///
    /// [`RevokeError`]; the token is as good as before.
    pub async fn revoke(&self, key: RevocationKey, expires_at: u64) -> Result<(), RevokeError> {
        if self.contains(&key) {
            return Ok(());
        }
        let slot = Arc::new(Slot::default());
        {
            let mut queue = self.shared.queue();
            if queue.has_ended {
                return Err(RevokeError::NotWritten);
            }
            if queue.waiting.len() >= MAX_WAITING {
                return Err(RevokeError::Overloaded);
            }
            let row = Row { key, expires_at };
            queue.waiting.push(Waiting { row, slot: Arc::clone(&slot) });
        }
        self.shared.arrival.notify_one();
        poll_fn(|context| {
            let mut state = slot.state();
            match state.result {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Revocations {
    fn drop(&mut self) {
        self.shared.queue().has_ended = true;
        self.shared.arrival.notify_one();
        if let Some(writer) = self.writer.take() {
            // What a disk that hangs has not taken was never acknowledged.
            join_soon(writer);
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("len", &self.len()).finish_non_exhaustive()
    }
}

struct Shared {
    revoked: Revoked,
    queue: Mutex<Queue>,
    arrival: Condvar,
    clock: Clock,
    limit: usize,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Nobody takes from the queue any more.
    has_ended: bool,
}

impl Shared {
    /// The writing thread's work: everything that waits is one write and one sync.
    fn write_to(&self, mut ledger: Ledger) {
        let _end = End(self);
        let mut looked_at = None;
        let mut look_at_lines = 0;
        loop {
            let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.has_ended;
            let queue = self.arrival.wait_while(self.queue(), idle);
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let batch = std::mem::take(&mut queue.waiting);
            drop(queue);
            if batch.is_empty() {
                return;
            }
            let now = self.clock.unix_seconds();
            let is_full = self.revoked.len() + batch.len() > self.limit;
            // A pass over all rows whenever they may have doubled, and once a second if there is no
            // room, is little for each.
            if ledger.lines() >= look_at_lines || (is_full && looked_at != Some(now)) {
                self.revoked.forget_ended(now);
                looked_at = Some(now);
                look_at_lines = ledger::lines_for(self.revoked.len());
            }
            self.commit(&mut ledger, batch);
        }
    }

    fn commit(&self, ledger: &mut Ledger, batch: Vec<Waiting>) {
        let mut fresh: HashMap<RevocationKey, u64> = HashMap::new();
        let mut accepted = Vec::with_capacity(batch.len());
        for waiting in batch {
            let Row { key, expires_at } = waiting.row;
            let is_known = self.revoked.contains(&key) || fresh.contains_key(&key);
            if !is_known && self.revoked.len() + fresh.len() >= self.limit {
                waiting.finish(Err(RevokeError::Full));
                continue;
            }
            if !is_known {
                fresh.insert(key, expires_at);
            }
            accepted.push(waiting);
        }
        let fresh: Vec<_> =
            fresh.into_iter().map(|(key, expires_at)| Row { key, expires_at }).collect();
        let result = if fresh.is_empty() {
            Ok(())
        } else {
            ledger.write(&fresh, &self.revoked).map_err(|error| {
                let file = ledger.path().display();
                error!(%file, %error, "a revocation was not written: make room or give access");
                RevokeError::NotWritten
            })
        };
        if result.is_ok() {
            self.revoked.insert(fresh);
        }
        for waiting in accepted {
            waiting.finish(result);
        }
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However the writing thread ends, nobody waits for it after that.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.has_ended = true;
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(left);
    }
}

/// A row that is to be written, and whoever waits for it.
struct Waiting {
    row: Row,
    slot: Arc<Slot>,
}

impl Waiting {
    fn finish(self, result: Result<(), RevokeError>) {
        self.slot.finish(result);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nothing happens if there was a result.
        self.slot.finish(Err(RevokeError::NotWritten));
    }
}

#[derive(Default)]
struct Slot(Mutex<SlotState>);

#[derive(Default)]
struct SlotState {
    result: Option<Result<(), RevokeError>>,
    waker: Option<Waker>,
}

impl Slot {
    fn finish(&self, result: Result<(), RevokeError>) {
        let mut state = self.state();
        state.result.get_or_insert(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revocations that may wait for the disk, some hundred bytes each.
const MAX_WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tempfile::TempDir;
    use tokio::runtime::Builder;

    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn key(number: u64) -> RevocationKey {
        let hash = digest(&SHA256, &number.to_le_bytes());
        let bytes: [u8; 32] = hash.as_ref().try_into().unwrap();
        if number.is_multiple_of(2) {
            RevocationKey::SigningInput(bytes)
        } else {
            RevocationKey::TokenId(bytes[..16].try_into().unwrap())
        }
    }

    fn open(directory: &TempDir, limit: usize, clock: &Clock) -> Revocations {
        Revocations::open(directory.path(), limit, clock.clone()).unwrap()
    }

    /// Revokes these all at once.
    fn revoke(
        revocations: &Revocations,
        numbers: std::ops::Range<u64>,
        expires_at: u64,
    ) -> Vec<Result<(), RevokeError>> {
        let runtime = Builder::new_current_thread().build().unwrap();
        let wishes = numbers.map(|number| revocations.revoke(key(number), expires_at));
        runtime.block_on(join_all(wishes))
    }

    fn lines(directory: &TempDir) -> usize {
        std::fs::read_to_string(directory.path().join("revocations")).unwrap().lines().count()
    }

    #[test]
    fn a_key_is_the_tokens_id_or_the_hash_of_what_is_signed() {
        let id = RevocationKey::of(b"a.b.c", Some("kGGv6zFBu5FLUEcBWPGsQw"));
        assert!(matches!(id, RevocationKey::TokenId([0x90, 0x61, ..])));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, b"a.b").as_ref());
        // No id, one of other length, and one that is not written as we do.
        for jti in [None, Some("x"), Some("kGGv6zFBu5FLUEcBWPGsQx"), Some("not/base64url")] {
            assert_eq!(RevocationKey::of(b"a.b.c", jti), RevocationKey::SigningInput(hash));
        }
    }

    #[test]
    fn many_at_once_are_each_written_once_and_read_again() {
        let directory = TempDir::new().unwrap();
        let (clock, _) = Clock::manual(NOW);
        let revocations = open(&directory, 10_000, &clock);
        let numbers = || (0..500).chain(0..500).chain(250..750);
        let runtime = Builder::new_current_thread().build().unwrap();
        let wishes = numbers().map(|number| revocations.revoke(key(number), NOW + 60));
        let results = runtime.block_on(join_all(wishes));
        assert!(results.iter().all(Result::is_ok));
        assert_eq!((revocations.len(), lines(&directory)), (750, 750));
        drop(revocations);
        let revocations = open(&directory, 10_000, &clock);
        assert_eq!(revocations.len(), 750);
        assert!((0..750).all(|number| revocations.contains(&key(number))));
        assert!(!revocations.contains(&key(750)));
    }

    #[test]
    fn the_file_is_written_anew_when_most_of_it_is_over() {
        let directory = TempDir::new().unwrap();
        let (clock, hand) = Clock::manual(NOW);
        let revocations = open(&directory, 100_000, &clock);
        assert!(revoke(&revocations, 0..3000, NOW + 60).iter().all(Result::is_ok));
        assert!(revoke(&revocations, 3000..3010, NOW + 9000).iter().all(Result::is_ok));
        assert_eq!(lines(&directory), 3010);
        // Kept an hour longer than the tokens live, for clocks that are set back.
        hand.set(NOW + 60 + 3599);
        assert!(revoke(&revocations, 3010..7100, NOW + 9000).iter().all(Result::is_ok));
        assert!(revocations.contains(&key(0)));
        hand.set(NOW + 60 + 3600);
        // However the writes fell together: more lines than any look so far has asked for.
        let enough = ledger::lines_for(7100) as u64;
        assert!(revoke(&revocations, 7100..enough, NOW + 9000).iter().all(Result::is_ok));
        assert!(revoke(&revocations, enough..enough + 1, NOW + 9000).iter().all(Result::is_ok));
        assert_eq!(revocations.len() as u64, enough + 1 - 3000);
        assert!(!revocations.contains(&key(0)));
        drop(revocations);
        // A look at the start and the first row after it, and what is over is gone.
        hand.set(NOW + 9000 + 3600);
        let revocations = open(&directory, 10_000, &clock);
        assert!(revocations.is_empty());
        assert!(revoke(&revocations, 0..1, NOW + 20_000)[0].is_ok());
        assert_eq!((revocations.len(), lines(&directory)), (1, 1));
    }

    #[test]
    fn a_full_set_takes_more_when_something_is_over() {
        let directory = TempDir::new().unwrap();
        let (clock, hand) = Clock::manual(NOW);
        let revocations = open(&directory, 3, &clock);
        let results = revoke(&revocations, 0..5, NOW + 60);
        let taken = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((taken, revocations.len()), (3, 3));
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(RevokeError::Full))));
        hand.set(NOW + 60 + 3599);
        assert_eq!(revoke(&revocations, 5..6, NOW + 9000), [Err(RevokeError::Full)]);
        hand.set(NOW + 60 + 3600);
        assert_eq!(revoke(&revocations, 6..7, NOW + 9000), [Ok(())]);
        assert_eq!(revocations.len(), 1);
        // What was read from the file is kept, whatever the limit.
        assert!(revoke(&revocations, 7..9, NOW + 9000).iter().all(Result::is_ok));
        drop(revocations);
        let revocations = open(&directory, 1, &clock);
        assert_eq!(revocations.len(), 3);
        assert_eq!(revoke(&revocations, 20..21, NOW + 9000), [Err(RevokeError::Full)]);
    }
}
