//! Copies clients and keys from files into the store and back.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::key_file;
use crate::random::Random;
use crate::state::revocations::ledger::Shared;
use crate::store::postgres::database::{BULK_LIMIT, Database, Transaction, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::keys;
use crate::store::postgres::resync::resync_revoked;
use crate::store::postgres::revocations;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::SnapshotFile;
use crate::time::UnixTime;

/// Clients and keys.
#[derive(PartialEq, Eq)]
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
    random: &Random,
) -> Result<Imported, Fault> {
    let done = database.transaction(BULK_LIMIT, |transaction| {
        transaction.query(LOCK, &[])?;
        transaction.query(LOCK_KEYS, &[])?;
        let found = read(transaction, master_keys)?;
        if !found.clients.is_empty() || !found.keys.is_empty() || has_retired(transaction)? {
            return match is_same(&found, contents) {
                true => Ok(Imported::Nothing),
                false => Err(Problem::Fault(Fault::new(
                    transaction.store(),
                    format!(
                        "holds {} clients and {} keys, which are not those of the files: import \
                         into an empty store, or register further clients with `grantd client \
                         import`",
                        found.clients.len(),
                        found.keys.len()
                    ),
                ))),
            };
        }
        write_clients(transaction, &contents.clients)?;
        for (key_id, document) in &contents.keys {
            let store = transaction.store().to_owned();
            let key = key_file::parse(&store, document).map_err(Problem::Fault)?;
            let sealed = keys::seal(&store, master_keys, random, key_id, document);
            let (id, sealed) = (key_id.as_str(), sealed.map_err(Problem::Fault)?);
            transaction.query(keys::ADD, &keys::row_of(&id, &sealed, &keys::times_of(&key)))?;
        }
        Ok(Imported::All)
    });
    done.map_err(Problem::into_fault)
}

/// Reads all clients, and all keys that are not retired, as they are at one time.
///
/// # Errors
///
/// The [`Fault`]. It is a fault if a key cannot be opened.
pub fn export(database: &mut Database, master_keys: &MasterKeys) -> Result<Contents, Fault> {
    let done = database.reading(BULK_LIMIT, |transaction| read(transaction, master_keys));
    done.map_err(Problem::into_fault)
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

/// A failure of the database, or a fault of what is in it or in the files.
enum Problem {
    Failure(Failure),
    Fault(Fault),
}

impl Problem {
    fn into_fault(self) -> Fault {
        match self {
            Self::Failure(failure) => failure.into(),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn read(transaction: &mut Transaction<'_>, master_keys: &MasterKeys) -> Result<Contents, Problem> {
    let (mut clients, mut sealed) = (Vec::new(), Vec::new());
    transaction.for_each(CLIENTS, &[], |row| {
        clients.push((row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    transaction.for_each(KEYS, &[], |row| {
        sealed.push((row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    let mut opened = Vec::new();
    for (key_id, sealed) in sealed {
        let (key_id, sealed): (String, Vec<u8>) = (key_id, sealed);
        let document = keys::document(transaction.store(), master_keys, &key_id, &sealed)
            .map_err(|fault| keys::with_remedy(fault, &key_id));
        opened.push((key_id, document.map_err(Problem::Fault)?));
    }
    Ok(Contents { clients, keys: opened })
}

fn has_retired(transaction: &mut Transaction<'_>) -> Result<bool, Failure> {
    let rows = transaction.query("select exists (select from grantd.signing_key)", &[])?;
    rows.first().map_or(Ok(false), |row| row.get(0))
}

/// Whether both are the same, in any order.
fn is_same(one: &Contents, other: &Contents) -> bool {
    fn sorted<T: Ord>(all: &[T]) -> Vec<&T> {
        let mut all: Vec<_> = all.iter().collect();
        all.sort_unstable();
        all
    }
    let keys = |contents: &'_ Contents| {
        let mut keys: Vec<_> = contents.keys.clone();
        keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        keys
    };
    sorted(&one.clients) == sorted(&other.clients) && keys(one) == keys(other)
}

fn write_clients(
    transaction: &mut Transaction<'_>,
    clients: &[(String, String)],
) -> Result<(), Failure> {
    let mut rest = clients;
    while !rest.is_empty() {
        // As many as fit into a statement of a bounded size, but at least one.
        let mut bytes = 0;
        let count = rest.iter().take(ROWS_AT_ONCE).take_while(|(id, entry)| {
            bytes += id.len() + entry.len();
            bytes <= BYTES_AT_ONCE
        });
        let (part, left) = rest.split_at(count.count().max(1));
        let ids: Vec<_> = part.iter().map(|(id, _)| id.as_str()).collect();
        let entries: Vec<_> = part.iter().map(|(_, entry)| entry.as_str()).collect();
        let parameters = &[(&ids as _, Type::TEXT_ARRAY), (&entries as _, Type::TEXT_ARRAY)];
        transaction.query(INSERT_CLIENTS, parameters)?;
        rest = left;
    }
    Ok(())
}

const LOCK: &str = "lock table grantd.client in share row exclusive mode";
const LOCK_KEYS: &str = "lock table grantd.signing_key in share row exclusive mode";
const CLIENTS: &str = "select client_id, entry from grantd.client order by position";
const KEYS: &str = "select key_id, document from grantd.signing_key where retired_at is null \
                    order by key_id";
const INSERT_CLIENTS: &str = "insert into grantd.client (client_id, entry) \
                              select * from unnest($1, $2)";
const ROWS_AT_ONCE: usize = 5000;
const BYTES_AT_ONCE: usize = 8 << 20;
