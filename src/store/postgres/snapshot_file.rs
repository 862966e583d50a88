//! The snapshot: a sealed copy of the store in the state directory, from which a server starts while
//! the database is away.
//!
//! A thread of its own writes it, from what the server reads of the store in any case. The file
//! begins with a base, which is written whenever everything is read; what changes is appended within
//! seconds, and the time at least twice a minute. When more was appended than the base is long, the
//! file is written anew. The documents of the signing keys are in it as in the database, so they are
//! sealed twice.

mod compaction;
mod items;
mod load;
mod log;
mod queue;
mod records;
#[cfg(test)]
mod tests;
mod writer;

use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::{Clock, join_within};
use crate::fault::Fault;
use crate::signing::worker::lower_priority;
use crate::store::postgres::keys::SealedKey;
use crate::store::postgres::seal::MasterKeys;
pub use crate::store::postgres::snapshot_file::items::{Item, Source};
pub use crate::store::postgres::snapshot_file::load::{Loaded, load, timelines};
pub(super) use crate::store::postgres::snapshot_file::load::{keys, recall};
use crate::store::postgres::snapshot_file::log::RECORD_BYTES;
use crate::store::postgres::snapshot_file::queue::{Message, Queue};
use crate::store::postgres::snapshot_file::writer::Writer;
use crate::time::UnixTime;

/// The path of the snapshot in a state directory.
pub fn path(state: &Path) -> PathBuf {
    state.join("snapshot")
}

/// Hands what is read of the store to the thread that writes the snapshot.
#[derive(Default)]
pub struct SnapshotFile {
    /// `None` if no snapshot is kept.
    writing: Option<Writing>,
    /// Items that are not handed over yet.
    part: Vec<u8>,
    /// Whether the writer cannot use what follows, until a base begins.
    is_lost: bool,
    keys: Vec<SealedKey>,
    decoy_key: Vec<u8>,
}

struct Writing {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotFile {
    /// Starts the thread that writes the file `path`. Writes nothing yet.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it cannot be started.
    pub fn start(path: &Path, keys: Arc<MasterKeys>, clock: &Clock) -> Result<Self, Fault> {
        let queue = Arc::new(Queue::new(LONGEST_WAIT));
        let writer = Writer::new(path.to_owned(), keys, clock.clone(), Arc::clone(&queue));
        let builder = thread::Builder::new().name("snapshot".to_owned());
        let thread = builder.spawn(move || {
            lower_priority();
            writer.run();
        });
        let thread = thread.map_err(|error| {
            let problem = format!("no thread can write it: {error}; raise the limit of threads");
            Fault::new(path, problem)
        })?;
        let mut file = Self::default();
        file.writing = Some(Writing { queue, thread: Some(thread) });
        Ok(file)
    }

    /// Keeps no snapshot.
    pub fn off() -> Self {
        Self::default()
    }

    /// Begins a base of everything that is in the store of `source`. All items until
    /// [`Self::end_base`] belong to it.
    pub fn begin(&mut self, source: Source) {
        self.part.clear();
        self.is_lost = false;
        self.push(Message::Begin(source));
        let decoy_key = take(&mut self.decoy_key);
        self.set_decoy_key(decoy_key);
    }

    /// Adds an item.
    pub fn add(&mut self, item: &Item<'_>) {
        if self.writing.is_none() || self.is_lost {
            return;
        }
        item.encode(&mut self.part);
        if self.part.len() >= RECORD_BYTES {
            self.hand_over();
        }
    }

    /// Adds all signing keys: `keys`, and of those of the last call the ones with these ids.
    pub(super) fn add_keys(&mut self, mut keys: Vec<SealedKey>, kept: &[String]) {
        keys.extend(take(&mut self.keys).into_iter().filter(|key| kept.contains(&key.id)));
        self.add(&Item::Keys(keys.iter().map(|key| (&*key.id, &*key.document)).collect()));
        self.keys = keys;
    }

    /// The ids of the signing keys that were added last.
    pub(super) fn key_ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.id.clone()).collect()
    }

    /// Adds the sealed decoy key, to each base that follows, too.
    pub fn set_decoy_key(&mut self, sealed: Vec<u8>) {
        self.add(&Item::DecoyKey(&sealed));
        self.decoy_key = sealed;
    }

    /// Ends the base, which is what the store held at `seen`.
    pub fn end_base(&mut self, seen: UnixTime) {
        self.hand_over();
        self.push(Message::EndBase(seen));
    }

    /// Notes that everything that was in the store at `seen` was added.
    pub fn seen(&mut self, seen: UnixTime) {
        self.hand_over();
        self.push(Message::Seen(seen));
    }

    /// Whether the writer has asked for a base since the last call.
    pub fn is_base_needed(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.queue.is_base_needed())
    }

    /// Why no snapshot is written; `None` if one is.
    pub fn problem(&self) -> Option<String> {
        self.writing.as_ref()?.queue.problem()
    }

    /// Hands over what was added.
    pub fn hand_over(&mut self) {
        if !self.part.is_empty() {
            let part = take(&mut self.part);
            self.push(Message::Part(part));
        }
    }

    fn push(&mut self, message: Message) {
        if let Some(Writing { queue, .. }) = &self.writing
            && !self.is_lost
        {
            self.is_lost = !queue.push(message);
        }
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        self.hand_over();
        if let Some(Writing { queue, thread }) = &mut self.writing {
            queue.close();
            if let Some(thread) = thread.take() {
                join_within(thread, LONGEST_WAIT);
            }
        }
    }
}

/// How long a change waits for the disk before the snapshot is given up, and the end of the process
/// for the last changes.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
