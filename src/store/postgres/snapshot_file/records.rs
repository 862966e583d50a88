//! The records of the snapshot: sealed, numbered, and bound to their file.
//!
//! A file begins with [`MAGIC`] and an id of 16 random bytes. Each record is its length, the
//! complement of its length, and a sealed value, whose name is its number and the id of the file. So
//! no record can be left out, doubled, moved or taken from another file. Only the end of the file
//! can be missing: a writer that was killed leaves a part of its last record, and a machine that
//! lost power may leave zeros. Then the file ends with the record before.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::random::NoEntropy;
use crate::store::postgres::seal::{MasterKeys, Purpose, hex};

/// Seals and opens the records of one file.
pub(super) struct Records {
    pub(super) keys: Arc<MasterKeys>,
    /// The path of the file.
    pub(super) path: PathBuf,
    id: [u8; ID_BYTES],
}

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the record begins in the file.
    pub(super) at: u64,
    pub(super) number: u64,
}

impl Place {
    /// The place of the first record.
    pub(super) const FIRST: Self = Self { at: START_BYTES as u64, number: 0 };

    /// The place behind a record of `size` bytes.
    fn after(self, size: u64) -> Self {
        Self { at: self.at + size, number: self.number + 1 }
    }
}

impl Records {
    /// Makes the id of the new, empty `file`, which will be at `path`, and writes its beginning.
    pub(super) fn of_new_file(
        keys: &Arc<MasterKeys>,
        file: &mut File,
        path: &Path,
    ) -> io::Result<Self> {
        let mut id = [0; ID_BYTES];
        keys.random.fill(&mut id).map_err(no_random)?;
        file.write_all(&[MAGIC, id].concat())?;
        Ok(Self { keys: Arc::clone(keys), path: path.to_owned(), id })
    }

    /// Reads the id of `file`, which is at `path`.
    pub(super) fn of_file(
        keys: &Arc<MasterKeys>,
        file: &mut File,
        path: &Path,
    ) -> Result<Self, Fault> {
        let mut start = [0; START_BYTES];
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_exact(&mut start))
            .map_err(|error| Fault::cannot("read", path, &error))?;
        let (magic, id) = start.split_at(MAGIC.len());
        match id.try_into() {
            Ok(id) if magic == MAGIC => {
                Ok(Self { keys: Arc::clone(keys), path: path.to_owned(), id })
            }
            _ => Err(Fault::new(path, "is not a snapshot that this release reads")),
        }
    }

    /// Writes the record `plain` at `place`, the end of `file`, and moves `place` behind it.
    pub(super) fn append(
        &self,
        file: &mut File,
        place: &mut Place,
        plain: &[u8],
    ) -> io::Result<()> {
        let sealed = self.keys.seal(Purpose::Snapshot, &self.name(place.number), plain);
        let sealed = sealed.map_err(no_random)?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        let record = [&length.to_be_bytes()[..], &(!length).to_be_bytes(), &sealed].concat();
        file.write_all(&record)?;
        *place = place.after(record.len() as u64);
        Ok(())
    }

    /// Reads the record at `place` of `file`, whose contents end at `end`, and moves `place` behind
    /// it. Returns `None` if there is no further whole record.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read, or if a record other than the last one is wrong.
    pub(super) fn read(
        &self,
        file: &mut File,
        place: &mut Place,
        end: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let path = &self.path;
        let left = end.saturating_sub(place.at);
        if left < FRAME_BYTES {
            return Ok(None);
        }
        let unread = |error: io::Error| Fault::cannot("read", path, &error);
        let changed = |what: &str| {
            Fault::new(path, format!("{}: {what}was changed", self.name(place.number)))
        };
        file.seek(SeekFrom::Start(place.at)).map_err(unread)?;
        let mut frame = [0; FRAME_BYTES as usize];
        file.read_exact(&mut frame).map_err(unread)?;
        let [a, b, c, d, complement @ ..] = frame;
        let length = u32::from_be_bytes([a, b, c, d]);
        if u32::from_be_bytes(complement) != !length {
            let is_end = is_zero(file, left).map_err(unread)?;
            return if is_end { Ok(None) } else { Err(changed("")) };
        }
        if length > MOST_BYTES {
            return Err(changed(&format!("has {length} bytes: ")));
        }
        let size = FRAME_BYTES + u64::from(length);
        if size > left {
            return Ok(None);
        }
        let mut sealed = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact(&mut sealed).map_err(unread)?;
        let opened = self.keys.open(path, Purpose::Snapshot, &self.name(place.number), &sealed);
        match opened {
            Ok(plain) => {
                *place = place.after(size);
                Ok(Some(plain))
            }
            Err(_) if place.number > 0 && is_zero(file, left - size).map_err(unread)? => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn name(&self, number: u64) -> String {
        format!("record {number} of snapshot {}", hex(&self.id))
    }
}

fn no_random(_: NoEntropy) -> io::Error {
    io::Error::other("the operating system has no random bytes")
}

/// Whether the rest of the file, of at most `most` bytes, is zero or empty.
fn is_zero(file: &mut File, most: u64) -> io::Result<bool> {
    let mut rest = file.take(most);
    let mut buffer = [0; 4096];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// The most bytes of a record. It is as long as [`RECORD_BYTES`] and one item, which was a message of
/// the database.
const MOST_BYTES: u32 = 80 << 20;
const MAGIC: [u8; 16] = *b"grantd snapshot\x01";
const ID_BYTES: usize = 16;
const START_BYTES: usize = 32;
const FRAME_BYTES: u64 = 8;
