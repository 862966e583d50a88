//! Drops the rows that are over, in batches of bounded size. Each node does so, by the clock of the
//! database; what one has dropped, the others do not find.

use std::time::{Duration, Instant};

use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::Failure;

/// When the rows of each table are dropped next.
pub(super) struct Upkeep {
    tasks: [Task; 4],
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
            tasks: [task(USES, 10), task(REVOCATIONS, 60), task(CUT_OFFS, 60), task(OUTBOX, 60)],
        }
    }

    /// Does what is due at `now`: at most one batch of one table.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the statement. It is tried again when it is due next.
    pub(super) fn run(&mut self, database: &mut Database, now: Instant) -> Result<(), Failure> {
        let Some(task) = self.tasks.iter_mut().find(|task| task.due <= now) else { return Ok(()) };
        task.due = now + task.every;
        let rows = database.query(task.sql, &[(&BATCH, Type::INT8)], REQUEST_LIMIT)?;
        let dropped: i64 = rows.first().map_or(Ok(0), |row| row.get(0))?;
        if dropped >= BATCH {
            // More are over: continue after the next poll.
            task.due = now;
        }
        Ok(())
    }
}

const BATCH: i64 = 2000;
const USES: &str = "\
    with over as (\
        select g.key from grantd.guard g where g.ends < clock_timestamp() order by g.ends limit $1\
    ), dropped as (\
        delete from grantd.guard g using over o where g.key = o.key returning 1\
    ) \
    select count(*) from dropped";
/// A row is kept for an hour after the token has expired, as in the file: the clock of a node may be
/// set back. The rows of a cut-off are not needed.
const REVOCATIONS: &str = "\
    with over as (\
        (select r.key from grantd.revocation r \
            where r.expires_at < extract(epoch from clock_timestamp())::bigint - 3600 limit $1) \
        union \
        (select r.key from grantd.revocation r join grantd.cut_off c on c.client = r.client \
            where r.expires_at <= c.until limit $1)\
    ), dropped as (\
        delete from grantd.revocation r using over o where r.key = o.key returning 1\
    ) \
    select count(*) from dropped";
const CUT_OFFS: &str = "\
    with over as (\
        select c.client from grantd.cut_off c \
        where c.until < extract(epoch from clock_timestamp())::bigint - 3600 limit $1\
    ), dropped as (\
        delete from grantd.cut_off c using over o where c.client = o.client returning 1\
    ) \
    select count(*) from dropped";
/// A node that is away for longer than an hour reads everything anew. The note of what was dropped
/// is written in the same transaction.
const OUTBOX: &str = "\
    with over as (\
        select n.seq from grantd.changes n \
        where n.at < clock_timestamp() - interval '1 hour' order by n.at limit $1\
    ), dropped as (\
        delete from grantd.changes n using over o where n.seq = o.seq returning n.xid\
    ), noted as (\
        update grantd.pruned p set xid = greatest(p.xid, d.xid) \
        from (select xid from dropped order by xid desc limit 1) d \
        returning 1\
    ) \
    select (select count(*) from dropped) + 0 * (select count(*) from noted)";
