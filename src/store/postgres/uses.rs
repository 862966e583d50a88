//! Uses of assertions and proofs as rows: a use is accepted if its row was inserted.
//!
//! The database decides, by its own clock. It refuses what has ended, what is used, what is signed in
//! the future, and what was signed before the birth of the table, which may have been used before it.
//! Each time has the tolerance for clocks. The birth is a row of the same table. PostgreSQL does not
//! log this table, so the birth and the uses are lost together when it crashes or a standby is
//! promoted.
//!
//! The server keeps in memory what it has recorded, for the shares of its clients.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::oauth::client_assertion::SKEW;
use crate::state::group_commit::{Commit, Waiting};
use crate::state::store_health::StoreHealth;
use crate::state::uses::UseError;
use crate::state::uses::index::Index;
use crate::state::uses::single_use::{Use, Wish};
use crate::store::postgres::birth;
use crate::store::postgres::database::{Database, Parameter, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::row::{seconds, time};
use crate::telemetry::once_a_second::OnceASecond;
use crate::time::UnixTime;

/// Records uses as rows.
pub(super) struct UseRows {
    pub(super) database: Database,
    /// The live uses of this server.
    pub(super) index: Index,
    /// The most uses of this server that can be live.
    pub(super) capacity: usize,
    pub(super) clock: Clock,
    pub(super) health: Arc<StoreHealth>,
    pub(super) complaints: OnceASecond,
    /// Why the last use could not be recorded.
    pub(super) unrecorded: Arc<Mutex<Option<String>>>,
}

/// The answer of the database to an insert.
struct Inserted {
    keys: HashSet<Vec<u8>>,
    /// An assertion or proof that was signed at this time or earlier is refused.
    refused_until: UnixTime,
    /// A use that ends at this time or earlier may have been dropped.
    dropped_until: UnixTime,
    now: UnixTime,
}

impl Inserted {
    /// Why the use was not inserted; `None` if it was.
    fn refusal(&self, Use { entry, signed_at }: Use) -> Option<UseError> {
        if self.keys.contains(&entry.key[..]) {
            None
        } else if signed_at <= self.refused_until {
            Some(UseError::BeforeRecord)
        } else if entry.until <= self.now.max(self.dropped_until) {
            Some(UseError::Forgotten)
        } else if signed_at > self.now + SKEW {
            Some(UseError::Ahead)
        } else {
            Some(UseError::Used)
        }
    }
}

impl UseRows {
    fn record(&mut self, waiting: Vec<Wish>) {
        let now = self.clock.now();
        self.index.drop_until(now);
        self.index.set_time(now);
        let (mut batch, mut keys, mut twins) = (Vec::new(), HashSet::new(), Vec::new());
        for wish in waiting.into_iter().filter(Waiting::is_awaited) {
            let entry = wish.job.entry;
            if keys.contains(&entry.key) {
                twins.push(wish);
            } else if self.index.contains(&entry.key) {
                wish.answer(Err(UseError::Used));
            } else if let Err(error) = self.index.require_room(entry.client, self.capacity, now) {
                wish.answer(Err(error));
            } else {
                self.index.insert(entry);
                keys.insert(entry.key);
                batch.push(wish);
            }
        }
        if batch.is_empty() {
            return;
        }
        let uses: Vec<_> = batch.iter().map(|wish| wish.job).collect();
        let inserted = self.insert(&uses);
        *self.unrecorded.lock() = inserted.as_ref().err().map(ToString::to_string);
        match inserted {
            Ok(inserted) => self.answer(batch, twins, &inserted),
            Err(failure) => {
                uses.iter().for_each(|lost| self.index.remove(lost.entry));
                if self.complaints.is_due(now).is_some() {
                    error!(error = %failure, "the use of an assertion or proof was not recorded");
                }
            }
        }
    }

    fn answer(&mut self, batch: Vec<Wish>, twins: Vec<Wish>, inserted: &Inserted) {
        for twin in twins {
            let refused = inserted.refusal(twin.job).unwrap_or(UseError::Used);
            twin.answer(Err(refused));
        }
        for wish in batch {
            let refused = inserted.refusal(wish.job);
            if refused.is_some() {
                self.index.remove(wish.job.entry);
            }
            wish.answer(refused.map_or(Ok(()), Err));
        }
    }

    /// Inserts the rows of `uses`, all in one statement. The keys differ.
    fn insert(&mut self, uses: &[Use]) -> Result<Inserted, Failure> {
        if let Some(inserted) = self.try_insert(uses)? {
            return Ok(inserted);
        }
        birth::write(&mut self.database)?;
        warn!(
            "the record of used assertions and proofs begins anew: what was signed before is refused"
        );
        let inserted = self.try_insert(uses)?;
        inserted.ok_or_else(|| birth::missing(self.database.name()))
    }

    /// `None` if the table has no birth.
    fn try_insert(&mut self, uses: &[Use]) -> Result<Option<Inserted>, Failure> {
        let keys: Vec<_> = uses.iter().map(|one| one.entry.key.as_slice()).collect();
        let clients: Vec<_> = uses.iter().map(|one| one.entry.client.as_slice()).collect();
        let ends: Vec<_> = uses.iter().map(|one| seconds(one.entry.until.min(LAST))).collect();
        let signed: Vec<_> = uses.iter().map(|one| seconds(one.signed_at.min(LAST))).collect();
        let skew = seconds(UnixTime(SKEW));
        let parameters: [Parameter<'_>; 5] = [
            (&keys, Type::BYTEA_ARRAY),
            (&clients, Type::BYTEA_ARRAY),
            (&ends, Type::INT8_ARRAY),
            (&signed, Type::INT8_ARRAY),
            (&skew, Type::INT8),
        ];
        let rows = self.database.query(INSERT, &parameters, REQUEST_LIMIT)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let Some(epoch) = row.get::<Option<&str>>(0)? else { return Ok(None) };
        self.database.admit(epoch)?;
        let keys: Option<Vec<Vec<u8>>> = row.get(4)?;
        Ok(Some(Inserted {
            keys: keys.unwrap_or_default().into_iter().collect(),
            refused_until: time(row.get(1)?),
            dropped_until: time(row.get(2)?),
            now: time(row.get(3)?),
        }))
    }

    /// Looks whether uses can be recorded again.
    fn look(&mut self) {
        if self.unrecorded.lock().is_none() {
            return;
        }
        let seen = self.database.query(LOOK, &[], REQUEST_LIMIT);
        *self.unrecorded.lock() = seen.err().map(|failure| failure.to_string());
    }
}

impl Commit<Use, Result<(), UseError>> for UseRows {
    fn turn(&mut self, waiting: Vec<Wish>) {
        if !self.health.is_up() {
            // It may hang: no request waits to see that.
            return;
        }
        if waiting.is_empty() {
            self.look();
        } else {
            self.record(waiting);
        }
    }
}

/// Returns one row: the epoch (null if the table has no birth), the time up to which what was signed
/// is refused, the time up to which rows were dropped, the time, and the keys that were inserted.
/// Sorted, so that two servers never wait for each other's rows.
///
/// An assertion or proof that was signed later than the tolerance for clocks allows, by the clock of
/// the database, is not inserted: if the rows were lost now, it would be accepted once more.
const INSERT: &str = "\
    with birth as materialized (\
        select e.epoch, e.since + make_interval(secs => $5::bigint) as since, \
            coalesce(e.dropped, to_timestamp(0)) as dropped \
        from grantd.epoch e\
    ), used as (\
        select t.key, t.client, to_timestamp(t.until) as ends, to_timestamp(t.signed) as signed \
        from unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[]) \
            as t (key, client, until, signed)\
    ), inserted as (\
        insert into grantd.guard (key, client, ends) \
        select u.key, u.client, u.ends from used u, birth b \
        where u.ends > clock_timestamp() and u.ends > b.dropped and u.signed > b.since \
            and u.signed <= clock_timestamp() + make_interval(secs => $5::bigint) \
        order by u.key \
        on conflict (key) do nothing \
        returning key\
    ) \
    select b.epoch, floor(extract(epoch from b.since))::bigint, \
        floor(extract(epoch from b.dropped))::bigint, \
        floor(extract(epoch from clock_timestamp()))::bigint, \
        (select array_agg(i.key) from inserted i) \
    from (select) one left join birth b on true";
const LOOK: &str = "select from grantd.epoch";
/// The last time that the database is given: the end of the year 9999.
const LAST: UnixTime = UnixTime(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::uses::single_use::Entry;

    #[test]
    fn a_use_that_was_not_inserted_has_its_reason() {
        for (key, signed_at, until, dropped_until, refused) in [
            (1, 150, 250, 90, None),
            (2, 150, 250, 90, Some(UseError::Used)),
            (2, 100, 250, 90, Some(UseError::BeforeRecord)),
            (2, 101, 200, 90, Some(UseError::Forgotten)),
            (2, 210, 250, 90, Some(UseError::Used)),
            (2, 211, 250, 90, Some(UseError::Ahead)),
            // What was dropped ends later than now: the clock was set back.
            (2, 150, 240, 240, Some(UseError::Forgotten)),
        ] {
            let [signed_at, until, dropped_until, refused_until, now] =
                [signed_at, until, dropped_until, 100, 200].map(UnixTime);
            let keys = HashSet::from([vec![1; 16]]);
            let inserted = Inserted { keys, refused_until, dropped_until, now };
            let entry = Entry { key: [key; 16], client: [0; 8], until };
            assert_eq!(inserted.refusal(Use { entry, signed_at }), refused, "{signed_at:?}");
        }
    }
}
