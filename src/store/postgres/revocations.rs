//! Revocations and cut-offs as rows.
//!
//! The server that revokes a token acknowledges it when its row is committed. The other servers learn of
//! the row by their next poll.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::error;

use crate::fault::Fault;
use crate::state::revocations::RevocationKey;
use crate::state::revocations::ledger::{Medium, Shared};
use crate::state::revocations::revoked::Row;
use crate::state::shares::ClientTag;
use crate::state::store_health::StoreHealth;
use crate::store::postgres::database::{Database, Parameter, REQUEST_LIMIT, Row as Answer, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::row::{PART, seconds, time};
use crate::store::postgres::snapshot_file::Item;
use crate::time::UnixTime;

/// The revocations that this server has written, until a poll brings them.
pub(super) type Unpolled = Arc<Mutex<Vec<Item<'static>>>>;

/// Writes revocations and cut-offs as rows.
pub(super) struct RevocationRows {
    pub(super) database: Database,
    pub(super) shared: Arc<Shared>,
    pub(super) health: Arc<StoreHealth>,
    pub(super) unpolled: Unpolled,
}

impl Medium for RevocationRows {
    type Turn = ();

    /// The thread that follows the store reads what other servers have written.
    fn look(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Fault> {
        if self.health.is_up() {
            return Ok(());
        }
        // It may hang: no request waits to see that.
        Err(Fault::new(self.database.name(), "does not answer"))
    }

    fn size(&self) -> usize {
        self.shared.revoked.len()
    }

    fn most(&self) -> usize {
        self.shared.revoked.len().saturating_mul(2).saturating_add(LEAST)
    }

    fn write(&mut self, rows: &[Row]) -> (usize, io::Result<()>) {
        match put(&mut self.database, rows) {
            Ok(()) => {
                self.unpolled.lock().extend(rows.iter().copied().map(Item::Revoked));
                (rows.len(), Ok(()))
            }
            // If the rows were committed all the same, the next poll brings them.
            Err(failure) => (0, Err(io::Error::other(failure.to_string()))),
        }
    }

    fn write_cut_off(&mut self, client: ClientTag, until: UnixTime) -> (bool, io::Result<()>) {
        match put_cut_offs(&mut self.database, &[(client, until)]) {
            Ok(()) => {
                self.unpolled.lock().push(Item::CutOff(client, until));
                (true, Ok(()))
            }
            Err(failure) => (false, Err(io::Error::other(failure.to_string()))),
        }
    }

    fn complain(&self, error: &dyn fmt::Display) {
        error!(%error, "a revocation was not written");
    }
}

/// Writes those of `rows` that are missing or end earlier.
pub(super) fn put(database: &mut Database, rows: &[Row]) -> Result<(), Failure> {
    for rows in rows.chunks(PART) {
        let keys: Vec<_> = rows.iter().map(|row| row.key.as_bytes()).collect();
        let clients: Vec<_> =
            rows.iter().map(|row| row.owner.as_ref().map_or(&[][..], |owner| owner)).collect();
        let ends: Vec<_> = rows.iter().map(|row| seconds(row.expires_at)).collect();
        let parameters: [Parameter<'_>; 3] =
            [(&keys, Type::BYTEA_ARRAY), (&clients, Type::BYTEA_ARRAY), (&ends, Type::INT8_ARRAY)];
        database.query(INSERT, &parameters, REQUEST_LIMIT)?;
    }
    Ok(())
}

/// Writes those of `cut_offs` that are missing or earlier.
pub(super) fn put_cut_offs(
    database: &mut Database,
    cut_offs: &[(ClientTag, UnixTime)],
) -> Result<(), Failure> {
    for cut_offs in cut_offs.chunks(PART) {
        let clients: Vec<_> = cut_offs.iter().map(|(client, _)| client.as_slice()).collect();
        let ends: Vec<_> = cut_offs.iter().map(|(_, until)| seconds(*until)).collect();
        let parameters: [Parameter<'_>; 2] =
            [(&clients, Type::BYTEA_ARRAY), (&ends, Type::INT8_ARRAY)];
        database.query(INSERT_CUT_OFF, &parameters, REQUEST_LIMIT)?;
    }
    Ok(())
}

/// Reads a row of the columns `key`, `client` and `expires_at`.
pub(super) fn read(answer: &Answer) -> Result<Option<Row>, Failure> {
    let key = RevocationKey::of_bytes(answer.get(0)?);
    let owner: &[u8] = answer.get(1)?;
    // An earlier release knew no owners.
    let owner = owner.try_into().ok();
    let expires_at = time(answer.get(2)?);
    Ok(key.map(|key| Row { key, expires_at, owner }))
}

/// Reads a row of the columns `client` and `until`.
pub(super) fn read_cut_off(answer: &Answer) -> Result<Option<(ClientTag, UnixTime)>, Failure> {
    let client: &[u8] = answer.get(0)?;
    let until = time(answer.get(1)?);
    Ok(client.try_into().ok().map(|client| (client, until)))
}

const INSERT: &str = "select from grantd.revoke($1::bytea[], $2::bytea[], $3::bigint[])";
const INSERT_CUT_OFF: &str = "select from grantd.cut_off($1::bytea[], $2::bigint[])";
/// As long as there are at most this many rows in memory, none is dropped because it is over.
const LEAST: usize = 1000;
