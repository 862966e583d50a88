//! The birth of the guard's contents: a row that is lost with them, and that begins an epoch.

use std::path::Path;

use crate::store::postgres::database::{Database, REQUEST_LIMIT};
use crate::store::postgres::failure::{Failure, FailureKind};

/// Writes the birth, unless there is one that counts. Afterwards there is one epoch, no matter which node wrote
/// its birth.
///
/// # Errors
///
/// The [`Failure`] of the statement.
pub(super) fn write(database: &mut Database) -> Result<(), Failure> {
    database.query(BIRTH, &[], REQUEST_LIMIT).map(drop)
}

/// Returns the failure that a birth that was just written does not count.
pub(super) fn missing(store: &Path) -> Failure {
    let problem = "records no use of an assertion or proof: the table grantd.guard must be \
                   UNLOGGED and on the primary: see `grantd store status`";
    Failure::new(FailureKind::Schema, store, problem)
}

/// Removes a birth that does not count: it came with a dump. The rows of the outbox that came with
/// the dump may be of transactions that this server has yet to run.
const BIRTH: &str = "\
    with dead as (\
        delete from grantd.guard where key = '' and not exists (select from grantd.epoch) \
        returning 1\
    ), future as (\
        delete from grantd.changes where xid >= pg_snapshot_xmax(pg_current_snapshot()) \
            and not exists (select from grantd.epoch) \
        returning 1\
    ), unpruned as (\
        update grantd.pruned set xid = '0' where not exists (select from grantd.epoch) \
        returning 1\
    ) \
    insert into grantd.guard (key, ends, born, xid, system, life) \
    select '', 'infinity', clock_timestamp(), pg_current_xact_id(), system_identifier, \
        gen_random_uuid() \
    from pg_control_system() \
    where (select count(*) from dead) + (select count(*) from future) \
        + (select count(*) from unpruned) >= 0 \
    on conflict (key) do nothing";
