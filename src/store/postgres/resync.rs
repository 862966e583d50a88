//! Brings the revocations that this server knows and those in the store together.

use std::collections::{HashMap, HashSet};

use tracing::warn;

use crate::state::revocations::ledger::{Shared, is_over};
use crate::store::postgres::database::{Database, ROW_LIMIT};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::revocations;
use crate::store::postgres::snapshot_file::{Item, SnapshotFile};
use crate::time::UnixTime;

/// Reads all revocations and cut-offs into memory and into the snapshot. Writes those back that are in
/// memory and that the store has lost: a standby that was promoted may lack the last ones.
pub(super) fn resync_revoked(
    database: &mut Database,
    shared: &Shared,
    snapshot_file: &mut SnapshotFile,
    now: UnixTime,
) -> Result<(), Failure> {
    let revoked = &shared.revoked;
    let mut lost_cut_offs: HashMap<_, _> = revoked.cut_offs().into_iter().collect();
    database.for_each(ALL_CUT_OFFS, &[], ROW_LIMIT, |row| {
        if let Some((client, until)) = revocations::read_cut_off(&row)? {
            if lost_cut_offs.get(&client).is_some_and(|own| *own <= until) {
                lost_cut_offs.remove(&client);
            }
            revoked.insert_cut_off(client, until);
            snapshot_file.add(&Item::CutOff(client, until));
        }
        Ok(())
    })?;
    // What is over, or covered by a cut-off, was dropped from the store, not lost.
    shared.drop_over(now);
    lost_cut_offs.retain(|_, until| !is_over(*until, now));
    let mut lost = HashSet::with_capacity(revoked.len());
    revoked.for_each(|row| {
        lost.insert(row.key);
    });
    database.for_each(ALL_REVOKED, &[], ROW_LIMIT, |row| {
        if let Some(row) = revocations::read(&row)? {
            lost.remove(&row.key);
            snapshot_file.add(&Item::Revoked(row));
            revoked.insert(row);
        }
        Ok(())
    })?;
    if lost.is_empty() && lost_cut_offs.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(lost.len());
    revoked.for_each(|row| {
        if lost.contains(&row.key) {
            rows.push(row);
        }
    });
    let cut_offs: Vec<_> = lost_cut_offs.into_iter().collect();
    revocations::put_cut_offs(database, &cut_offs)?;
    revocations::put(database, &rows)?;
    warn!(
        store = %database.name().display(),
        revocations = rows.len(),
        cut_offs = cut_offs.len(),
        "the store had lost revocations that are in force here: they are written back"
    );
    Ok(())
}

const ALL_REVOKED: &str = "select r.key, r.client, r.expires_at from grantd.revocation r \
                           where r.expires_at > extract(epoch from clock_timestamp())::bigint - 3600";
const ALL_CUT_OFFS: &str = "select c.client, c.until from grantd.cut_off c";
