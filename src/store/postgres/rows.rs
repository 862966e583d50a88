//! Reads clients and keys from their rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::{self, available_parallelism};

use compact_str::CompactString;
use parking_lot::Mutex;

use crate::fault::Fault;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client::Client;
use crate::registry::client_file::check_entry;
use crate::registry::clients::{Draft, Registry};
use crate::registry::registered::Registered;
use crate::store::postgres::database::{Database, REQUEST_LIMIT, ROW_LIMIT, Row, Type};
use crate::store::postgres::failure::{Failure, clean};
use crate::store::postgres::keys::{self, SealedKey};
use crate::store::postgres::seal::MasterKeys;

/// The entries of clients that have a fault, by client id, each with its first fault.
pub(super) type Faulty = BTreeMap<CompactString, String>;

/// An entry as it was read.
pub(super) type Entry = (CompactString, Result<Client, String>);

/// Reads one entry. `store` is shown in the faults, which quote no value.
pub(super) fn parse(store: &Path, id: &str, text: &str) -> Result<Client, String> {
    let client = check_entry(store, 1, text).map_err(|faults| {
        let fault = faults.first().map(ToString::to_string).unwrap_or_default();
        format!("client {}: {fault}", clean(id))
    })?;
    if *client.id != *id {
        return Err(format!(
            "client {}: {}: the row of this client has the entry of another one",
            clean(id),
            store.display()
        ));
    }
    Ok(client)
}

/// Reads all clients. Returns the registry, and the entries that are not in it because of their
/// faults.
pub(super) fn registry(
    database: &mut Database,
    raw: &mut dyn FnMut(&str, &str),
) -> Result<(Registry, Faulty), Failure> {
    let estimate = database.value::<i64>(COUNT, &[])?.unwrap_or(0);
    let estimate = usize::try_from(estimate).unwrap_or(0).min(MOST_EXPECTED);
    let collected = Collected::new(estimate);
    each_client(database, &|entries| collected.add(entries), raw)?;
    Ok(collected.finish())
}

/// A registry that several threads collect, and the entries with faults.
pub(super) struct Collected(Mutex<(Draft<'static>, Faulty)>);

impl Collected {
    /// `expected` is the number of clients for which memory is reserved.
    pub(super) fn new(expected: usize) -> Self {
        Self(Mutex::new((Draft::new(expected, None), Faulty::new())))
    }

    pub(super) fn add(&self, entries: Vec<Entry>) {
        let mut collected = self.0.lock();
        for (id, client) in entries {
            match client {
                Ok(client) => {
                    collected.0.insert(Registered::new(client));
                }
                Err(fault) => {
                    collected.1.insert(id, fault);
                }
            }
        }
    }

    pub(super) fn finish(self) -> (Registry, Faulty) {
        let (draft, faulty) = self.0.into_inner();
        (draft.finish(), faulty)
    }
}

/// Reads all clients, parses them on several threads, and passes them on in batches, in no
/// particular order. Each row is also passed to `raw` as it arrives.
pub(super) fn each_client(
    database: &mut Database,
    take: &(impl Fn(Vec<Entry>) + Sync),
    raw: &mut dyn FnMut(&str, &str),
) -> Result<(), Failure> {
    let store = database.name().to_owned();
    parse_all(&store, take, |parse| {
        database.for_each(ALL, &[], ROW_LIMIT, |row| {
            let (id, text) = (row.get(0)?, row.get(1)?);
            raw(id, text);
            parse(id, text);
            Ok(())
        })
    })
}

/// Parses the entries that `read` passes on, as [`each_client`] does.
pub(super) fn parse_all<T>(
    store: &Path,
    take: &(impl Fn(Vec<Entry>) + Sync),
    read: impl FnOnce(&mut dyn FnMut(&str, &str)) -> T,
) -> T {
    let (send, receive) = sync_channel::<Vec<(CompactString, String)>>(WAITING_BATCHES);
    let receive = Mutex::new(receive);
    let threads = available_parallelism().map_or(1, usize::from);
    let next = || receive.lock().recv();
    let work = || {
        while let Ok(batch) = next() {
            take(parse_batch(store, batch));
        }
    };
    thread::scope(|scope| {
        // At least one batch is read by this thread if none can be started.
        let started = (0..threads)
            .filter(|_| thread::Builder::new().spawn_scoped(scope, work).is_ok())
            .count();
        let mut batch = Vec::with_capacity(BATCH);
        let pass_on = |batch: Vec<(CompactString, String)>| {
            if started == 0 {
                take(parse_batch(store, batch));
            } else {
                // The threads receive until the sender is dropped.
                let _ = send.send(batch);
            }
        };
        let done = read(&mut |id, text| {
            batch.push((id.into(), text.to_owned()));
            if batch.len() == BATCH {
                pass_on(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            }
        });
        pass_on(batch);
        drop(send);
        done
    })
}

fn parse_batch(store: &Path, batch: Vec<(CompactString, String)>) -> Vec<Entry> {
    let parse = |(id, text): (CompactString, String)| {
        let client = parse(store, &id, &text);
        (id, client)
    };
    batch.into_iter().map(parse).collect()
}

/// Reads these clients. A client that is not registered is not returned. Each row without a fault
/// is also passed to `raw`.
pub(super) fn clients(
    database: &mut Database,
    ids: &[CompactString],
    mut raw: impl FnMut(&str, &str),
) -> Result<Vec<Entry>, Failure> {
    let store = database.name().to_owned();
    let ids: Vec<&str> = ids.iter().map(CompactString::as_str).collect();
    let mut entries = Vec::with_capacity(ids.len());
    database.for_each(SOME, &[(&ids, Type::TEXT_ARRAY)], REQUEST_LIMIT, |row: Row| {
        let (id, text): (&str, &str) = (row.get(0)?, row.get(1)?);
        let client = parse(&store, id, text);
        if client.is_ok() {
            raw(id, text);
        }
        entries.push((id.into(), client));
        Ok(())
    })?;
    Ok(entries)
}

/// Reads all signing keys that are not retired.
pub(super) fn sealed_keys(database: &mut Database) -> Result<Vec<SealedKey>, Failure> {
    database.query(keys::ALL, &[], REQUEST_LIMIT)?.iter().map(SealedKey::read).collect()
}

/// The result of [`open_keys`].
#[derive(Default)]
pub(super) struct OpenedKeys {
    pub(super) keys: Vec<SigningKey>,
    /// The rows of `keys`.
    pub(super) sealed: Vec<SealedKey>,
    /// The rows that have a fault.
    pub(super) faulty: Vec<SealedKey>,
    /// The faults of these rows.
    pub(super) faults: Vec<Fault>,
}

/// Opens signing keys. `store` is shown in the faults.
pub(super) fn open_keys(
    store: &Path,
    master_keys: &MasterKeys,
    sealed: Vec<SealedKey>,
) -> OpenedKeys {
    let mut opened = OpenedKeys::default();
    for row in sealed {
        match row.open(store, master_keys) {
            Ok(key) => {
                opened.keys.push(key);
                opened.sealed.push(row);
            }
            Err(fault) => {
                opened.faults.push(fault);
                opened.faulty.push(row);
            }
        }
    }
    opened
}

const COUNT: &str = "select greatest(reltuples, 0)::bigint from pg_class \
                     where oid = 'grantd.client'::regclass";
const ALL: &str = "select c.client_id, c.entry from grantd.client c";
const SOME: &str = "select c.client_id, c.entry from grantd.client c \
                    where c.client_id = any ($1::text[])";
/// The number of clients that a thread parses at a time.
const BATCH: usize = 2000;
/// The number of batches that may wait for a thread.
const WAITING_BATCHES: usize = 4;
/// The most clients for which memory is reserved before they are read.
const MOST_EXPECTED: usize = 4_000_000;
