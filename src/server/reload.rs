//! Reloads the configuration, clients and keys while requests are answered.
//!
//! A reload first reads and checks everything, then swaps the pointer to the snapshot. A request
//! sees the old snapshot or the new one, never a mixture. A refused reload changes nothing.

use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::config::{Config, IssuerUrl, ListenAddr, SignerChoice};
use crate::endpoint::Context;
use crate::fs::file_watch::Stamp;
use crate::keys::key_set::{KeySet, SigningKey};
use crate::oauth::client::Registry;
use crate::oauth::client_secret::FastHash;
use crate::server::{StartError, no_entropy};
use crate::signing::engine::Engine;
use crate::snapshot::changes::Changes;
use crate::snapshot::{Contents, Snapshot, Sources, certificate_clients, demo_clients};
use crate::telemetry::audit::Event;
use crate::telemetry::metrics::Metrics;

/// Everything that a reload can replace. All of it has been read from the files and checked.
pub(super) struct Loaded {
    pub(super) clients: Registry,
    pub(super) keys: Vec<SigningKey>,
    pub(super) admin_token: Option<FastHash>,
    pub(super) issuer: IssuerUrl,
    pub(super) key_files: Stamp,
}

impl Loaded {
    /// Reads the files that `config` names.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let contents = Sources::of(config).load().map_err(StartError::Files)?;
        let Contents { clients, keys, admin_token, key_files } = contents;
        let issuer = judge(config, &clients)?;
        Ok(Self { clients, keys, admin_token, issuer, key_files })
    }
}

/// Checks that `config` is valid together with `clients`, and returns the issuer.
///
/// # Errors
///
/// [`StartError`] if the server must not start, or the reload must be refused.
pub(crate) fn judge(config: &Config, clients: &Registry) -> Result<IssuerUrl, StartError> {
    let issuer = issuer_of(config)?;
    if let Some(problem) = config.live.route_problem() {
        return Err(StartError::Route(problem));
    }
    let demo = demo_clients(clients);
    if !demo.is_empty() && !config.allows_demo_secrets() {
        let clients = demo.into_iter().map(str::to_owned).collect();
        return Err(StartError::DemoClients { clients });
    }
    check_certificate_proxies(config, clients)?;
    Ok(issuer)
}

/// Refuses a configuration that may lock out the clients that need a certificate: some network is
/// trusted to forward addresses, but not certificates, and the proxy of these clients may be in
/// this network. Earlier versions accepted certificates from every trusted network. Without this
/// check, a configuration for an earlier version would lock out these clients without any message.
///
/// # Errors
///
/// [`StartError::CertificateProxies`].
fn check_certificate_proxies(config: &Config, clients: &Registry) -> Result<(), StartError> {
    if !config.live.leaves_out_a_network() {
        return Ok(());
    }
    let needing = certificate_clients(clients);
    if needing.is_empty() {
        Ok(())
    } else {
        Err(StartError::CertificateProxies { clients: needing })
    }
}

/// Returns the configured issuer, or `http://` followed by the first TCP address.
fn issuer_of(config: &Config) -> Result<IssuerUrl, StartError> {
    if let Some(issuer) = &config.live.issuer {
        return Ok(issuer.clone());
    }
    let first = config.startup.listen.iter().find_map(|address| match address {
        ListenAddr::Tcp(address) => Some(address),
        ListenAddr::Unix(_) => None,
    });
    let address = first.ok_or(StartError::NoIssuer)?;
    format!("http://{address}").parse().map_err(|_| StartError::NoIssuer)
}

/// Makes a running server read its files again.
#[derive(Debug)]
pub struct Reloader {
    context: Arc<Context>,
    metrics: Arc<Metrics>,
    /// The id of the key that was the signing key at the last call of [`Reloader::look_at_keys`]. A
    /// reload holds this lock, so that only one reload runs at a time.
    signed_last: Mutex<Option<String>>,
    /// The stamp of the files that the clients' `jwks` name. The start takes this stamp, and so
    /// does each reload that finds no fault in the files. The stamp is taken before the files are
    /// read, so a change during the reading is noticed at the next check.
    key_files: Mutex<Stamp>,
}

/// The outcome of a reload that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reloaded {
    /// A new snapshot is in force.
    Applied,
    /// The files are unchanged.
    Unchanged,
}

impl Reloader {
    pub(super) fn new(context: Arc<Context>, metrics: Arc<Metrics>, key_files: Stamp) -> Self {
        metrics.snapshot_generation.set(1);
        let now = context.clock.unix_seconds();
        let signs = context.snapshot().keys.signing_key(now).map(|key| key.key_id().to_owned());
        let (signed_last, key_files) = (Mutex::new(signs), Mutex::new(key_files));
        Self { context, metrics, signed_last, key_files }
    }

    /// Returns the stamp of the files that the clients' `jwks` name. The stamp was taken before
    /// the files were read, at the start or at the last reload that found no fault in the files.
    /// If the files have a different stamp now, they have changed, and a reload is needed.
    pub fn key_files(&self) -> Stamp {
        self.key_files.lock().clone()
    }

    /// Reads the files that `config` names, and puts either all of them in force or none. Logs and
    /// counts the outcome. Blocks for as long as a start of the server takes, so this method must
    /// not run on an event loop.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the reload is refused; then nothing has changed.
    pub fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        // Hold the lock, so that only one reload runs at a time.
        let _turn = self.signed_last.lock();
        let reloaded = self.replace(config);
        match &reloaded {
            Ok(reloaded) => {
                self.context.reload_fault.store(None);
                self.metrics.count_reload(*reloaded == Reloaded::Applied);
            }
            Err(error) => self.refused(error),
        }
        reloaded
    }

    /// Logs and audits a change of the signing key since the last call. Must be called regularly:
    /// the signing key changes not only by a reload, but also when a published key reaches the time
    /// at which it starts to sign.
    pub fn look_at_keys(&self) {
        let mut signed_last = self.signed_last.lock();
        let (snapshot, now) = (self.context.snapshot(), self.context.clock.unix_seconds());
        let signs = snapshot.keys.signing_key(now).map(|key| key.key_id());
        if signs != signed_last.as_deref()
            && let Some(kid) = signs
        {
            info!(kid, "a different key signs from now on");
            self.context.write_audit(&Event::Rotated { kid });
            *signed_last = Some(kid.to_owned());
        }
    }

    /// Logs, audits and counts a reload that is refused because of `fault`.
    pub fn refused(&self, fault: &dyn std::fmt::Display) {
        let fault = fault.to_string();
        self.metrics.count_refused_reload();
        self.context.write_audit(&Event::ReloadRefused { fault: &fault });
        self.context.reload_fault.store(Some(Arc::new(fault.replace('\n', "; "))));
        for fault in fault.lines() {
            error!(%fault, "not reloaded: the previous configuration stays in force");
        }
    }

    fn replace(&self, mut config: Config) -> Result<Reloaded, StartError> {
        let old = self.context.snapshot();
        let held_back = config.hold_back(&old.config);
        if !held_back.is_empty() {
            let settings = held_back.join(", ");
            warn!(%settings, "changes of these settings take effect only after a restart");
        }
        let Loaded { clients, keys, admin_token, issuer, key_files } = Loaded::read(&config)?;
        if keys.is_empty() {
            return Err(StartError::NoKeys(config.live.keys));
        }
        *self.key_files.lock() = key_files;
        let now = self.context.clock.unix_seconds();
        let new = Snapshot::after(&old, clients, keys, issuer, config, now);
        let new = Snapshot { admin_token, ..new };
        let changes = Changes::between(&old, &new);
        if changes.is_empty() {
            info!("nothing to reload: the files are valid and unchanged");
            return Ok(Reloaded::Unchanged);
        }

        let engine = &self.context.engine;
        prepare(engine, &new.keys, new.config.startup.signer)?;
        self.context.prepare(&new.config).map_err(no_entropy)?;
        let generation = new.generation;
        let new = Arc::new(new);
        self.context.snapshot.store(Arc::clone(&new));
        engine.keep_only(&new.keys);
        self.context.passwords.keep_only(&new.clients);
        self.metrics.snapshot_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        info!(generation, %changes, "reloaded");
        self.context.write_audit(&Event::Reloaded { generation, changes: &changes.to_string() });
        retire(old);
        Ok(Reloaded::Applied)
    }
}

/// Prepares the engine to sign in batches, if `signer` allows batches and all `keys` support them.
/// Returns whether the engine signs in batches.
pub(super) fn prepare(
    engine: &Engine,
    keys: &KeySet,
    signer: SignerChoice,
) -> Result<bool, StartError> {
    let may_batch = matches!(signer, SignerChoice::Auto | SignerChoice::Batch);
    let is_batched = may_batch && keys.iter().all(|key| engine.prepare(key));
    if signer == SignerChoice::Batch && !is_batched {
        return Err(StartError::NoBatches);
    }
    Ok(is_batched)
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
