//! Reads the contents of the store at the start of a server, or, while the store is away, the
//! snapshot.

use std::io::ErrorKind;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Startup;
use crate::fault::Fault;
use crate::keys::signing_key::SigningKey;
use crate::oauth::decoy::DecoyKey;
use crate::random::Random;
use crate::registry::clients::Registry;
use crate::state::revocations::ledger::Shared;
use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::{Failure, FailureKind, clean};
use crate::store::postgres::keys::SealedKey;
use crate::store::postgres::lifetimes;
use crate::store::postgres::lost::Recalled;
use crate::store::postgres::position::Position;
use crate::store::postgres::resync::resync_revoked;
use crate::store::postgres::rows::{self, Faulty, OpenedKeys};
use crate::store::postgres::schema;
use crate::store::postgres::seal::{DECOY_KEY, MasterKeys, Purpose};
use crate::store::postgres::snapshot_file::{self, Item, Loaded, SnapshotFile, Source};
use crate::time::UnixTime;

/// The contents of the store at the start of a server.
pub(super) struct Known {
    pub(super) clients: Registry,
    pub(super) faulty: Faulty,
    pub(super) keys: Vec<SigningKey>,
    /// The fault of a signing key that is not used.
    pub(super) key_fault: Option<String>,
    pub(super) decoy_key: DecoyKey,
    pub(super) shared: Arc<Shared>,
    /// `None` if everything must be read anew when the store answers.
    pub(super) position: Option<Position>,
    /// The lifetimes that were shortened. The file in the state directory has those in a snapshot.
    pub(super) lifetimes: Vec<lifetimes::Row>,
    /// The store from which it was read.
    pub(super) source: Source,
    /// If the store is away: the age of what is known, and why it is away.
    pub(super) away: Option<(Duration, String)>,
}

/// Why the store was not read.
enum Unread {
    /// It is away.
    Away(Failure),
    /// It answers, and cannot be used.
    Unusable(Vec<Fault>),
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Self {
        if failure.kind == FailureKind::Away || failure.has_timed_out() {
            Self::Away(failure)
        } else {
            Self::Unusable(failure.into())
        }
    }
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Unusable(vec![fault])
    }
}

impl From<Unread> for Vec<Fault> {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Away(failure) => failure.into(),
            Unread::Unusable(faults) => faults,
        }
    }
}

/// Reads the store at the start.
pub(super) struct Start<'s> {
    pub(super) database: &'s mut Database,
    pub(super) master_keys: &'s Arc<MasterKeys>,
    pub(super) clock: &'s Clock,
    pub(super) snapshot_file: &'s mut SnapshotFile,
    /// The store as its URL describes it.
    pub(super) source: &'s Source,
}

impl Start<'_> {
    /// Reads the store, and, if it is away, the snapshot in `path`, if one is kept.
    ///
    /// # Errors
    ///
    /// All [`Fault`]s.
    pub(super) fn run(&mut self, path: Option<&Path>) -> Result<Known, Vec<Fault>> {
        let Some(path) = path else { return Ok(self.read_in_time()?) };
        let read = match self.database.connect_within(LONGEST_CONNECT) {
            Ok(()) => self.read(Some(path)),
            Err(failure) => Err(failure.into()),
        };
        let failure = match read {
            Ok(known) => return Ok(known),
            Err(Unread::Unusable(faults)) => return Err(faults),
            Err(Unread::Away(failure)) => failure,
        };
        match self.of_snapshot(path, &failure) {
            Ok(known) => Ok(known),
            // Without a snapshot, the store gets all the time that its URL grants.
            Err(faults) => self.read_in_time().map_err(|unread| {
                let mut all = match unread {
                    Unread::Unusable(faults) => return faults,
                    Unread::Away(_) => vec![Fault::from(failure)],
                };
                all.extend(faults.into_iter().map(|mut fault| {
                    fault.problem = format!("{}; {CANNOT_START}", fault.problem);
                    fault
                }));
                all
            }),
        }
    }

    /// Reads the store. Waits for a lock that another transaction holds.
    fn read_in_time(&mut self) -> Result<Known, Unread> {
        let begin = self.clock.instant();
        loop {
            let failure = match self.read(None) {
                Err(Unread::Away(failure)) if failure.has_timed_out() => failure,
                read => return read,
            };
            if self.clock.instant().saturating_duration_since(begin) >= LOCK_WAIT {
                return Err(failure.into());
            }
            info!(error = %failure, "the store could not be read in time: trying again");
            thread::sleep(LOCK_PAUSE);
        }
    }

    /// Reads the store, and compares it with the snapshot in `path`.
    fn read(&mut self, path: Option<&Path>) -> Result<Known, Unread> {
        let Self { database, master_keys, clock, snapshot_file, source } = self;
        schema::require(database)?;
        let now = clock.now();
        let position = Position::begin(database)?;
        let sealed_decoy_key = sealed_decoy_key(database, master_keys)?;
        let decoy_key = open_decoy_key(database.name(), master_keys, &sealed_decoy_key)?;
        let source = position.source(database, source)?;
        let shared = Arc::<Shared>::default();
        let mut recalled = path.and_then(|path| recall(path, &source, master_keys, &shared));
        snapshot_file.begin(source.clone());
        snapshot_file.set_decoy_key(sealed_decoy_key);
        resync_revoked(database, &shared, snapshot_file, now)?;
        let OpenedKeys { keys, faulty: faulty_keys, faults, .. } = self.keys(path, &source, now)?;
        let Self { database, snapshot_file, .. } = self;
        let (clients, faulty) = rows::registry(database, &mut |id, entry| {
            snapshot_file.add(&Item::Client(id, entry));
            if let Some(recalled) = &mut recalled {
                recalled.compare(id, entry);
            }
        })?;
        snapshot_file.end_base(now);
        if let Some(recalled) = recalled {
            let is_left = |id: &str| {
                keys.iter().any(|key| key.key_id() == id)
                    || faulty_keys.iter().any(|key| key.id == id)
            };
            recalled.report(database.name(), is_left);
        }
        Ok(Known {
            clients,
            faulty,
            keys,
            key_fault: faults.first().map(ToString::to_string),
            decoy_key,
            shared,
            position: Some(position),
            lifetimes: lifetimes::read(database)?,
            source,
            away: None,
        })
    }

    /// Reads the signing keys. Of those that have a fault, takes the previous versions from the
    /// snapshot in `path`: the servers that run keep them, too, and will sign with them.
    fn keys(
        &mut self,
        path: Option<&Path>,
        source: &Source,
        now: UnixTime,
    ) -> Result<OpenedKeys, Unread> {
        let Self { database, master_keys, snapshot_file, .. } = self;
        let sealed = rows::sealed_keys(database)?;
        let mut opened = rows::open_keys(database.name(), master_keys, sealed);
        if let Some(path) = path.filter(|_| !opened.faulty.is_empty()) {
            let previous = previous_versions(path, source, master_keys, &opened.faulty);
            opened.faulty.retain(|key| !previous.sealed.iter().any(|kept| kept.id == key.id));
            for SealedKey { id, .. } in &previous.sealed {
                warn!(kid = clean(id), "the previous version of this signing key stays in force");
            }
            opened.keys.extend(previous.keys);
            opened.sealed.extend(previous.sealed);
        }
        // Without these keys, this server would sign with another one than the others for as long as
        // it runs, if a master key is missing here. A row that no server has written, or that was
        // damaged, must not keep all servers from starting.
        let own = master_keys.ids();
        let is_missing =
            |key: &SealedKey| MasterKeys::id_in(&key.document).is_some_and(|id| !own.contains(&id));
        let can_sign = opened.keys.iter().any(|key| key.times().signs_from <= now);
        if !opened.faults.is_empty() && (!can_sign || opened.faulty.iter().any(is_missing)) {
            return Err(Unread::Unusable(opened.faults));
        }
        for fault in &opened.faults {
            error!(%fault, "this version of a signing key is not used");
        }
        snapshot_file.add_keys(take(&mut opened.sealed), &[]);
        Ok(opened)
    }

    fn of_snapshot(&mut self, path: &Path, failure: &Failure) -> Result<Known, Vec<Fault>> {
        let shared = Arc::<Shared>::default();
        let (loaded, keys, decoy_key) =
            open_snapshot(path, self.source, self.master_keys, &shared)?;
        let Loaded { seen, source, clients, faulty, cut, .. } = loaded;
        // They are in every further base, too.
        self.snapshot_file.set_decoy_key(loaded.decoy_key);
        self.snapshot_file.add_keys(loaded.keys, &[]);
        let age = self.clock.now().since(seen);
        if cut > 0 {
            warn!(snapshot = %path.display(), bytes = cut, "{CUT}");
        }
        warn!(
            error = %failure,
            snapshot = %path.display(),
            age_in_s = age,
            clients = clients.len(),
            keys = keys.len(),
            revocations = shared.revoked.len(),
            "the store is away: starting from the snapshot of it"
        );
        Ok(Known {
            clients,
            faulty,
            keys,
            key_fault: None,
            decoy_key,
            shared,
            position: None,
            lifetimes: Vec::new(),
            // The hosts of the snapshot may be former ones.
            source: Source { hosts: self.source.hosts.clone(), ..source },
            away: Some((Duration::from_secs(age), failure.to_string())),
        })
    }
}

/// Puts the revocations in the snapshot of an earlier epoch into `shared`, and returns its clients and
/// keys: the store may have lost them. `None` if there is no such snapshot.
fn recall(
    path: &Path,
    source: &Source,
    master_keys: &Arc<MasterKeys>,
    shared: &Shared,
) -> Option<Recalled> {
    path.symlink_metadata().ok()?;
    snapshot_file::recall(path, source, master_keys, &shared.revoked).unwrap_or_else(|fault| {
        warn!(
            error = %fault,
            "the last snapshot cannot be read: if the store has lost revocations, they are not found in it"
        );
        None
    })
}

/// Opens the versions of the keys `faulty` in the snapshot in `path`.
fn previous_versions(
    path: &Path,
    source: &Source,
    master_keys: &Arc<MasterKeys>,
    faulty: &[SealedKey],
) -> OpenedKeys {
    if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return <_>::default();
    }
    let mut sealed = snapshot_file::keys(path, source, master_keys).unwrap_or_else(|fault| {
        warn!(error = %fault, "the last snapshot cannot be read: previous versions of signing keys are not found in it");
        Vec::new()
    });
    sealed.retain(|key| faulty.iter().any(|faulty| faulty.id == key.id));
    rows::open_keys(path, master_keys, sealed)
}

/// Reads the snapshot in `path`, and opens its keys.
fn open_snapshot(
    path: &Path,
    source: &Source,
    master_keys: &Arc<MasterKeys>,
    shared: &Shared,
) -> Result<(Loaded, Vec<SigningKey>, DecoyKey), Vec<Fault>> {
    let mut loaded = snapshot_file::load(path, source, master_keys, &shared.revoked)?;
    let decoy_key = open_decoy_key(path, master_keys, &loaded.decoy_key)?;
    let opened = rows::open_keys(path, master_keys, take(&mut loaded.keys));
    let OpenedKeys { keys, sealed, faults, .. } = opened;
    loaded.keys = sealed;
    if !faults.is_empty() {
        return Err(faults);
    }
    if keys.is_empty() {
        return Err(vec![Fault::new(path, "holds no signing key, as the store did not")]);
    }
    Ok((loaded, keys, decoy_key))
}

/// Says whether a server could start at `now` while the store is away. Returns a line, and whether
/// it is a warning. `None` if no snapshot is kept.
pub fn about_snapshot(startup: &Startup, random: &Random, now: UnixTime) -> Option<(bool, String)> {
    let settings = &startup.store;
    let source = settings.url.as_ref().filter(|_| settings.cache).map(Source::of)?;
    let path = snapshot_file::path(&startup.state);
    let shown = path.display();
    if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        let line = format!("{shown}: there is no snapshot yet; `serve` writes it");
        return Some((false, line));
    }
    let opened = MasterKeys::load(settings, random).map_err(Vec::from).and_then(|master_keys| {
        open_snapshot(&path, &source, &Arc::new(master_keys), &Shared::default())
    });
    Some(match opened {
        Ok((loaded, keys, _)) => {
            let (clients, keys, age) = (loaded.clients.len(), keys.len(), now.since(loaded.seen));
            let mut line = format!(
                "{shown}: `serve` starts from this snapshot while the database is away: clients: \
                 {clients}, keys: {keys}, {age} s old"
            );
            if loaded.cut > 0 {
                line = format!("{line}; {CUT}");
            }
            (loaded.cut > 0, line)
        }
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            let line =
                format!("{}; until `serve` has replaced it, {CANNOT_START}", faults.join("; "));
            (true, line)
        }
    })
}

/// Reads the sealed decoy key. If there is none, generates one; of several servers that do so at the
/// same time, all use the first one's.
fn sealed_decoy_key(database: &mut Database, master_keys: &MasterKeys) -> Result<Vec<u8>, Unread> {
    let store = database.name().to_owned();
    let get = |database: &mut Database| database.value(GET_SECRET, &[(&DECOY_KEY, Type::TEXT)]);
    if let Some(sealed) = get(database)? {
        return Ok(sealed);
    }
    let no_random = |_| Fault::new(&store, "the operating system has no random bytes");
    let mut bytes = Zeroizing::new([0; DecoyKey::BYTES]);
    master_keys.random.fill(&mut *bytes).map_err(no_random)?;
    let sealed = master_keys.seal(Purpose::Secret, DECOY_KEY, &*bytes).map_err(no_random)?;
    let parameters = [(&DECOY_KEY as _, Type::TEXT), (&sealed as _, Type::BYTEA)];
    database.query(PUT_SECRET, &parameters, REQUEST_LIMIT)?;
    let problem = "has not kept the row that was written to grantd.secret: see its triggers";
    let lost = || Failure::new(FailureKind::Malformed, &store, problem).into();
    get(database)?.ok_or_else(lost)
}

/// Opens the decoy key. `store` is shown in the faults.
fn open_decoy_key(
    store: &Path,
    master_keys: &MasterKeys,
    sealed: &[u8],
) -> Result<DecoyKey, Fault> {
    let key = master_keys.open(store, Purpose::Secret, DECOY_KEY, sealed)?;
    let problem = "holds a decoy key of another length: delete it from grantd.secret";
    let key = key.as_slice().try_into().map_err(|_| Fault::new(store, problem))?;
    Ok(DecoyKey::new(key))
}

/// How long a server that has a snapshot waits for the store at its start.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);
const CUT: &str = "the snapshot ends in the middle of a record, as after a crash: the changes of its last \
                   seconds are missing";
const CANNOT_START: &str = "no server can start from it while the database is away";
const GET_SECRET: &str = "select s.sealed from grantd.secret s where s.name = $1";
const PUT_SECRET: &str = "insert into grantd.secret (name, sealed) values ($1, $2) \
                          on conflict (name) do nothing";
/// How long a server that starts waits for a lock, if the role has a shorter time limit.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(30);
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(100);
