//! The thread that writes revocations for all requests that wait. It decides what is written: which
//! rows have room, and which client gets a cut-off. A [`Medium`] writes it.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::oauth::error::Cause;
use crate::state::group_commit::{Commit, Waiting};
use crate::state::revocations::key::RevocationKey;
use crate::state::revocations::revoked::{Revoked, Row};
use crate::state::shares::{ClientTag, Shares, client_tag, is_used_up};
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::once_a_second::OnceASecond;
use crate::time::UnixTime;

/// The state that the thread and the requests share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) revoked: Revoked,
    pub(super) cut_offs: AtomicU64,
    /// Why the file could not be read at the last look; `None` if it could.
    pub(super) unread: Mutex<Option<Fault>>,
    /// Why the last revocation could not be written, or the next one cannot.
    pub(super) unwritten: Mutex<Option<Fault>>,
}

impl Shared {
    /// Drops what is over at `now`, and the rows of tokens that a cut-off revokes.
    pub(crate) fn drop_over(&self, now: UnixTime) {
        let revoked = &self.revoked;
        revoked.drop_over(|expires_at, owner| {
            is_over(expires_at, now)
                || owner.is_some_and(|owner| revoked.cut_off(owner) >= expires_at)
        });
        revoked.drop_cut_offs(|time| is_over(time, now));
    }
}

/// A token to revoke.
pub(crate) struct Revocation {
    pub(super) client_id: Box<str>,
    pub(super) key: RevocationKey,
    pub(super) expires_at: UnixTime,
}

/// A token to revoke, and the request that waits for it.
type Wish = Waiting<Revocation, Result<(), Cause>>;

/// The place where revocations are written.
pub(crate) trait Medium: Send + 'static {
    /// Held until the end of a turn.
    type Turn;

    /// Puts in force what others have written, when no request waits.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it cannot be read.
    fn look(&mut self) -> Result<(), Fault>;

    /// Begins a turn. Afterwards, rows can be written.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if nothing can be written at present.
    fn begin(&mut self) -> Result<Self::Turn, Fault>;

    /// The number of entries, including those that are over.
    fn size(&self) -> usize;

    /// The [size](Medium::size) above which most entries are over.
    fn most(&self) -> usize;

    /// Writes rows. Returns how many of them are written, of which a part may not be acknowledged
    /// because of the error.
    fn write(&mut self, rows: &[Row]) -> (usize, io::Result<()>);

    /// Writes a cut-off. Returns whether it is written, even if it must not be acknowledged because
    /// of the error.
    fn write_cut_off(&mut self, client: ClientTag, until: UnixTime) -> (bool, io::Result<()>);

    /// Logs that a revocation was not written.
    fn complain(&self, error: &dyn fmt::Display);
}

/// Decides what is written to the medium.
pub(crate) struct Ledger<M> {
    medium: M,
    shared: Arc<Shared>,
    /// When rows that are over were dropped last, and at which size of the medium they are dropped
    /// next.
    dropped_at: Option<UnixTime>,
    drop_at_size: usize,
    limit: usize,
    clock: Clock,
    audit: Option<Arc<Audit>>,
    complaints: OnceASecond,
}

impl<M: Medium> Ledger<M> {
    /// While there are `limit` rows or more, no row is written. `audit` gets an event for each
    /// cut-off.
    pub(crate) fn new(
        medium: M,
        shared: Arc<Shared>,
        limit: usize,
        clock: Clock,
        audit: Option<Arc<Audit>>,
    ) -> Self {
        let complaints = OnceASecond::default();
        Self { medium, shared, dropped_at: None, drop_at_size: 0, limit, clock, audit, complaints }
    }

    fn revoke(&mut self, waiting: Vec<Wish>) {
        let now = self.clock.now();
        let is_full = self.shared.revoked.len() + waiting.len() > self.limit;
        // Drop expired rows in two cases: when the number of entries may have doubled since the last
        // drop, and when the new rows would exceed the limit. In the second case, drop them at most
        // once per second. A drop passes over all rows, which is acceptable because both cases are
        // rare.
        if self.medium.size() >= self.drop_at_size || (is_full && self.dropped_at != Some(now)) {
            self.shared.drop_over(now);
            self.dropped_at = Some(now);
            self.drop_at_size = self.medium.most();
        }
        let mut batch = Batch::default();
        for waiting in waiting.into_iter().filter(Waiting::is_awaited) {
            let Revocation { client_id, key, expires_at } = &waiting.job;
            let owner = client_tag(client_id);
            if batch.keys.contains(key) {
                batch.waiting.push(waiting);
                continue;
            }
            let held = self.shared.revoked.held_by(owner) + batch.held.of(owner);
            if is_used_up(held, self.free(&batch), self.limit) {
                self.flush(std::mem::take(&mut batch));
                if let Err(error) = self.cut_off_half(client_id) {
                    self.complain(&error);
                    continue;
                }
            }
            if self.shared.revoked.contains_until(key, *expires_at)
                || self.shared.revoked.cut_off(owner) >= *expires_at
            {
                waiting.answer(Ok(()));
            } else if self.free(&batch) == 0 {
                waiting.answer(Err(Cause::RevocationsFull));
            } else {
                let row = Row { key: *key, expires_at: *expires_at, owner: Some(owner) };
                batch.push(waiting, row);
            }
        }
        self.flush(batch);
    }

    /// The number of rows that may be added to those in memory and in `batch`.
    fn free(&self, batch: &Batch) -> usize {
        self.limit.saturating_sub(self.shared.revoked.len() + batch.rows.len())
    }

    /// Writes the rows of `batch` and answers its requests.
    fn flush(&mut self, batch: Batch) {
        let Batch { rows, waiting, .. } = batch;
        let (written, result) =
            if rows.is_empty() { (0, Ok(())) } else { self.medium.write(&rows) };
        // What is written counts after a restart, so it counts now, even if the disk could not be
        // synced and the client must try again.
        for row in &rows[..written] {
            self.shared.revoked.insert(*row);
        }
        if let Err(error) = &result {
            self.complain(error);
        }
        for waiting in waiting {
            if result.is_ok()
                || (is_torn(&result) && self.shared.revoked.contains(&waiting.job.key))
            {
                waiting.answer(Ok(()));
            }
        }
    }

    /// Revokes every token of the client that expires no later than the last of the half of its rows
    /// that end first, in place of these rows.
    fn cut_off_half(&mut self, client_id: &str) -> io::Result<()> {
        let client = client_tag(client_id);
        let mut ends = Vec::new();
        self.shared.revoked.for_each(|row| {
            if row.owner == Some(client) {
                ends.push(row.expires_at);
            }
        });
        ends.sort_unstable();
        let Some(&until) = ends.get(ends.len().div_ceil(2).saturating_sub(1)) else {
            return Ok(());
        };
        let (is_written, result) = self.medium.write_cut_off(client, until);
        if is_written {
            self.shared.revoked.insert_cut_off(client, until);
            self.shared.drop_over(self.clock.now());
            let rows = ends.partition_point(|end| *end <= until);
            self.shared.cut_offs.fetch_add(1, Ordering::Relaxed);
            warn!(
                client = client_id,
                until = until.0,
                rows,
                "the client holds its share of limits.revocations: all its tokens that expire until then (Unix seconds) are revoked, in place of these rows"
            );
            if let Some(audit) = &self.audit {
                audit.write(&Event::CutOff { client: client_id, until, rows });
            }
        }
        result
    }

    fn complain(&self, error: &dyn fmt::Display) {
        if self.complaints.is_due(self.clock.now()).is_some() {
            self.medium.complain(error);
        }
    }
}

impl<M: Medium> Commit<Revocation, Result<(), Cause>> for Ledger<M> {
    fn turn(&mut self, waiting: Vec<Wish>) {
        if waiting.is_empty() {
            // What is in force does not change until the medium can be read again.
            if let Err(fault) = self.medium.look()
                && self.complaints.is_due(self.clock.now()).is_some()
            {
                error!(error = %fault, "the revocations of other processes cannot be read");
            }
            return;
        }
        match self.medium.begin() {
            Ok(_turn) => self.revoke(waiting),
            Err(fault) => self.complain(&fault),
        }
    }
}

/// Rows to write, and the requests that wait for them.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    keys: HashSet<RevocationKey>,
    held: Shares,
    waiting: Vec<Wish>,
}

impl Batch {
    fn push(&mut self, waiting: Wish, row: Row) {
        self.keys.insert(row.key);
        if let Some(owner) = row.owner {
            self.held.add(owner);
        }
        self.rows.push(row);
        self.waiting.push(waiting);
    }
}

/// Whether a write ended in the middle.
fn is_torn(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WriteZero)
}

/// Whether what ends at `time` may be dropped at `now`. A row is kept for an hour after the token has
/// expired, so that no revoked token becomes valid if the clock is set back by up to an hour.
pub(crate) fn is_over(time: UnixTime, now: UnixTime) -> bool {
    time + CLOCK_STEP <= now
}

/// The time in seconds for which a row is kept after its token has expired.
const CLOCK_STEP: u64 = 3600;
