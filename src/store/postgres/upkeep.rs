//! Drops the rows that are over, in batches of bounded size. Each server does so, by the clock of the
//! database; what one has dropped, the others do not find.

use std::time::{Duration, Instant};

use crate::store::postgres::database::{Database, Type};
use crate::store::postgres::failure::Failure;

/// When the rows of each table are dropped next.
pub(super) struct Upkeep {
    due: [Instant; TASKS.len()],
}

impl Upkeep {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: TASKS.map(|_| now) }
    }

    /// Does what is due at `now`: some batches of one table.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the statement. It is tried again when it is due next.
    pub(super) fn run(&mut self, database: &mut Database, now: Instant) -> Result<(), Failure> {
        let mut tasks = self.due.iter_mut().zip(TASKS);
        let Some((due, (sql, seconds))) = tasks.find(|(due, _)| **due <= now) else {
            return Ok(());
        };
        *due = now + Duration::from_secs(seconds);
        for _ in 0..MOST_BATCHES {
            let dropped: Option<i64> = database.value(sql, &[(&BATCH, Type::INT8)])?;
            if dropped.unwrap_or(0) < BATCH {
                return Ok(());
            }
        }
        // More are over: continue after the next poll.
        *due = now;
        Ok(())
    }
}

const BATCH: i64 = 2000;
/// The most batches between two polls. They take a fraction of a second, in which no change is read.
const MOST_BATCHES: usize = 5;
/// The statements, and how many seconds pass between two runs. Each drops at most `$1` rows, and
/// returns how many.
const TASKS: [(&str, u64); 5] = [
    ("select grantd.drop_uses($1)", 5),
    ("select grantd.drop_revocations($1)", 60),
    ("select grantd.drop_cut_offs($1)", 60),
    ("select grantd.drop_changes($1)", 60),
    ("select grantd.drop_shortened($1)", 60),
];
