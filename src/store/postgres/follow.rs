//! The thread that follows the store: it asks several times a second what has changed, and puts it
//! in force.
//!
//! Each poll returns the rows of the outbox that its snapshot sees and the snapshot of the last poll
//! did not, so a transaction that commits late is not missed, and one that stays open holds up no
//! other. That is right for as long as no transaction id repeats, which is an epoch of the database.
//! In a new epoch, and after an absence that is longer than the outbox reaches back, everything is
//! read anew and compared with what is in force.

use std::collections::HashSet;
use std::convert::Infallible;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::clock::{Clock, join_within};
use crate::fault::Fault;
use crate::registry::clients::Update;
use crate::signing::worker::lower_priority;
use crate::snapshot::Snapshot;
use crate::snapshot::lifetimes::Lifetimes;
use crate::snapshot::news::News;
use crate::state::key_rotation::KeyRotation;
use crate::state::revocations::ledger::Shared;
use crate::state::secret_uses::SecretUses;
use crate::state::store_health::StoreHealth;
use crate::store::postgres::changed::Changed;
use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::lifetimes;
use crate::store::postgres::lost::Differences;
use crate::store::postgres::position::Position;
use crate::store::postgres::resync::resync_revoked;
use crate::store::postgres::revocations::{self, Unpolled};
use crate::store::postgres::rotation::{KeyRotator, Means, Serving};
use crate::store::postgres::row::{PART, time};
use crate::store::postgres::rows::{self, Entry, Faulty, OpenedKeys};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::secret_uses::SecretUseRows;
use crate::store::postgres::snapshot_file::{Item, LONGEST_WAIT, SnapshotFile, Source};
use crate::store::postgres::upkeep::Upkeep;

/// Follows the store.
pub struct Follower {
    pub(super) database: Database,
    pub(super) master_keys: Arc<MasterKeys>,
    /// The copy of the store from which a server starts while the database is away.
    pub(super) snapshot_file: SnapshotFile,
    /// The store as this server knew it last.
    pub(super) source: Source,
    pub(super) health: Arc<StoreHealth>,
    pub(super) revoked: Arc<Shared>,
    /// The revocations that this server has written since the last poll.
    pub(super) unpolled: Unpolled,
    pub(super) secret_uses: Arc<SecretUses>,
    pub(super) clock: Clock,
    /// The time between two polls.
    pub(super) every: Duration,
    /// `None` if everything must be read anew.
    pub(super) position: Option<Position>,
    /// The last position, while there is none: what was read up to there is in force.
    pub(super) last: Option<Position>,
    /// The entries of clients that cannot be used.
    pub(super) faulty: Faulty,
    /// The fault of the signing keys.
    pub(super) key_fault: Option<String>,
    pub(super) secret_use_rows: SecretUseRows,
    /// The lifetimes in force that this server has written.
    pub(super) written_lifetimes: Lifetimes,
    pub(super) upkeep: Upkeep,
    pub(super) rotation: KeyRotator,
    /// When revocations that are over are dropped from memory next.
    pub(super) drop_due: Instant,
}

/// Puts what was read in force.
pub struct Sink {
    /// Puts changes in force.
    pub apply: Box<dyn FnMut(News) + Send>,
    /// Returns the snapshot in force.
    pub snapshot: Box<dyn Fn() -> Arc<Snapshot> + Send>,
    /// Returns the keys in force.
    pub serving: Box<dyn Fn() -> Serving + Send>,
    /// How the rotation of the keys goes.
    pub key_rotation: Arc<KeyRotation>,
}

impl Follower {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if it cannot be started.
    pub fn start(mut self, mut sink: Sink) -> Result<Following, Fault> {
        let (stop, stopped) = channel::<Infallible>();
        let store = self.database.name().to_owned();
        self.rotation.begin((sink.serving)());
        let builder = thread::Builder::new().name("store".to_owned());
        let thread = builder.spawn(move || {
            // A million clients may have changed; the event loops have priority.
            lower_priority();
            let mut is_last = false;
            loop {
                // The last poll brings what this server has just revoked into the snapshot.
                if is_last && !self.health.is_up() {
                    let unpolled = take(&mut *self.unpolled.lock());
                    self.keep_unpolled(&unpolled);
                    return;
                }
                if catch_unwind(AssertUnwindSafe(|| self.turn(&mut sink))).is_err() {
                    // A part of the changes may be in force.
                    self.forget_position();
                    let store = self.database.name().display();
                    self.health.note_away(format!("{store}: cannot be read: the log has a panic"));
                }
                if is_last {
                    self.rotation.leave(&mut self.database);
                    return;
                }
                is_last = stopped.recv_timeout(self.every) == Err(RecvTimeoutError::Disconnected);
            }
        });
        let thread = thread.map_err(|error| {
            let problem = format!("no thread can follow it: {error}; raise the limit of threads");
            Fault::new(&store, problem)
        })?;
        Ok(Following { stop: Some(stop), thread: Some(thread) })
    }

    /// Lets everything be read anew.
    fn forget_position(&mut self) {
        self.last = self.position.take().or_else(|| self.last.take());
    }

    /// Polls once, and logs when the store goes away and when it comes back.
    fn turn(&mut self, sink: &mut Sink) {
        let (now, known) = (self.clock.instant(), self.clock.now());
        if self.snapshot_file.is_base_needed() {
            self.forget_position();
        }
        let unpolled = take(&mut *self.unpolled.lock());
        let done = self.poll(sink);
        if done.is_err() {
            self.keep_unpolled(&unpolled);
        }
        self.health.note_uncached(self.snapshot_file.problem());
        if let Err(failure) = done {
            if self.health.note_away(failure.to_string()) {
                warn!(error = %failure, "the store does not answer: the last state that was read stays in force");
            }
            return;
        }
        if self.health.note_seen(now, known) {
            info!(store = %self.database.name().display(), "the store answers again");
        }
        // All of this is tried again at a later poll if it fails.
        let lifetimes = (sink.snapshot)().lifetimes.clone();
        let rows = lifetimes.rows_beside(&self.written_lifetimes);
        match lifetimes::put(&mut self.database, &rows) {
            Ok(()) => self.written_lifetimes = lifetimes,
            Err(failure) => {
                warn!(error = %failure, "lifetimes that were shortened were not written");
            }
        }
        let added = self.secret_use_rows.run(&mut self.database, &self.secret_uses, now);
        if let Err(failure) = added.and_then(|()| self.upkeep.run(&mut self.database, now)) {
            warn!(error = %failure, "uses of secrets were not added up, or old rows not dropped");
        }
        self.rotation.run(Means {
            database: &mut self.database,
            master_keys: &self.master_keys,
            serving: (sink.serving)(),
            health: &sink.key_rotation,
            poll: self.every,
            now,
        });
        self.drop_over(now);
    }

    /// Adds what this server has written to the snapshot: the store may be lost before a poll brings
    /// it.
    fn keep_unpolled(&mut self, unpolled: &[Item<'static>]) {
        unpolled.iter().for_each(|item| self.snapshot_file.add(item));
        self.snapshot_file.hand_over();
    }

    fn poll(&mut self, sink: &mut Sink) -> Result<(), Failure> {
        let Some(position) = self.position.clone() else { return self.read_anew(sink) };
        let now = self.clock.now();
        let mut changed = Changed::default();
        let mut next = None;
        let last = &position.snapshot;
        let read = self.database.for_each(POLL, &[(last, Type::TEXT)], REQUEST_LIMIT, |row| {
            let since = time(row.get(3)?);
            next = Some(Position { epoch: row.get(0)?, snapshot: row.get(1)?, since });
            changed.all |= row.get::<Option<bool>>(2)?.unwrap_or(true);
            if let (Some(kind), Some(name)) = (row.get(4)?, row.get(5)?) {
                changed.note(kind, name);
            }
            Ok(())
        });
        if changed.all {
            self.forget_position();
        }
        read?;
        let Some(next) = next.filter(|next| next.epoch == position.epoch && !changed.all) else {
            self.forget_position();
            warn!(
                store = %self.database.name().display(),
                "the database was started, restored or promoted, a table was emptied, or this server was away for long: reading everything anew"
            );
            return self.read_anew(sink);
        };
        self.put_in_force(changed, sink)?;
        self.position = Some(next);
        self.snapshot_file.seen(now);
        Ok(())
    }

    fn put_in_force(&mut self, changed: Changed, sink: &mut Sink) -> Result<(), Failure> {
        let Changed { clients, revocations, cut_offs, has_keys, lifetimes, count, .. } = changed;
        if count == 0 {
            return Ok(());
        }
        // First what makes tokens invalid.
        for keys in revocations.chunks(PART) {
            let rows =
                self.database.query(REVOKED, &[(&keys, Type::BYTEA_ARRAY)], REQUEST_LIMIT)?;
            for row in &rows {
                if let Some(row) = revocations::read(row)? {
                    self.snapshot_file.add(&Item::Revoked(row));
                    self.revoked.revoked.insert(row);
                }
            }
        }
        for clients in cut_offs.chunks(PART) {
            let parameters = [(&clients as _, Type::BYTEA_ARRAY)];
            let rows = self.database.query(CUT_OFF, &parameters, REQUEST_LIMIT)?;
            for row in &rows {
                if let Some((client, until)) = revocations::read_cut_off(row)? {
                    self.snapshot_file.add(&Item::CutOff(client, until));
                    self.revoked.revoked.insert_cut_off(client, until);
                }
            }
        }
        let mut news = if has_keys { self.read_keys()? } else { News::default() };
        for ids in lifetimes.chunks(PART) {
            news.lifetimes.extend(lifetimes::read_some(&mut self.database, ids)?);
        }
        let ids: Vec<_> = clients.into_iter().collect();
        for ids in ids.chunks(PART) {
            let mut missing: HashSet<_> = ids.iter().cloned().collect();
            let snapshot_file = &mut self.snapshot_file;
            let raw = |id: &str, entry: &str| snapshot_file.add(&Item::Client(id, entry));
            for (id, client) in rows::clients(&mut self.database, ids, raw)? {
                missing.remove(&id);
                news.clients.extend(self.judge((id, client)));
            }
            for id in missing {
                self.faulty.remove(&id);
                self.snapshot_file.add(&Item::Removed(&id));
                news.clients.push(Update::Remove(id));
            }
            if news.clients.len() >= MOST_AT_ONCE {
                (sink.apply)(take(&mut news));
            }
        }
        if !news.clients.is_empty() || news.keys.is_some() || !news.lifetimes.is_empty() {
            (sink.apply)(news);
        }
        self.note_faults();
        self.health.count_changes(count);
        Ok(())
    }

    /// Returns the update to the client of an entry. If the entry has a fault, the client stays as
    /// it is.
    fn judge(&mut self, (id, client): Entry) -> Option<Update> {
        match client {
            Ok(client) => {
                self.faulty.remove(&id);
                Some(Update::Put(Box::new(client)))
            }
            Err(fault) => {
                if self.faulty.get(&id) != Some(&fault) {
                    error!(%fault, "the previous version of this client stays in force");
                    self.faulty.insert(id, fault);
                }
                None
            }
        }
    }

    /// Reads all signing keys. The previous versions of those whose rows have a fault stay in force.
    fn read_keys(&mut self) -> Result<News, Failure> {
        let sealed = rows::sealed_keys(&mut self.database)?;
        let OpenedKeys { keys, sealed, faulty, faults } =
            rows::open_keys(self.database.name(), &self.master_keys, sealed);
        let kept: Vec<_> = faulty.into_iter().map(|key| key.id).collect();
        self.snapshot_file.add_keys(sealed, &kept);
        let fault = faults.first().map(ToString::to_string);
        if let Some(fault) = &fault
            && self.key_fault.as_ref() != Some(fault)
        {
            error!(%fault, "the previous version of this key, if any, stays in force");
        }
        self.key_fault = fault;
        Ok(News { keys: Some(keys), kept_keys: kept, ..News::default() })
    }

    pub(super) fn note_faults(&self) {
        let mut problems = Vec::new();
        if let Some(fault) = &self.key_fault {
            problems.push(format!(
                "{fault}; the other signing keys are in force, and the previous version of this one, \
                 if any"
            ));
        }
        if let Some(first) = self.faulty.values().next() {
            let count = self.faulty.len();
            problems.push(format!(
                "{count} clients in the store have a fault, and their previous version, if any, \
                 stays in force: {first}"
            ));
        }
        self.health.note_faulty((!problems.is_empty()).then(|| problems.join("; ")));
    }

    /// Reads everything, and puts in force in what it differs.
    fn read_anew(&mut self, sink: &mut Sink) -> Result<(), Failure> {
        let now = self.clock.now();
        let position = Position::begin_after(self.last.as_ref(), &mut self.database)?;
        let source = position.source(&mut self.database, &self.source)?;
        self.snapshot_file.begin(source.clone());
        resync_revoked(&mut self.database, &self.revoked, &mut self.snapshot_file, now)?;
        let keys_before = self.snapshot_file.key_ids();
        let mut news = self.read_keys()?;
        let registered = Arc::clone(&(sink.snapshot)().clients);
        // The clients of the registry that are not in the store, until they are found there.
        let missing: HashSet<_> = registered.iter().map(|client| client.id.clone()).collect();
        let found = Mutex::new((missing, Vec::new()));
        let take = |entries: Vec<Entry>| {
            let mut found = found.lock();
            for (id, client) in entries {
                found.0.remove(&id);
                let is_same = |client| registered.get(&id) == Some(client);
                if !client.as_ref().is_ok_and(is_same) {
                    found.1.push((id, client));
                }
            }
        };
        let snapshot_file = &mut self.snapshot_file;
        rows::each_client(&mut self.database, &take, &mut |id, entry| {
            snapshot_file.add(&Item::Client(id, entry));
        })?;
        self.snapshot_file.end_base(now);
        let (missing, differing) = found.into_inner();
        self.faulty.clear();
        if source.system != self.source.system {
            warn!(
                store = %self.database.name().display(),
                "the store is not the one that this server has read before, or it was restored: its contents are in force now"
            );
        }
        if source.epoch != self.source.epoch {
            let mut differences = Differences::default();
            missing.iter().for_each(|id| differences.clients_gone.add(id));
            for (id, _) in differing.iter().filter(|(_, client)| client.is_ok()) {
                match registered.get(id) {
                    Some(_) => differences.clients_changed.add(id),
                    None => differences.clients_new.add(id),
                }
            }
            let left = self.snapshot_file.key_ids();
            let before = keys_before.iter().map(String::as_str);
            differences.note_keys(before, |id| left.iter().any(|key| key == id));
            differences.report(self.database.name());
        }
        self.source = source;
        let gone = missing.len();
        news.clients = missing.into_iter().map(Update::Remove).collect();
        news.clients.extend(differing.into_iter().filter_map(|entry| self.judge(entry)));
        info!(
            store = %self.database.name().display(),
            changed = news.clients.len() - gone,
            gone,
            "the store was read anew"
        );
        news.lifetimes = lifetimes::read(&mut self.database)?;
        (sink.apply)(news);
        self.note_faults();
        self.health.note_epoch(position.since);
        (self.position, self.last) = (Some(position), None);
        Ok(())
    }

    /// Drops revocations that are over from memory, now and then.
    fn drop_over(&mut self, now: Instant) {
        if now >= self.drop_due {
            self.drop_due = now + DROP_EVERY;
            self.revoked.drop_over(self.clock.now());
        }
    }
}

/// The thread that follows the store. It ends when this value is dropped.
#[derive(Debug)]
pub struct Following {
    /// The thread ends when this is dropped.
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            join_within(thread, LONGEST_WAIT);
        }
    }
}

const POLL: &str = "select p.epoch, p.snapshot, p.is_pruned, \
                    floor(extract(epoch from p.since))::bigint, p.kind, p.name \
                    from grantd.poll($1) p";
const REVOKED: &str = "select r.key, r.client, r.expires_at from grantd.revocation r \
                       where r.key = any ($1::bytea[])";
const CUT_OFF: &str = "select c.client, c.until from grantd.cut_off c \
                       where c.client = any ($1::bytea[])";
const DROP_EVERY: Duration = Duration::from_secs(300);
/// The most changes of clients that are put in force at once, and so stand in memory twice.
const MOST_AT_ONCE: usize = 50_000;
