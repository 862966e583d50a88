//! Reads the snapshot.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::fs::whole_file::open_regular;
use crate::registry::clients::{Registry, Update};
use crate::state::revocations::revoked::Revoked;
use crate::store::postgres::keys::SealedKey;
use crate::store::postgres::lost::Recalled;
use crate::store::postgres::rows::{self, Collected, Faulty};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::items::{Item, Source, items};
use crate::store::postgres::snapshot_file::records::{Place, Records};
use crate::store::postgres::timelines::Timeline;
use crate::time::UnixTime;

/// The contents of the store at a time.
pub struct Loaded {
    /// The time.
    pub seen: UnixTime,
    /// The store.
    pub source: Source,
    /// The clients.
    pub clients: Registry,
    /// The entries that cannot be used.
    pub(in crate::store::postgres) faulty: Faulty,
    /// The signing keys.
    pub(in crate::store::postgres) keys: Vec<SealedKey>,
    /// The sealed decoy key.
    pub(in crate::store::postgres) decoy_key: Vec<u8>,
    /// The bytes at the end of the file that are no whole record.
    pub(in crate::store::postgres) cut: u64,
}

/// Reads the snapshot in `path`, which must be of the store of `expected`. Puts the revocations and
/// cut-offs into `revoked`.
///
/// # Errors
///
/// A [`Fault`] that says what to do if there is no snapshot or it cannot be used.
pub fn load(
    path: &Path,
    expected: &Source,
    master_keys: &Arc<MasterKeys>,
    revoked: &Revoked,
) -> Result<Loaded, Fault> {
    let mut reading = Reading::open(path, master_keys)?;
    reading.require(expected)?;
    let mut known = Known::default();
    let collected = Collected::new(0);
    let take = |entries| collected.add(entries);
    rows::parse_all(path, &take, |parse| -> Result<(), Fault> {
        while let Some(record) = reading.next()? {
            for item in items(&record) {
                match item {
                    Some(Item::Client(id, entry)) => parse(id, entry),
                    Some(Item::Removed(_)) => {}
                    Some(Item::End) => {
                        known.is_complete = true;
                        return Ok(());
                    }
                    item => known.note(path, item, revoked)?,
                }
            }
        }
        Ok(())
    })?;
    if !known.is_complete {
        return Err(Fault::new(path, "ends in its middle"));
    }
    let (mut clients, mut faulty) = collected.finish();
    let mut updates = Vec::new();
    while let Some(record) = reading.next()? {
        for item in items(&record) {
            match item {
                Some(Item::Client(id, entry)) => match rows::parse(path, id, entry) {
                    Ok(client) => {
                        faulty.remove(id);
                        updates.push(Update::Put(Box::new(client)));
                    }
                    Err(fault) => drop(faulty.insert(id.into(), fault)),
                },
                Some(Item::Removed(id)) => {
                    faulty.remove(id);
                    updates.push(Update::Remove(id.into()));
                }
                item => known.note(path, item, revoked)?,
            }
        }
        if updates.len() >= MOST_AT_ONCE {
            clients = clients.with(updates.drain(..));
        }
    }
    if !updates.is_empty() {
        clients = clients.with(updates);
    }
    let Known { seen, keys, decoy_key, .. } = known;
    let decoy_key = decoy_key.ok_or_else(|| Fault::new(path, "has no decoy key"))?;
    let cut = reading.end.saturating_sub(reading.place.at);
    Ok(Loaded { seen, source: reading.source, clients, faulty, keys, decoy_key, cut })
}

/// Reads the snapshot in `path` if it is of an earlier epoch of the store of `now`: puts the revocations
/// and cut-offs into `revoked`, and returns the clients and keys.
///
/// # Errors
///
/// A [`Fault`] if it cannot be read.
pub(in crate::store::postgres) fn recall(
    path: &Path,
    now: &Source,
    master_keys: &Arc<MasterKeys>,
    revoked: &Revoked,
) -> Result<Option<Recalled>, Fault> {
    let mut reading = Reading::open(path, master_keys)?;
    if !now.follows(&reading.source) {
        return Ok(None);
    }
    let mut recalled = Recalled::default();
    let mut known = Known::default();
    while let Some(record) = reading.next()? {
        for item in items(&record) {
            match item {
                Some(Item::Client(id, entry)) => recalled.note(id, Some(entry)),
                Some(Item::Removed(id)) => recalled.note(id, None),
                item => known.note(path, item, revoked)?,
            }
        }
    }
    recalled.keys = known.keys.into_iter().map(|key| key.id).collect();
    Ok(Some(recalled))
}

/// Reads the last signing keys in the snapshot in `path`. There are none if it is of another store than
/// `now`.
///
/// # Errors
///
/// A [`Fault`] if it cannot be read.
pub(in crate::store::postgres) fn keys(
    path: &Path,
    now: &Source,
    master_keys: &Arc<MasterKeys>,
) -> Result<Vec<SealedKey>, Fault> {
    let mut reading = Reading::open(path, master_keys)?;
    let mut last = Vec::new();
    if now.is_store_of(&reading.source) {
        while let Some(record) = reading.next()? {
            for item in items(&record) {
                if let Some(Item::Keys(keys)) = item {
                    last = owned(keys);
                }
            }
        }
    }
    Ok(last)
}

/// Reads the timelines in the snapshot in `path`, if there is one.
///
/// # Errors
///
/// A [`Fault`] if its beginning cannot be read.
pub fn timelines(path: &Path, master_keys: &Arc<MasterKeys>) -> Result<Vec<Timeline>, Fault> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    Ok(Reading::open(path, master_keys)?.source.timelines)
}

/// The items other than clients.
#[derive(Default)]
struct Known {
    is_complete: bool,
    seen: UnixTime,
    keys: Vec<SealedKey>,
    decoy_key: Option<Vec<u8>>,
}

impl Known {
    fn note(
        &mut self,
        path: &Path,
        item: Option<Item<'_>>,
        revoked: &Revoked,
    ) -> Result<(), Fault> {
        match item {
            Some(Item::Keys(keys)) => self.keys = owned(keys),
            Some(Item::Revoked(row)) => drop(revoked.insert(row)),
            Some(Item::CutOff(client, until)) => revoked.insert_cut_off(client, until),
            Some(Item::DecoyKey(sealed)) => self.decoy_key = Some(sealed.to_owned()),
            Some(Item::Seen(time)) => self.seen = time,
            Some(Item::Client(..) | Item::Removed(_) | Item::End) => {}
            None => return Err(Fault::new(path, "holds what this release cannot read")),
        }
        Ok(())
    }
}

fn owned(keys: Vec<(&str, &[u8])>) -> Vec<SealedKey> {
    let owned = |(id, document): (&str, &[u8])| SealedKey {
        id: id.to_owned(),
        document: document.to_owned(),
        times: [None; 2],
    };
    keys.into_iter().map(owned).collect()
}

/// A snapshot that is being read.
struct Reading {
    file: File,
    records: Records,
    place: Place,
    end: u64,
    source: Source,
}

impl Reading {
    fn open(path: &Path, master_keys: &Arc<MasterKeys>) -> Result<Self, Fault> {
        let unread = |error: io::Error| Fault::cannot("read", path, &error);
        let mut file = open_regular(path, OpenOptions::new().read(true)).map_err(unread)?;
        let end = file.metadata().map_err(unread)?.len();
        let records = Records::of_file(master_keys, &mut file, path)?;
        let (place, source) = (Place::FIRST, Source::default());
        let mut reading = Self { file, records, place, end, source };
        let first = reading.next()?;
        let source = first.and_then(|first| Source::decode(&first));
        reading.source = source.ok_or_else(|| Fault::new(path, "ends in its middle"))?;
        Ok(reading)
    }

    /// Checks that the snapshot may be of the store of `expected`.
    fn require(&self, expected: &Source) -> Result<(), Fault> {
        if self.source.may_be(expected) {
            return Ok(());
        }
        let Source { database, hosts, .. } = &self.source;
        let problem = format!(
            "was taken from another store: from the database {database} on {}, and store.url names \
             {} on {}; correct store.url, or, if it names the same database in its new place, wait \
             until that answers",
            hosts.join(", "),
            expected.database,
            expected.hosts.join(", ")
        );
        Err(Fault::new(&self.records.path, problem))
    }

    /// Returns the next record.
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        self.records.read(&mut self.file, &mut self.place, self.end)
    }
}

/// The most changes of clients that are put in force at once, and so stand in memory twice.
const MOST_AT_ONCE: usize = 50_000;
