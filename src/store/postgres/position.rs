//! How far a server has read the store.

use tracing::warn;

use crate::store::postgres::birth;
use crate::store::postgres::database::{Database, REQUEST_LIMIT};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::row::time;
use crate::store::postgres::snapshot_file::Source;
use crate::time::UnixTime;

/// How far the outbox was read: up to everything that the snapshot sees.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) epoch: String,
    pub(super) snapshot: String,
    /// When the epoch began.
    pub(super) since: UnixTime,
}

impl Position {
    /// Returns the position of a server that reads everything after this call. Begins an epoch if
    /// there is none.
    pub(super) fn begin(database: &mut Database) -> Result<Self, Failure> {
        for is_born in [false, true] {
            let rows = database.query(BEGIN, &[], REQUEST_LIMIT)?;
            if let Some(row) = rows.first() {
                let since = time(row.get(2)?);
                let begun = Self { epoch: row.get(0)?, snapshot: row.get(1)?, since };
                database.admit(&begun.epoch)?;
                return Ok(begun);
            }
            if !is_born {
                birth::write(database)?;
            }
        }
        Err(birth::missing(database.name()))
    }

    /// Returns the position that [`Self::begin`] returns. If the database was set back since `last`,
    /// lets an epoch begin first.
    pub(super) fn begin_after(
        last: Option<&Self>,
        database: &mut Database,
    ) -> Result<Self, Failure> {
        let begun = Self::begin(database)?;
        // A later birth than the last one is that of another server that has noticed it.
        let may_be_set_back = |last: &&Self| last.run() == begun.run() && begun.since <= last.since;
        let Some(last) = last.filter(may_be_set_back) else {
            return Ok(begun);
        };
        if !birth::renew(database, &last.snapshot)? {
            return Ok(begun);
        }
        warn!(
            store = %database.name().display(),
            "the database was set back while it ran: what was signed before is refused, and everything is read anew"
        );
        Self::begin(database)
    }

    /// The system, its timeline and the start of PostgreSQL, with which an epoch begins. After a promotion
    /// or a restart, transaction ids may go back, too, and the epoch is another one anyway.
    fn run(&self) -> Vec<&str> {
        self.epoch.split('/').take(3).collect()
    }

    /// Returns the store of this position. Its hosts are those of `known`.
    pub(super) fn source(
        &self,
        database: &mut Database,
        known: &Source,
    ) -> Result<Source, Failure> {
        let system = database.value(SYSTEM, &[])?.unwrap_or_default();
        let (epoch, since) = (self.epoch.clone(), self.since);
        let timelines = database.timelines();
        Ok(Source { system, epoch, since, timelines, ..known.clone() })
    }
}

const BEGIN: &str = "select p.epoch, p.snapshot, floor(extract(epoch from p.since))::bigint \
                     from grantd.poll(pg_current_snapshot()::text) p limit 1";
const SYSTEM: &str = "select s.system_identifier::text from pg_control_system() s";
