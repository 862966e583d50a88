//! Reloads the configuration, clients and keys while requests are answered.
//!
//! Each file is judged by itself: a file with a fault keeps its previous version in force, and the
//! other files take effect. The result is checked as a whole before the pointer to the snapshot is
//! swapped. A request sees the old snapshot or the new one, never a mixture. If the result must not
//! stand, nothing changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::config::{Config, Live};
use crate::endpoint::Context;
use crate::fault::Fault;
use crate::fs::file_watch::Stamp;
use crate::keys::key_set::KeySet;
use crate::keys::key_store::StoredKeys;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client_secret::FastHash;
use crate::registry::client_file::{self, KeyPaths, Loaded};
use crate::registry::clients::Registry;
use crate::server::in_force::{InForce, KeyIds};
use crate::server::judge::{Bars, judge};
use crate::server::rotation::FileRotation;
use crate::server::start_error::StartError;
use crate::snapshot::changes::Changes;
use crate::snapshot::files::{self, Files};
use crate::snapshot::lifetimes::Shortened;
use crate::snapshot::news::News;
use crate::snapshot::{Snapshot, retention};
use crate::telemetry::audit::Event;

/// Makes a running server read its files again.
#[derive(Debug)]
pub struct Reloader {
    context: Arc<Context>,
    /// A reload holds this lock, so that only one reload runs at a time.
    in_force: Mutex<InForce>,
    /// The stamp of the files that the clients' `jwks` name. It is taken before the files are read,
    /// so a change during the reading is noticed at the next check.
    client_keys: Mutex<Stamp>,
    rotation: Mutex<FileRotation>,
}

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Whether a new snapshot is in force.
    pub is_applied: bool,
    /// The faults of the files. The previous version of each of these files stays in force.
    pub faults: Vec<String>,
}

/// The newest version without a fault of each file.
struct Newest {
    /// `None` if the clients of the old snapshot stay.
    clients: Option<Registry>,
    /// The keys that were read. Others may stay.
    keys: Vec<SigningKey>,
    /// The keys of all files, those that stay included.
    key_ids: KeyIds,
    key_paths: KeyPaths,
    admin_token: Option<FastHash>,
    /// Whether a file that only the new settings name has a fault.
    lacks_new_file: bool,
}

/// The parts of the next snapshot.
struct Parts<'o> {
    config: Config,
    clients: Arc<Registry>,
    keys: Vec<SigningKey>,
    /// The ids of the keys of the old snapshot that stay although they are not in `keys`.
    kept_keys: &'o [&'o str],
    admin_token: Option<FastHash>,
    lifetimes: Vec<(String, Shortened)>,
}

impl Reloader {
    pub(super) fn new(context: Arc<Context>, mut in_force: InForce, client_keys: Stamp) -> Self {
        let snapshot = context.snapshot();
        let at = context.key_time(&snapshot, context.clock.now());
        let signs = snapshot.keys.signing_key(at).map(|key| key.key_id().to_owned());
        in_force.signed_last = signs;
        let (in_force, client_keys) = (Mutex::new(in_force), Mutex::new(client_keys));
        Self { context, in_force, client_keys, rotation: Mutex::default() }
    }

    /// Returns the stamp of the files that the clients' `jwks` name. The stamp was taken at the
    /// start or at the last reload, before the files were read. If the files have a different stamp
    /// now, they have changed, and a reload is needed.
    pub fn client_keys(&self) -> Stamp {
        self.client_keys.lock().clone()
    }

    /// Whether the start or the last reload has found a fault, so that a reload should be tried again.
    pub fn has_fault(&self) -> bool {
        self.in_force.lock().degraded[0].is_some()
    }

    /// Returns the settings in force that a reload may change.
    pub fn settings(&self) -> Live {
        self.context.snapshot().config.live.clone()
    }

    /// Reads the files that `config` names, and puts the newest version without a fault of each
    /// file in force, all at once. `config` is the configuration, or the faults of its file: then
    /// the settings stay as they are. Changes nothing if the result must not stand, for example
    /// because the demo clients would be served in public. Logs and counts the outcome. Blocks for
    /// as long as a start of the server takes, so this method must not run on an event loop.
    pub fn reload(&self, config: Result<Config, String>) -> Reloaded {
        let reloaded = self.reload_files(config);
        if self.context.store.is_some() {
            // The new settings may bar other clients of the store.
            self.apply(News::default());
        }
        reloaded
    }

    fn reload_files(&self, config: Result<Config, String>) -> Reloaded {
        let in_force = &mut *self.in_force.lock();
        let old = self.context.snapshot();
        let mut faults = Vec::new();
        let live = match config {
            Ok(config) => {
                let changed = config.startup.differences(&old.config.startup);
                if !changed.is_empty() {
                    let settings = changed.join(", ");
                    warn!(%settings, "changes of these settings take effect only after a restart");
                }
                config.live
            }
            Err(fault) => {
                faults.extend(fault.lines().map(str::to_owned));
                old.config.live.clone()
            }
        };
        let mut config = Config { startup: old.config.startup.clone(), live };
        let mut newest = self.read(&config.live, &old, in_force, &mut faults);
        if newest.lacks_new_file {
            // The settings and the files that they name take effect together.
            let problem =
                "the settings stay as they are, because a file that they name has a fault";
            faults.push(problem.to_owned());
            config.live.clone_from(&old.config.live);
            newest = self.read(&config.live, &old, in_force, &mut faults);
        }
        let Newest { clients, keys, key_ids, key_paths, admin_token, lacks_new_file: _ } = newest;
        let clients = clients.map_or_else(|| Arc::clone(&old.clients), Arc::new);
        let kept_keys: Vec<_> = key_ids.values().map(String::as_str).collect();
        let lifetimes = Vec::new();
        let parts = Parts { config, clients, keys, kept_keys: &kept_keys, admin_token, lifetimes };
        // Another process may have changed the file of the lifetimes.
        in_force.lacks_lifetimes = true;
        let (is_applied, stays) = match self.replace(&old, parts, in_force, &mut faults) {
            Ok(is_applied) => {
                (in_force.key_ids, in_force.key_paths) = (key_ids, key_paths);
                (is_applied, "the previous version of each of these files stays in force")
            }
            Err(error) => {
                faults.extend(error.to_string().lines().map(str::to_owned));
                (false, "the previous configuration stays in force")
            }
        };
        if !is_applied && faults.is_empty() {
            info!("nothing to reload: the files are valid and unchanged");
        }
        in_force.degraded[0] = degraded(&faults, stays);
        self.show(in_force);
        self.report(is_applied, &faults, stays);
        Reloaded { is_applied, faults }
    }

    /// Puts `news` in force, all at once, by the rules of a reload. A client that the settings bar
    /// keeps its previous version until they bar it no longer, which is looked at whenever news is
    /// applied. Keys that must not be used leave the previous keys in force. A client that is the
    /// same as the one in force, and so keeps its state, is no change. Must not run on an event
    /// loop.
    #[doc(hidden)]
    pub fn apply(&self, news: News) -> Reloaded {
        let in_force = &mut *self.in_force.lock();
        let old = self.context.snapshot();
        let bars = Bars::of(&old.config);
        let updates = in_force.accept(news.clients, bars);
        let mut keys = Vec::new();
        let mut kept_keys: Vec<_> = old.keys.iter().map(SigningKey::key_id).collect();
        if let Some(given) = news.keys {
            let is_kept = |id: &&str| news.kept_keys.iter().any(|kept| kept == id);
            let kept: Vec<_> = kept_keys.iter().copied().filter(is_kept).collect();
            let fault = self.fault_of(&given, &kept, &old.keys);
            if fault.is_none() {
                (keys, kept_keys) = (given, kept);
            }
            in_force.key_fault = fault;
        }
        let problems = bars.problems(in_force.barred.values());
        let mut faults: Vec<_> = problems.iter().map(ToString::to_string).collect();
        faults.extend(in_force.key_fault.clone());
        let parts = Parts {
            config: old.config.clone(),
            clients: Arc::new(old.clients.with(updates)),
            keys,
            kept_keys: &kept_keys,
            admin_token: old.admin_token.clone(),
            lifetimes: news.lifetimes,
        };
        let is_applied = self.replace(&old, parts, in_force, &mut faults).unwrap_or_else(|error| {
            faults.extend(error.to_string().lines().map(str::to_owned));
            false
        });
        let stays = "the previous version of each of these clients and keys stays in force";
        let degraded = degraded(&faults, stays);
        let is_known = in_force.degraded[1] == degraded;
        in_force.degraded[1] = degraded;
        self.show(in_force);
        if is_applied || !is_known {
            let new: &[String] = if is_known { &[] } else { &faults };
            self.report(is_applied, new, stays);
        }
        Reloaded { is_applied, faults }
    }

    /// Says why `keys` must not follow the keys `old`, of which those with the ids `kept` stay.
    fn fault_of(&self, keys: &[SigningKey], kept: &[&str], old: &KeySet) -> Option<String> {
        if keys.is_empty() && kept.is_empty() {
            return Some(
                "there is no signing key; create one with `grantd key generate`".to_owned(),
            );
        }
        let is_new = |key: &&SigningKey| old.iter().all(|known| known.key_id() != key.key_id());
        let private_keys = keys.iter().filter(is_new).map(|key| &*key.private_key);
        let prepared = self.context.engine.backends.prepare(private_keys);
        prepared.err().map(|fault| StartError::from(fault).to_string())
    }

    /// Logs and audits a change of the signing key since the last call, and makes the next key if
    /// keys in files rotate by themselves. Must be called regularly: the signing key changes not
    /// only by a reload, but also when a published key reaches the time at which it starts to sign.
    /// May take as long as it takes to generate a key, so this method must not run on an event loop.
    pub fn look_at_keys(&self) {
        let snapshot = self.context.snapshot();
        FileRotation::look(&self.rotation, &self.context, &snapshot);
        let mut in_force = self.in_force.lock();
        let at = self.context.key_time(&snapshot, self.context.clock.now());
        let signs = snapshot.keys.signing_key(at).map(|key| key.key_id());
        if signs != in_force.signed_last.as_deref()
            && let Some(kid) = signs
        {
            info!(kid, "a different key signs from now on");
            self.context.write_audit(&Event::Rotated { kid });
            in_force.signed_last = Some(kid.to_owned());
        }
    }

    /// Logs, audits and counts the outcome of a reload. `stays` says what is in force because of
    /// the faults.
    fn report(&self, is_applied: bool, faults: &[String], stays: &str) {
        self.context.metrics.count_reload(is_applied, !faults.is_empty());
        for fault in faults {
            error!(%fault, "not reloaded: {stays}");
        }
        if !faults.is_empty() {
            self.context.write_audit(&Event::ReloadRefused { fault: &faults.join("\n") });
        }
    }

    /// Shows in `/readyz` what is in force in an earlier version.
    fn show(&self, in_force: &InForce) {
        let all: Vec<_> = in_force.degraded.iter().flatten().map(String::as_str).collect();
        let shown = (!all.is_empty()).then(|| all.join("; "));
        self.context.reload_fault.store(shown.map(Arc::new));
    }

    /// Reads the files that `live` names. In place of a file with a fault stands what `old` has of
    /// it. Adds the faults of the files to `faults`.
    fn read(
        &self,
        live: &Live,
        old: &Snapshot,
        in_force: &InForce,
        faults: &mut Vec<String>,
    ) -> Newest {
        if old.config.startup.store.url.is_some() {
            return newest_beside_store(live, old, in_force, faults);
        }
        let client_keys = self.client_keys().again();
        let load = |file: &Path| client_file::load_beside(file, &old.clients, &in_force.key_paths);
        let Files { clients, keys, admin_token } = Files::read(live, load);
        let before = &old.config.live;
        let lacks_new_file = clients.is_err() && live.clients != before.clients
            || (keys.keys.is_empty() || !keys.faults.is_empty()) && live.keys != before.keys
            || admin_token.is_err() && live.admin_token_file != before.admin_token_file;
        let mut add = |found: Vec<Fault>| faults.extend(found.iter().map(ToString::to_string));
        let (clients, client_keys, key_paths) = match clients {
            Ok(Loaded { registry, key_files, key_paths, key_faults }) => {
                add(key_faults);
                (Some(registry), key_files, key_paths)
            }
            Err(found) => {
                add(found);
                let paths = &in_force.key_paths;
                let (changed, found) = client_file::read_keys_again(&old.clients, paths);
                add(found);
                let clients = (!changed.is_empty()).then(|| old.clients.with(changed));
                (clients, client_keys, paths.clone())
            }
        };
        *self.client_keys.lock() = client_keys;
        let admin_token = admin_token.unwrap_or_else(|fault| {
            add(vec![fault]);
            old.admin_token.clone()
        });
        let mut key_ids = key_ids_of(&keys, &live.keys, &in_force.key_ids);
        add(keys.faults);
        if key_ids.is_empty() {
            faults.push(StartError::NoKeys(live.keys.clone()).to_string());
            key_ids.clone_from(&in_force.key_ids);
        }
        let keys = keys.keys.into_iter().map(|(_, key)| key).collect();
        Newest { clients, keys, key_ids, key_paths, admin_token, lacks_new_file }
    }

    /// Replaces the snapshot `old`. Returns `false` if nothing has changed. Adds to `faults` if the
    /// lifetimes in force cannot be written.
    fn replace(
        &self,
        old: &Arc<Snapshot>,
        parts: Parts<'_>,
        in_force: &mut InForce,
        faults: &mut Vec<String>,
    ) -> Result<bool, StartError> {
        let Parts { config, clients, keys, kept_keys, admin_token, lifetimes: learned } = parts;
        let issuer = judge(&config, &clients)?;
        // Tokens and key sets that were issued with the old lifetimes are still in use. So each
        // field of the retention is the maximum of its old value and its new value.
        let now = self.context.clock.now();
        let registry = Arc::clone(&clients);
        let differences = registry.differences(&old.clients);
        let mut lifetimes = old.lifetimes.followed_by(&clients, &differences, now);
        let is_longer = lifetimes.learn(learned, now);
        let retention = retention(&config, &clients, &lifetimes).max(old.keys.retention);
        let keys = old.keys.followed_by(keys, kept_keys, retention, now);
        let generation = old.generation + 1;
        let new = Snapshot::new(clients, keys, issuer, config);
        let new = Snapshot { generation, admin_token, lifetimes, ..new };
        let mut changes = Changes::between(old, &new, &differences);
        if is_longer {
            changes.add("shortened lifetimes");
        }
        if changes.is_empty() {
            faults.extend(in_force.write_lifetimes(old));
            return Ok(false);
        }

        self.context.engine.backends.prepare(new.keys.private_keys())?;
        self.context.prepare(&new.config)?;
        in_force.lacks_lifetimes |= !old.lifetimes.is_recorded_as(&new.lifetimes, &differences);
        let new = Arc::new(new);
        self.context.snapshot.store(Arc::clone(&new));
        faults.extend(in_force.write_lifetimes(&new));
        self.context.passwords.keep_only(|id| new.clients.get(id));
        info!(generation, %changes, "reloaded");
        self.context.write_audit(&Event::Reloaded { generation, changes: &changes.to_string() });
        retire(Arc::clone(old));
        Ok(true)
    }
}

/// Returns the text of `/readyz` about `faults`; `stays` says what is in force because of them.
fn degraded(faults: &[String], stays: &str) -> Option<String> {
    let all = faults.join("\n").replace('\n', "; ");
    (!faults.is_empty()).then(|| format!("{all}; {stays}"))
}

/// Reads the files that `live` names beside a store, which holds the clients and the keys.
fn newest_beside_store(
    live: &Live,
    old: &Snapshot,
    in_force: &InForce,
    faults: &mut Vec<String>,
) -> Newest {
    let admin_token = files::admin_token(live);
    let is_new = live.admin_token_file != old.config.live.admin_token_file;
    let lacks_new_file = admin_token.is_err() && is_new;
    let admin_token = admin_token.unwrap_or_else(|fault| {
        faults.push(fault.to_string());
        old.admin_token.clone()
    });
    let ids = old.keys.iter().map(|key| (key.key_id().into(), key.key_id().to_owned()));
    Newest {
        clients: None,
        keys: Vec::new(),
        key_ids: ids.collect(),
        key_paths: in_force.key_paths.clone(),
        admin_token,
        lacks_new_file,
    }
}

/// Returns the id of the key of each file in `files`. A file with a fault has the key that it had
/// before, according to `before`. If the whole `directory` could not be read, so have all files. A
/// key file that was deleted has no key any more.
fn key_ids_of(files: &StoredKeys, directory: &Path, before: &KeyIds) -> KeyIds {
    let mut ids: KeyIds =
        files.keys.iter().map(|(file, key)| (file.clone(), key.key_id().to_owned())).collect();
    for fault in &files.faults {
        let is_of_fault = |file: &PathBuf| fault.file == directory || *file == fault.file;
        let kept = before.iter().filter(|(file, _)| is_of_fault(file));
        ids.extend(kept.map(|(file, id)| (file.clone(), id.clone())));
    }
    ids
}

/// Drops the old snapshot on a separate thread when no request uses the snapshot any more. Freeing
/// a million clients takes time, and would otherwise delay the request that drops the last
/// reference.
fn retire(old: Arc<Snapshot>) {
    let wait = move || {
        for _ in 0..MAX_CHECKS {
            if Arc::strong_count(&old) == 1 {
                return;
            }
            sleep(CHECK_INTERVAL);
        }
    };
    // If no thread can be started, `spawn` fails and drops `wait`, which contains the snapshot, on
    // the current thread.
    let _ = Builder::new().name("retire".to_owned()).spawn(wait);
}

const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// The maximum number of times that the thread checks whether a request still uses the old
/// snapshot. This many checks take 12 seconds. By default, a request may take only 10 seconds.
const MAX_CHECKS: u32 = 1200;
