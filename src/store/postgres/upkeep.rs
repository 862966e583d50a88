//! Drops the rows that are over, in batches of bounded size. Each server does so, by the clock of the
//! database; what one has dropped, the others do not find.

use std::time::{Duration, Instant};

use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::Failure;

/// When the rows of each table are dropped next.
pub(super) struct Upkeep {
    tasks: [Task; 5],
}

struct Task {
    /// Drops at most `$1` rows, and returns how many.
    sql: &'static str,
    every: Duration,
    due: Instant,
}

impl Upkeep {
    pub(super) fn new(now: Instant) -> Self {
        let task = |sql, seconds| {
            let every = Duration::from_secs(seconds);
            Task { sql, every, due: now }
        };
        Self {
            tasks: [
                task(USES, 5),
                task(REVOCATIONS, 60),
                task(CUT_OFFS, 60),
                task(OUTBOX, 60),
                task(SHORTENED, 60),
            ],
        }
    }

    /// Does what is due at `now`: some batches of one table.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the statement. It is tried again when it is due next.
    pub(super) fn run(&mut self, database: &mut Database, now: Instant) -> Result<(), Failure> {
        let Some(task) = self.tasks.iter_mut().find(|task| task.due <= now) else { return Ok(()) };
        task.due = now + task.every;
        for _ in 0..MOST_BATCHES {
            let rows = database.query(task.sql, &[(&BATCH, Type::INT8)], REQUEST_LIMIT)?;
            let dropped: i64 = rows.first().map_or(Ok(0), |row| row.get(0))?;
            if dropped < BATCH {
                return Ok(());
            }
        }
        // More are over: continue after the next poll.
        task.due = now;
        Ok(())
    }
}

const BATCH: i64 = 2000;
/// The most batches between two polls. They take a fraction of a second, in which no change is read.
const MOST_BATCHES: usize = 5;
const USES: &str = "select grantd.drop_uses($1)";
const REVOCATIONS: &str = "select grantd.drop_revocations($1)";
const CUT_OFFS: &str = "select grantd.drop_cut_offs($1)";
const SHORTENED: &str = "select grantd.drop_shortened($1)";
const OUTBOX: &str = "select grantd.drop_changes($1)";
