//! The file of the snapshot as its writer sees it: a new file with its base, then a file to which
//! changes are appended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::fs::identity::identity;
use crate::fs::whole_file::{Replacement, open_regular};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::items::{Item, Source};
use crate::store::postgres::snapshot_file::records::{Place, Records};
use crate::time::UnixTime;

/// A new file, which is not in place yet.
pub(super) struct Draft {
    replacement: Replacement,
    records: Records,
    end: Place,
    /// Items for the next record.
    pending: Vec<u8>,
    /// The end of the base, once it is written.
    base: Option<Place>,
}

impl Draft {
    /// Begins a file that will replace `path`.
    pub(super) fn begin(path: &Path, keys: &Arc<MasterKeys>, source: &Source) -> io::Result<Self> {
        // A directory or a link in its place is not replaced.
        match open_regular(path, OpenOptions::new().read(true)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut replacement = Replacement::begin(path)?;
        let records = Records::of_new_file(keys, replacement.file(), path)?;
        let (end, pending) = (Place::FIRST, Vec::new());
        let mut draft = Self { replacement, records, end, pending, base: None };
        draft.record(&source.encode())?;
        Ok(draft)
    }

    /// Adds an item.
    pub(super) fn add(&mut self, item: &Item<'_>) -> io::Result<()> {
        item.encode(&mut self.pending);
        if self.pending.len() < RECORD_BYTES { Ok(()) } else { self.write_pending() }
    }

    /// Adds the items of a whole record.
    pub(super) fn add_all(&mut self, items: &[u8]) -> io::Result<()> {
        self.write_pending()?;
        self.record(items)
    }

    /// Ends the base, which is what the store held at `seen`.
    pub(super) fn end_base(&mut self, seen: UnixTime) -> io::Result<()> {
        Item::Seen(seen).encode(&mut self.pending);
        Item::End.encode(&mut self.pending);
        self.write_pending()?;
        self.base = Some(self.end);
        Ok(())
    }

    /// Puts the file in place.
    pub(super) fn finish(mut self) -> io::Result<Log> {
        self.write_pending()?;
        let Self { replacement, records, end, base, .. } = self;
        let base = base.ok_or(ErrorKind::InvalidData)?;
        let file = replacement.finish()?;
        Ok(Log { file, records, base, end })
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.record(&pending)
    }

    fn record(&mut self, plain: &[u8]) -> io::Result<()> {
        self.records.append(self.replacement.file(), &mut self.end, plain)
    }
}

/// The file in place.
pub(super) struct Log {
    file: File,
    pub(super) records: Records,
    /// The end of the base.
    pub(super) base: Place,
    pub(super) end: Place,
}

impl Log {
    /// Whether so much was appended that the file is worth being written anew.
    pub(super) fn is_long(&self) -> bool {
        self.end.at - self.base.at > self.base.at.max(LEAST_APPENDED)
    }

    /// Whether the file is still the one that others find by its path.
    pub(super) fn is_in_place(&self) -> bool {
        let found = fs::symlink_metadata(&self.records.path);
        let own = self.file.metadata();
        own.is_ok_and(|own| found.is_ok_and(|found| identity(&own) == identity(&found)))
    }

    /// Appends a record for each of `parts` and syncs them to disk. After an error, none of them is
    /// in the file.
    pub(super) fn append(&mut self, parts: &[Vec<u8>]) -> io::Result<()> {
        let before = self.end;
        let appended = self.try_append(parts);
        if appended.is_err() {
            self.end = before;
            self.file.set_len(before.at)?;
        }
        appended
    }

    fn try_append(&mut self, parts: &[Vec<u8>]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end.at))?;
        for plain in parts {
            self.records.append(&mut self.file, &mut self.end, plain)?;
        }
        self.file.sync_data()
    }

    /// Reads the record at `place` and moves `place` behind it; `None` at `end`.
    pub(super) fn read(
        &mut self,
        place: &mut Place,
        end: Place,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        self.records.read(&mut self.file, place, end.at)
    }
}

/// The size from which a record is written. A record is longer by at most one item.
pub(super) const RECORD_BYTES: usize = 256 << 10;
/// A file to which less than this was appended is not written anew.
const LEAST_APPENDED: u64 = 1 << 20;
