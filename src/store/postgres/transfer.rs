//! Copies clients and keys from files into the store and back.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::key_file;
use crate::state::revocations::ledger::Shared;
use crate::store::postgres::client_document;
use crate::store::postgres::database::{BULK_LIMIT, Database, Transaction};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::keys::{self, SealedKey};
use crate::store::postgres::resync::resync_revoked;
use crate::store::postgres::revocations;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::SnapshotFile;
use crate::time::UnixTime;

/// Clients and keys.
pub struct Contents {
    /// The id and the entry of each client, in the order of the registry.
    pub clients: Vec<(String, String)>,
    /// The `kid` and the document of each key that is not retired, in the order of the `kid`s.
    pub keys: Vec<(String, Zeroizing<String>)>,
}

/// The result of [`import`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The store was empty and holds everything now.
    All,
    /// The store held the same already.
    Nothing,
}

/// Writes `contents` into an empty store: all of it or nothing.
///
/// # Errors
///
/// The [`Fault`]. It is a fault if the store is not empty, unless it holds the same.
pub fn import(
    database: &mut Database,
    contents: &Contents,
    master_keys: &MasterKeys,
) -> Result<Imported, Fault> {
    database.transaction(BULK_LIMIT, |transaction| {
        transaction.query(LOCK, &[])?;
        let found = read(transaction, master_keys)?;
        if !found.clients.is_empty()
            || !found.keys.is_empty()
            || transaction.value(HAS_KEY, &[])? == Some(true)
        {
            if is_same(&found, contents) {
                return Ok(Imported::Nothing);
            }
            let (clients, keys) = (found.clients.len(), found.keys.len());
            let problem = format!(
                "holds {clients} clients and {keys} keys, which are not those of the files: import \
                 into an empty store, or register further clients with `grantd client import`"
            );
            return Err(Fault::new(transaction.store(), problem));
        }
        client_document::insert(transaction, &contents.clients)?;
        for (_, document) in &contents.keys {
            let store = transaction.store().to_owned();
            let key = key_file::parse(&store, document)?;
            let row = SealedKey::seal(&store, master_keys, &key, document, &[])?;
            transaction.query(keys::ADD, &row.parameters())?;
        }
        Ok(Imported::All)
    })
}

/// Reads all clients, and all keys that are not retired, as they are at one time.
///
/// # Errors
///
/// The [`Fault`]. It is a fault if a key cannot be opened.
pub fn export(database: &mut Database, master_keys: &MasterKeys) -> Result<Contents, Fault> {
    database.reading(BULK_LIMIT, |transaction| read(transaction, master_keys))
}

/// Adds revocations and cut-offs to those in the store. Returns their numbers.
///
/// # Errors
///
/// The [`Failure`].
pub(crate) fn import_revoked(
    database: &mut Database,
    from: &Shared,
) -> Result<(usize, usize), Failure> {
    let mut rows = Vec::with_capacity(from.revoked.len());
    from.revoked.for_each(|row| rows.push(row));
    let cut_offs = from.revoked.cut_offs();
    revocations::put_cut_offs(database, &cut_offs)?;
    revocations::put(database, &rows)?;
    Ok((rows.len(), cut_offs.len()))
}

/// Reads the revocations and cut-offs that are not over at `now`.
///
/// # Errors
///
/// The [`Failure`].
pub(crate) fn export_revoked(
    database: &mut Database,
    now: UnixTime,
) -> Result<Arc<Shared>, Failure> {
    let shared = Arc::<Shared>::default();
    resync_revoked(database, &shared, &mut SnapshotFile::off(), now)?;
    Ok(shared)
}

fn read(transaction: &mut Transaction<'_>, master_keys: &MasterKeys) -> Result<Contents, Fault> {
    let (mut clients, mut rows) = (Vec::new(), Vec::new());
    transaction.for_each(CLIENTS, &[], |row| {
        clients.push((row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    transaction.for_each(keys::ALL, &[], |row| {
        rows.push(SealedKey::read(&row)?);
        Ok(())
    })?;
    let mut opened = Vec::new();
    for row in rows {
        let document = row.document(transaction.store(), master_keys);
        let document = document.map_err(|fault| keys::with_remedy(fault, &row.id))?;
        opened.push((row.id, document));
    }
    Ok(Contents { clients, keys: opened })
}

/// Whether both are the same, in any order.
fn is_same(one: &Contents, other: &Contents) -> bool {
    fn sorted(all: &[(String, impl AsRef<str>)]) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = all.iter().map(|(id, text)| (&**id, text.as_ref())).collect();
        all.sort_unstable();
        all
    }
    sorted(&one.clients) == sorted(&other.clients) && sorted(&one.keys) == sorted(&other.keys)
}

const LOCK: &str = "lock table grantd.client, grantd.signing_key in share row exclusive mode";
/// Whether there is a key, even a retired one.
const HAS_KEY: &str = "select exists (select from grantd.signing_key)";
const CLIENTS: &str = "select client_id, entry from grantd.client order by position";
