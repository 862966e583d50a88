//! Writes the file anew with the changes in its base, one record at a time, so that its writer
//! goes on to append in between.
//!
//! First the appended part is read, to know which change of each client is the last one. Then the
//! base and the appended part are copied without what is out of date. Last, what was appended
//! meanwhile is copied as it is.

use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use crate::fault::Fault;
use crate::state::revocations::ledger::is_over;
use crate::store::postgres::snapshot_file::items::{Item, Source, items};
use crate::store::postgres::snapshot_file::log::{Draft, Log};
use crate::store::postgres::snapshot_file::records::{Place, Records};
use crate::time::UnixTime;

/// The file that is written anew.
pub(super) struct Compaction {
    /// The new file, which is complete after the last step.
    pub(super) draft: Draft,
    stage: Stage,
    /// The next record to read.
    place: Place,
    /// Up to here the file becomes the new base.
    until: Place,
    /// The number of the last change of each client, by a hash of its id.
    last: HashMap<Hash, u32>,
    /// The number of the last change of the keys.
    last_keys: Option<u32>,
    /// The number of the present item among the changes.
    number: u32,
    seen: UnixTime,
    /// The time as the compaction begins, at which what is over is left out.
    now: UnixTime,
}

/// As short as an accident allows, since there may be a million of them.
type Hash = [u8; 16];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Survey,
    Base,
    Changes,
    Rest,
}

impl Compaction {
    /// Begins to write `log` anew.
    pub(super) fn begin(log: &mut Log, now: UnixTime) -> Result<Self, Fault> {
        let mut first = Place::FIRST;
        let end = log.end;
        let source = log.read(&mut first, end)?;
        let source = source.and_then(|plain| Source::decode(&plain)).unwrap_or_default();
        let Records { keys, path, .. } = &log.records;
        let draft = Draft::begin(path, keys, &source);
        let draft = draft.map_err(|error| Fault::cannot("written", path, &error))?;
        Ok(Self {
            draft,
            stage: Stage::Survey,
            place: log.base,
            until: end,
            last: HashMap::new(),
            last_keys: None,
            number: 0,
            seen: UnixTime::default(),
            now,
        })
    }

    /// Reads one record of `log`. Returns whether the new file is complete.
    pub(super) fn step(&mut self, log: &mut Log) -> Result<bool, Fault> {
        let until = match self.stage {
            Stage::Base => log.base,
            Stage::Survey | Stage::Changes => self.until,
            Stage::Rest => log.end,
        };
        let path = log.records.path.clone();
        let unwritten = |error| Fault::cannot("written", &path, &error);
        let Some(record) = log.read(&mut self.place, until)? else {
            match self.stage {
                Stage::Survey => {
                    // The first record is the source.
                    (self.stage, self.place) = (Stage::Base, Place::FIRST);
                    log.read(&mut self.place, until)?;
                }
                Stage::Base => {
                    (self.stage, self.place, self.number) = (Stage::Changes, log.base, 0);
                }
                Stage::Changes => {
                    self.draft.end_base(self.seen).map_err(unwritten)?;
                    self.stage = Stage::Rest;
                }
                Stage::Rest => return Ok(true),
            }
            return Ok(false);
        };
        if self.stage == Stage::Rest {
            self.draft.add_all(&record).map_err(unwritten)?;
            return Ok(false);
        }
        for item in items(&record).flatten() {
            self.number += 1;
            if self.stage == Stage::Survey {
                self.note(&item);
            } else if self.is_current(&item) {
                self.draft.add(&item).map_err(unwritten)?;
            }
        }
        Ok(false)
    }

    fn note(&mut self, item: &Item<'_>) {
        match item {
            Item::Client(id, _) | Item::Removed(id) => {
                self.last.insert(hash(id), self.number);
            }
            Item::Keys(_) => self.last_keys = Some(self.number),
            _ => {}
        }
    }

    /// Whether the item belongs to the new base.
    fn is_current(&mut self, item: &Item<'_>) -> bool {
        let number = (self.stage == Stage::Changes).then_some(self.number);
        match item {
            Item::Client(id, _) => self.last.get(&hash(id)).copied() == number,
            Item::Removed(_) | Item::End => false,
            Item::Keys(_) => self.last_keys == number,
            Item::Revoked(row) => !is_over(row.expires_at, self.now),
            Item::CutOff(_, until) => !is_over(*until, self.now),
            Item::DecoyKey(_) => true,
            Item::Seen(time) => {
                self.seen = *time;
                false
            }
        }
    }
}

fn hash(id: &str) -> Hash {
    let hash = digest(&SHA256, id.as_bytes());
    std::array::from_fn(|index| hash.as_ref()[index])
}
