//! Rotates the signing keys in the store.
//!
//! Each server reports which keys it publishes. One of them leads, for a term of at most thirty
//! seconds at a time: it makes the next key, and it postpones a key that a live server has not
//! published. The database refuses what it writes after its term, even if the server does not know
//! that the term is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::fault::Fault;
use crate::keys::change;
use crate::keys::key_file;
use crate::keys::life::{KeyTimes, Retention};
use crate::keys::rotation::{PlannedKey, Publisher, Rotation, Step, earliest_start};
use crate::random::Random;
use crate::state::key_rotation::KeyRotation;
use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::{Failure, FailureKind, clean};
use crate::store::postgres::keys::{self, PUBLISHERS, SealedKey};
use crate::store::postgres::row::{Row, time};
use crate::store::postgres::rows;
use crate::store::postgres::seal::MasterKeys;
use crate::time::UnixTime;

/// The keys that a server serves with, and how they rotate.
pub struct Serving {
    /// All keys.
    pub keys: Vec<PlannedKey>,
    /// The ids of the keys that are in the key set now.
    pub published: Vec<String>,
    /// How long verifiers may use key sets and tokens.
    pub retention: Retention,
    /// The setting `keys.rotate_every`.
    pub rotate_every: Option<u64>,
    /// The size of the next key, in bits.
    pub bits: u16,
}

/// Reports what this server publishes, and rotates the keys while it leads.
pub(super) struct KeyRotator {
    /// The name of this server in the store, which no other process has.
    node: String,
    /// The keys that this server publishes, each with the time since which it does; `None` if since
    /// it began to serve.
    published: BTreeMap<String, Option<Instant>>,
    /// Whether the keys have changed since the last report.
    is_changed: bool,
    due: Instant,
    /// The number of the present term, while this server leads.
    term: Option<i64>,
    /// This server must not lead before this time.
    unfit_until: Option<Instant>,
    /// The key that was postponed, because servers have not published it for long enough.
    postponed: Option<String>,
    /// The servers whose last reports were malformed.
    malformed: BTreeSet<String>,
    /// The last failure, which is logged once.
    failure: Option<String>,
}

/// The arguments of one run.
pub(super) struct Means<'m> {
    pub(super) database: &'m mut Database,
    pub(super) master_keys: &'m MasterKeys,
    pub(super) serving: Serving,
    pub(super) health: &'m KeyRotation,
    /// The time between two polls of the store.
    pub(super) poll: Duration,
    pub(super) now: Instant,
}

/// Why the leader could not act.
enum Problem {
    /// The store did not answer as expected.
    Failure(Failure),
    /// This server cannot make a key. Another one might.
    Unfit(Fault),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Unfit(fault)
    }
}

impl KeyRotator {
    /// Creates the rotator of a server that begins at `now`.
    pub(super) fn new(random: &Random, now: Instant) -> Self {
        Self {
            node: node_name(random),
            published: BTreeMap::new(),
            is_changed: true,
            due: now,
            term: None,
            unfit_until: None,
            postponed: None,
            malformed: BTreeSet::new(),
            failure: None,
        }
    }

    /// Notes the keys with which this server begins: no key set of it lacks them.
    pub(super) fn begin(&mut self, serving: Serving) {
        self.published = serving.published.into_iter().map(|id| (id, None)).collect();
    }

    /// Does what is due. A failure is logged, and `/readyz` shows it until a run succeeds.
    pub(super) fn run(&mut self, means: Means<'_>) {
        let health = means.health;
        match self.attend(means) {
            Ok(false) => {}
            Ok(true) => {
                let has_failed = self.failure.take().is_some();
                if has_failed && health.fault().is_some_and(|fault| fault.starts_with(FAILED)) {
                    health.note(None);
                }
            }
            Err(failure) => {
                // A connection that is lost once is shown as a failure of the store, and the next poll
                // connects again.
                let is_shown = failure.kind != FailureKind::Away || self.failure.is_some();
                let failure = failure.to_string();
                if self.failure.as_ref() != Some(&failure) {
                    warn!(error = %failure, "{FAILED}");
                }
                health.note(is_shown.then(|| format!("{FAILED}: {failure}")));
                self.failure = Some(failure);
            }
        }
    }

    /// Tells the other servers that this one ends, so that they do not wait for it.
    pub(super) fn leave(&self, database: &mut Database) {
        if let Err(failure) = database.query(LEAVE, &[(&self.node, Type::TEXT)], REQUEST_LIMIT) {
            info!(error = %failure, "this server was not signed off: the others wait for it for 30 s and twice jwks_max_age");
        }
    }

    /// Returns whether anything was due.
    fn attend(&mut self, mut means: Means<'_>) -> Result<bool, Failure> {
        let now = means.now;
        self.note_published(&means.serving.published, now);
        if now < self.due && !self.is_changed {
            return Ok(false);
        }
        let period =
            Duration::from_secs(means.serving.retention.jwks_max_age.clamp(1, MOST_BETWEEN));
        self.due = now + period;
        let may_lead = self.unfit_until.is_none_or(|until| until <= now);
        let (term, at) = self.report(&mut means, if may_lead { 3 * period } else { NO_TERM })?;
        self.is_changed = false;
        if term.is_some() && term != self.term {
            info!(node = %self.node, term, "this server rotates the keys");
        }
        self.term = term;
        let Some(term) = term else {
            if may_lead {
                means.health.note(None);
            }
            return Ok(true);
        };
        let lead = (3 * period + 2 * means.poll).as_secs() + 1;
        let Serving { retention, rotate_every, .. } = means.serving;
        let rotation = Rotation { every: rotate_every, retention, lead };
        let rows = means.database.query(PUBLISHERS, &[], REQUEST_LIMIT)?;
        let publishers = self.publishers(&rows);
        let done = match rotation.step(&means.serving.keys, &publishers, at) {
            Step::None => {
                self.note_postponed(&means, &publishers, at);
                Ok(())
            }
            Step::Make(times) => self.make(&mut means, times, term),
            Step::Postpone { key_id, to, because_of } => {
                self.postpone(&mut means, &key_id, to, term).map(|is_done| {
                    if is_done {
                        note_waiting(means.health, &key_id, &because_of);
                        self.postponed = Some(key_id);
                    } else {
                        warn!(
                            kid = key_id,
                            "the next signing key was not postponed: its row has changed, or another server leads"
                        );
                    }
                })
            }
        };
        match done {
            Ok(()) => Ok(true),
            Err(Problem::Failure(failure)) => Err(failure),
            Err(Problem::Unfit(fault)) => {
                let problem = format!(
                    "keys.rotate_every has no effect at this server: no next key can be made: \
                     {fault}; until then, the present key signs"
                );
                if means.health.note(Some(problem.clone())) {
                    error!("{problem}");
                }
                self.unfit_until = Some(now + UNFIT);
                // Another server may lead instead.
                self.term = None;
                self.report(&mut means, NO_TERM).map(|_| true)
            }
        }
    }

    /// Reads the reports of the servers, and logs once if one is malformed.
    fn publishers(&mut self, rows: &[Row]) -> Vec<Publisher> {
        let (mut publishers, mut malformed) = (Vec::new(), BTreeSet::new());
        for row in rows {
            let (publisher, failure) = keys::publisher(row);
            if let Some(failure) = failure {
                let node = &publisher.name;
                if !self.malformed.contains(node) {
                    let text = "the report of this server is malformed: it counts as one that has \
                                published no key";
                    warn!(node, error = %failure, "{text}");
                }
                malformed.insert(node.clone());
            }
            publishers.push(publisher);
        }
        self.malformed = malformed;
        publishers
    }

    fn note_published(&mut self, published: &[String], now: Instant) {
        let before = self.published.len();
        self.published.retain(|id, _| published.contains(id));
        self.is_changed |= self.published.len() != before;
        for id in published {
            if !self.published.contains_key(id) {
                self.published.insert(id.clone(), Some(now));
                self.is_changed = true;
            }
        }
    }

    /// Reports the published keys. Returns the number of the term if this server leads, and the time
    /// by the clock of the database.
    fn report(
        &self,
        means: &mut Means<'_>,
        term: Duration,
    ) -> Result<(Option<i64>, UnixTime), Failure> {
        let age = |since| means.now.saturating_duration_since(since).as_secs();
        let age = |since| i64::try_from(age(since)).unwrap_or(i64::MAX);
        let ids: Vec<&str> = self.published.keys().map(String::as_str).collect();
        let ages: Vec<i64> = self.published.values().map(|since| since.map_or(-1, age)).collect();
        let max_age = i64::try_from(means.serving.retention.jwks_max_age).unwrap_or(i64::MAX);
        // While such a server reports, one that makes no key does not lead.
        let makes_keys = means.serving.rotate_every.is_some() && term > NO_TERM;
        let term = i64::try_from(term.as_secs()).unwrap_or(0);
        let parameters = [
            (&self.node as _, Type::TEXT),
            (&ids as _, Type::TEXT_ARRAY),
            (&ages as _, Type::INT8_ARRAY),
            (&max_age as _, Type::INT8),
            (&term as _, Type::INT8),
            (&makes_keys as _, Type::BOOL),
        ];
        let rows = means.database.query(REPORT, &parameters, REQUEST_LIMIT)?;
        let Some(row) = rows.first() else { return Ok((None, UnixTime(0))) };
        Ok((row.get(0)?, time(row.get(1)?)))
    }

    /// Notes that the postponed key still waits, or that none does.
    fn note_postponed(&mut self, means: &Means<'_>, publishers: &[Publisher], now: UnixTime) {
        let Serving { keys, retention, .. } = &means.serving;
        let waiting = self.postponed.as_ref().and_then(|id| {
            let key = keys.iter().find(|key| key.id == *id && key.times.signs_from > now)?;
            Some((id, earliest_start(key, publishers, retention, now).err()?))
        });
        match waiting {
            Some((id, because_of)) => note_waiting(means.health, id, &because_of),
            None => {
                self.postponed = None;
                means.health.note(None);
            }
        }
    }

    fn make(&mut self, means: &mut Means<'_>, times: KeyTimes, term: i64) -> Result<(), Problem> {
        let Means { database, master_keys, serving, health, .. } = means;
        let store = database.name().to_owned();
        let found = rows::sealed_keys(database)?;
        let known: Vec<&str> = found.iter().map(|row| &*row.id).collect();
        if known.len() != serving.keys.len()
            || !serving.keys.iter().all(|key| known.contains(&&*key.id))
        {
            // A change of the keys is not in force here yet, or it cannot be.
            return Ok(());
        }
        // Servers may lack a master key that has sealed nothing yet.
        if !found.iter().all(|row| master_keys.is_of_first(&row.document)) {
            let problem = "the keys in it are sealed with another master key than the first one of \
                           this server: put that key first in store.master_key_file, or run \
                           `grantd store rekey` when every server has the new one";
            return Err(Fault::new(&store, problem).into());
        }
        let (key, document) = change::new_document(&store, serving.bits, times)?;
        let row = SealedKey::seal(&store, master_keys, &key, &document, &[])?;
        let mut parameters = row.parameters().to_vec();
        parameters.push((&known, Type::TEXT_ARRAY));
        parameters.extend([(&self.node as _, Type::TEXT), (&term as _, Type::INT8)]);
        if database.value(ADD, &parameters)? == Some(true) {
            let signs_from = times.signs_from.0;
            info!(kid = row.id, signs_from, "made the next signing key");
        } else {
            info!("no next signing key was made: the keys have changed, or another server leads");
        }
        health.note(None);
        Ok(())
    }

    /// Postpones a key until `to`. Returns whether it did.
    fn postpone(
        &mut self,
        means: &mut Means<'_>,
        key_id: &str,
        to: UnixTime,
        term: i64,
    ) -> Result<bool, Problem> {
        let Means { database, master_keys, .. } = means;
        let store = database.name().to_owned();
        let found = rows::sealed_keys(database)?;
        let Some(row) = found.iter().find(|row| row.id == key_id) else { return Ok(false) };
        let text = row.document(&store, master_keys)?;
        let published_at = key_file::parse(&store, &text)?.times().published_at;
        let times = KeyTimes { published_at, signs_from: to };
        let (key, document) = key_file::with_times(&store, &text, times)?;
        let row = SealedKey::seal(&store, master_keys, &key, &document, &row.document)?;
        let mut parameters = row.parameters().to_vec();
        parameters.extend([(&self.node as _, Type::TEXT), (&term as _, Type::INT8)]);
        Ok(database.value(POSTPONE, &parameters)? == Some(true))
    }
}

/// Notes and logs that a key waits for servers.
fn note_waiting(health: &KeyRotation, key_id: &str, because_of: &[String]) {
    let servers = because_of.join(", ");
    let problem = format!(
        "the next signing key {key_id} begins to sign later, because these servers have not \
         published it: {servers}"
    );
    if health.note(Some(problem.clone())) {
        warn!("{problem}");
    }
}

/// Returns a name for this process that no other one has, and that operators can find.
fn node_name(random: &Random) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = clean(host.trim()).chars().take(100).collect();
    let mut bytes = [0; 8];
    // Without random bytes, the host and the process have to do.
    let _ = random.fill(&mut bytes);
    format!("{host}:{}:{:016x}", std::process::id(), u64::from_be_bytes(bytes))
}

/// Begins the text about a failure of a run.
const FAILED: &str = "the rotation of keys has failed and is tried again";
/// The term of a server that does not lead.
const NO_TERM: Duration = Duration::ZERO;
/// The most seconds between two reports. A term is three times as long.
const MOST_BETWEEN: u64 = 10;
/// How long a server that cannot make a key lets others lead.
const UNFIT: Duration = Duration::from_secs(60);
const REPORT: &str = "select r.fence, r.now from grantd.report($1, $2, $3, $4, $5, $6) r";
const LEAVE: &str = "select grantd.leave($1)";
// Both write if the term lasts, and return whether they did.
const ADD: &str = "select grantd.add_next_key($1, $2, $3, $4, $5, $6, $7)";
const POSTPONE: &str = "select grantd.postpone_key($1, $2, $3, $4, $5, $6)";
