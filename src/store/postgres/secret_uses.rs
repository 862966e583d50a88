//! The uses of secrets, added up over all servers.

use std::time::{Duration, Instant};

use crate::state::secret_uses::{SecretUses, Unsent};
use crate::store::postgres::database::{Database, Parameter, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::row::{seconds, time};

/// How far the sums in the store are known.
pub(super) struct SecretUseRows {
    due: Instant,
    /// Sums that changed before this time are known. Unix seconds of the database.
    read_until: i64,
}

impl SecretUseRows {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, read_until: 0 }
    }

    /// If it is due at `now`, adds what this server has counted to the sums, and reads the sums that
    /// have changed.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a statement. What was not added is added the next time. If the database
    /// did not answer in time, it may be added twice.
    pub(super) fn run(
        &mut self,
        database: &mut Database,
        uses: &SecretUses,
        now: Instant,
    ) -> Result<(), Failure> {
        if now < self.due {
            return Ok(());
        }
        self.due = now + EVERY;
        let mut unsent = uses.unsent();
        unsent.retain(|one| is_storable(&one.label));
        for unsent in unsent.chunks(BATCH) {
            add(database, unsent)?;
            uses.note_sent(unsent);
        }
        let mut read_until = self.read_until;
        let parameters: [Parameter<'_>; 1] = [(&self.read_until, Type::INT8)];
        database.for_each(CHANGED, &parameters, REQUEST_LIMIT, |row| {
            read_until = row.get(4)?;
            let stored = u64::try_from(row.get::<i64>(2)?).unwrap_or(0);
            uses.learn(row.get(0)?, row.get(1)?, (stored, time(row.get(3)?)));
            Ok(())
        })?;
        self.read_until = read_until;
        Ok(())
    }
}

/// Whether the database takes this label. Otherwise the uses of all secrets in the batch would be
/// refused with it.
fn is_storable(label: &str) -> bool {
    label.len() <= LONGEST_LABEL && !label.contains('\0')
}

fn add(database: &mut Database, unsent: &[Unsent]) -> Result<(), Failure> {
    let clients: Vec<_> = unsent.iter().map(|one| &*one.client_id).collect();
    let labels: Vec<_> = unsent.iter().map(|one| &*one.label).collect();
    let uses: Vec<_> = unsent.iter().map(|one| i64::try_from(one.uses).unwrap_or(0)).collect();
    let last: Vec<_> = unsent.iter().map(|one| seconds(one.last)).collect();
    let parameters: [Parameter<'_>; 4] = [
        (&clients, Type::TEXT_ARRAY),
        (&labels, Type::TEXT_ARRAY),
        (&uses, Type::INT8_ARRAY),
        (&last, Type::INT8_ARRAY),
    ];
    database.query(ADD, &parameters, REQUEST_LIMIT).map(drop)
}

/// Sorted, so that two servers never wait for each other's rows. A sum stays at its limit: an error
/// would keep all uses of the batch from being added.
const ADD: &str = "\
    insert into grantd.secret_use as s (client_id, label, uses, last_used) \
    select t.client_id, t.label, least(t.uses, 4611686018427387904), t.last_used \
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) \
        as t (client_id, label, uses, last_used) \
    where exists (select from grantd.client c where c.client_id = t.client_id) \
    order by t.client_id, t.label \
    on conflict (client_id, label) do update set \
        uses = least(s.uses, 4611686018427387904 - excluded.uses) + excluded.uses, \
        last_used = greatest(s.last_used, excluded.last_used), \
        at = clock_timestamp()";
/// A sum may become visible some time after it was added up.
const CHANGED: &str = "\
    select s.client_id, s.label, s.uses, s.last_used, \
        floor(extract(epoch from now()))::bigint - 60 \
    from grantd.secret_use s where s.at >= to_timestamp($1::bigint)";
const EVERY: Duration = Duration::from_secs(20);
/// The most bytes of a label. The database takes as many characters.
const LONGEST_LABEL: usize = 1000;
/// The number of sums that one statement changes.
const BATCH: usize = 1000;
