//! Revoked tokens (RFC 7009), in memory and on disk.
//!
//! A revoked token has a row, which is kept until an hour after the token has expired. Requests
//! look up rows in memory. A writer thread appends all waiting rows to the file in one write. A
//! revocation takes effect when its row is on disk. If the write fails, the caller gets an error
//! and the token stays valid. The token is not revoked in memory alone, because it would become
//! valid again after a restart.

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
use crate::state::revocations::ledger::{Ledger, Row};
use crate::state::revocations::revoked::Revoked;
use crate::time::UnixTime;

/// The key under which a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationKey {
    /// The 128 bits of the `jti` that this server puts into an `at+jwt`.
    TokenId([u8; 16]),
    /// The SHA-256 of the token's signing input, for a token whose `jti` is missing or does not
    /// encode 128 bits.
    SigningInput([u8; 32]),
}

impl RevocationKey {
    /// Returns the key of `token`. `jti` is the token's claim `jti`, if it has one.
    pub fn of(token: &[u8], jti: Option<&str>) -> Self {
        jti.and_then(decode).map_or_else(
            || {
                let end = token.iter().rposition(|&byte| byte == b'.').unwrap_or(token.len());
                Self::of_signing_input(&token[..end])
            },
            Self::TokenId,
        )
    }

    /// Returns the key of a token without a `jti`. `signing_input` is the header and the payload of
    /// the token, joined by a dot.
    pub fn of_signing_input(signing_input: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, signing_input).as_ref());
        Self::SigningInput(hash)
    }

    /// Returns the byte that selects a shard. All bytes of a key are random or part of a hash, so
    /// the keys are spread evenly over the shards.
    fn first_byte(&self) -> u8 {
        match self {
            Self::TokenId([first, ..]) | Self::SigningInput([first, ..]) => *first,
        }
    }
}

/// Decodes exactly `BYTES` bytes of base64url without padding.
fn decode<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The reason why a token was not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeError {
    /// The limit of revoked tokens is reached.
    Full,
    /// Too many revocations wait for the disk.
    Overloaded,
    /// The revocation could not be written to disk.
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

/// The set of revoked tokens, in memory and on disk.
pub struct Revocations {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Revocations {
    /// Opens the file of revocations in `directory`, which is created if necessary, and locks the
    /// file against other processes. While there are `limit` rows or more, no token can be revoked.
    /// A row takes 56 to 112 bytes of memory and a line of 38 or 62 bytes on disk. With n rows in
    /// memory, the file is rewritten when it has more than 1000 + 2 × n lines.
    ///
    /// If the directory is not writable or another process holds the lock, logs a warning. Each
    /// revocation then tries again to lock the file. The revocation fails if the file cannot be
    /// locked.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read, a line of it is invalid, or the writer thread cannot
    /// be started. An invalid line is not ignored, because the token that it revokes would become
    /// valid again.
    pub fn open(directory: &Path, limit: usize, clock: Clock) -> Result<Self, Fault> {
        let now = clock.now();
        let (ledger, rows) = Ledger::open(directory)?;
        let no_thread = |error: io::Error| {
            Fault::new(
                directory,
                format!("the writer thread cannot be started: {error}; raise the limit of threads"),
            )
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

    /// Checks that the file of revocations in `directory`, if it exists, can be read. Writes
    /// nothing.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read or a line of it is invalid.
    pub fn check(directory: &Path) -> Result<(), Fault> {
        ledger::check(directory)
    }

    /// Whether the token with this key was revoked.
    pub fn contains(&self, key: &RevocationKey) -> bool {
        self.shared.revoked.contains(key)
    }

    /// The number of rows in memory.
    pub fn len(&self) -> usize {
        self.shared.revoked.len()
    }

    /// Whether the number of rows is below half of the limit.
    pub fn is_less_than_half_full(&self) -> bool {
        self.len() < self.shared.limit.div_ceil(2)
    }

    /// Whether there is no row in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revokes the token that has the key `key` and expires at `expires_at`. The future completes
    /// when the revocation is on disk and in effect. Revoking a token twice is not an error.
    ///
    /// # Errors
    ///
    /// A [`RevokeError`] if the token was not revoked.
    pub async fn revoke(
        &self,
        key: RevocationKey,
        expires_at: UnixTime,
    ) -> Result<(), RevokeError> {
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
            // If the disk hangs, `join_soon` stops waiting and the unwritten rows are lost. This
            // loss is acceptable, because no client was told that these rows were written.
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
    /// Whether the writer thread has ended or has been told to end.
    has_ended: bool,
}

impl Shared {
    /// Runs the writer thread, which writes all waiting rows with one write and one sync.
    fn write_to(&self, mut ledger: Ledger) {
        let _close = CloseOnDrop(self);
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
            let now = self.clock.now();
            let is_full = self.revoked.len() + batch.len() > self.limit;
            // Drop expired rows in two cases: when the number of lines may have doubled since the
            // last drop, and when the new rows would exceed the limit. In the second case, drop
            // them at most once per second. A drop passes over all rows, which is acceptable
            // because both cases are rare.
            if ledger.lines() >= look_at_lines || (is_full && looked_at != Some(now)) {
                self.revoked.forget_ended(now);
                looked_at = Some(now);
                look_at_lines = ledger::lines_for(self.revoked.len());
            }
            self.commit(&mut ledger, batch);
        }
    }

    fn commit(&self, ledger: &mut Ledger, batch: Vec<Waiting>) {
        let mut fresh: HashMap<RevocationKey, UnixTime> = HashMap::new();
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
                error!(%file, %error, "a revocation was not written: check free space and access");
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

    /// Ignores poisoning: a panic while the lock is held leaves the data consistent.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the queue when the writer thread ends, even by a panic, so that no request waits forever.
struct CloseOnDrop<'a>(&'a Shared);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.has_ended = true;
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(left);
    }
}

/// A row to write, and the slot of the request that waits for it.
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
        // If the request already has a result, this call has no effect.
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

/// The maximum number of revocations that may wait for the writer thread. A waiting revocation
/// takes about 100 bytes of memory.
const MAX_WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tempfile::TempDir;
    use tokio::runtime::Builder;

    use super::*;

    const NOW: UnixTime = UnixTime(1_790_000_000);

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

    /// Revokes the tokens with these numbers concurrently.
    fn revoke(
        revocations: &Revocations,
        numbers: std::ops::Range<u64>,
        expires_at: UnixTime,
    ) -> Vec<Result<(), RevokeError>> {
        let runtime = Builder::new_current_thread().build().unwrap();
        let revoked = numbers.map(|number| revocations.revoke(key(number), expires_at));
        runtime.block_on(join_all(revoked))
    }

    fn lines(directory: &TempDir) -> usize {
        std::fs::read_to_string(directory.path().join("revocations")).unwrap().lines().count()
    }

    #[test]
    fn a_key_is_the_jti_or_the_hash_of_the_signing_input() {
        let id = RevocationKey::of(b"a.b.c", Some("kGGv6zFBu5FLUEcBWPGsQw"));
        assert!(matches!(id, RevocationKey::TokenId([0x90, 0x61, ..])));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, b"a.b").as_ref());
        // No `jti`, a `jti` that is too short, non-canonical base64url, and invalid characters.
        for jti in [None, Some("x"), Some("kGGv6zFBu5FLUEcBWPGsQx"), Some("not/base64url")] {
            assert_eq!(RevocationKey::of(b"a.b.c", jti), RevocationKey::SigningInput(hash));
        }
    }

    #[test]
    fn concurrent_revocations_are_written_once_each_and_read_again() {
        let directory = TempDir::new().unwrap();
        let (clock, _) = Clock::manual(NOW.0);
        let revocations = open(&directory, 10_000, &clock);
        let numbers = || (0..500).chain(0..500).chain(250..750);
        let runtime = Builder::new_current_thread().build().unwrap();
        let revoked = numbers().map(|number| revocations.revoke(key(number), NOW + 60));
        let results = runtime.block_on(join_all(revoked));
        assert!(results.iter().all(Result::is_ok));
        assert_eq!((revocations.len(), lines(&directory)), (750, 750));
        drop(revocations);
        let revocations = open(&directory, 10_000, &clock);
        assert_eq!(revocations.len(), 750);
        assert!((0..750).all(|number| revocations.contains(&key(number))));
        assert!(!revocations.contains(&key(750)));
    }

    #[test]
    fn the_file_is_rewritten_when_most_rows_have_expired() {
        let directory = TempDir::new().unwrap();
        let (clock, manual) = Clock::manual(NOW.0);
        let revocations = open(&directory, 100_000, &clock);
        assert!(revoke(&revocations, 0..3000, NOW + 60).iter().all(Result::is_ok));
        assert!(revoke(&revocations, 3000..3010, NOW + 9000).iter().all(Result::is_ok));
        assert_eq!(lines(&directory), 3010);
        // A row is kept for an hour after its token has expired, in case the clock is set back.
        manual.set((NOW + 60 + 3599).0);
        assert!(revoke(&revocations, 3010..7100, NOW + 9000).iter().all(Result::is_ok));
        assert!(revocations.contains(&key(0)));
        manual.set((NOW + 60 + 3600).0);
        // Write more lines than the rewrite threshold, which depends on the earlier batches.
        let enough = ledger::lines_for(7100) as u64;
        assert!(revoke(&revocations, 7100..enough, NOW + 9000).iter().all(Result::is_ok));
        assert!(revoke(&revocations, enough..enough + 1, NOW + 9000).iter().all(Result::is_ok));
        assert_eq!(revocations.len() as u64, enough + 1 - 3000);
        assert!(!revocations.contains(&key(0)));
        drop(revocations);
        // Opening drops expired rows from memory, and the first write drops them from the file.
        manual.set((NOW + 9000 + 3600).0);
        let revocations = open(&directory, 10_000, &clock);
        assert!(revocations.is_empty());
        assert!(revoke(&revocations, 0..1, NOW + 20_000)[0].is_ok());
        assert_eq!((revocations.len(), lines(&directory)), (1, 1));
    }

    #[test]
    fn a_full_set_accepts_more_when_a_row_has_expired() {
        let directory = TempDir::new().unwrap();
        let (clock, manual) = Clock::manual(NOW.0);
        let revocations = open(&directory, 3, &clock);
        let results = revoke(&revocations, 0..5, NOW + 60);
        let taken = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((taken, revocations.len()), (3, 3));
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(RevokeError::Full))));
        manual.set((NOW + 60 + 3599).0);
        assert_eq!(revoke(&revocations, 5..6, NOW + 9000), [Err(RevokeError::Full)]);
        manual.set((NOW + 60 + 3600).0);
        assert_eq!(revoke(&revocations, 6..7, NOW + 9000), [Ok(())]);
        assert_eq!(revocations.len(), 1);
        // All rows of the file are kept, even if their number exceeds the limit.
        assert!(revoke(&revocations, 7..9, NOW + 9000).iter().all(Result::is_ok));
        drop(revocations);
        let revocations = open(&directory, 1, &clock);
        assert_eq!(revocations.len(), 3);
        assert_eq!(revoke(&revocations, 20..21, NOW + 9000), [Err(RevokeError::Full)]);
    }
}
