//! Reading the files again while requests are answered.
//!
//! Everything is read and judged first; then one pointer is swapped. A request sees what was there
//! before it or what is there after it, and what is wrong changes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::{Config, IssuerUrl, ListenAddr, SignerChoice};
use crate::endpoint::Context;
use crate::jose::key_set::{KeySet, SigningKey};
use crate::oauth::client::Registry;
use crate::oauth::client_secret::FastHash;
use crate::server::{StartError, no_entropy};
use crate::signing::engine::Engine;
use crate::store::changes::Changes;
use crate::store::file_watch::Stamp;
use crate::store::snapshot::{Contents, Snapshot, Sources, certificate_clients, demo_clients};
use crate::telemetry::audit::Event;
use crate::telemetry::metrics::Metrics;

/// Everything that can change while a server runs, read and judged.
pub(super) struct Loaded {
    pub(super) clients: Registry,
    pub(super) keys: Vec<SigningKey>,
    pub(super) admin_token: Option<FastHash>,
    pub(super) issuer: IssuerUrl,
    pub(super) key_files: Stamp,
}

impl Loaded {
    /// Reads what `config` names.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let contents = Sources::of(config).load().map_err(StartError::Files)?;
        let Contents { clients, keys, admin_token, key_files } = contents;
        let issuer = judge(config, &clients)?;
        Ok(Self { clients, keys, admin_token, issuer, key_files })
    }
}

/// Judges `config` and `clients` together. Gives the issuer if they may stand.
///
/// # Errors
///
/// [`StartError`].
pub(crate) fn judge(config: &Config, clients: &Registry) -> Result<IssuerUrl, StartError> {
    let issuer = issuer_of(config)?;
    if let Some(problem) = config.live.route_problem() {
        return Err(StartError::Route(problem));
    }
    let demo = demo_clients(clients);
    if !demo.is_empty() && !config.allows_demo_secrets() {
        let demo = demo.into_iter().map(str::to_owned).collect();
        return Err(StartError::DemoClients(demo));
    }
    check_certificate_proxies(config, clients)?;
    Ok(issuer)
}

/// Certificates were once taken from every trusted network: a client that would be cut off without
/// a word is a reason not to start.
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
        Err(StartError::CertificateProxies(needing.join(", ")))
    }
}

/// The issuer as configured, or `http://` and the first TCP address.
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
    /// The key that signed when it was last looked at; whoever holds this reloads.
    signed_last: Mutex<Option<String>>,
    /// How the clients' key files looked before they were last read without a fault.
    key_files: Mutex<Stamp>,
}

/// What a reload has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// What was read is in force.
    Applied,
    /// It is what was in force already.
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

    /// How the files that the clients' `jwks` name looked before they were last read without a fault.
    pub fn key_files(&self) -> Stamp {
        // Replaced as a whole, so a panic elsewhere cannot have broken it.
        self.key_files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads what `config` names and puts it in force, all of it or nothing; logs the difference or
    /// what was wrong, and counts. Takes as long as a start, so not for a thread that answers
    /// requests.
    ///
    /// # Errors
    ///
    /// [`StartError`]: everything is as it was.
    pub fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        // Whole between any two statements, so a panic elsewhere cannot have broken it.
        let _turn = self.signed_last.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Logs it if another key signs than at the last call. A key's turn comes with time, not with a
    /// reload.
    pub fn look_at_keys(&self) {
        let mut signed_last = self.signed_last.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, now) = (self.context.snapshot(), self.context.clock.unix_seconds());
        let signs = snapshot.keys.signing_key(now).map(|key| key.key_id());
        if signs != signed_last.as_deref()
            && let Some(kid) = signs
        {
            info!(kid, "another key signs");
            self.context.tell(&Event::Rotated { kid });
            *signed_last = Some(kid.to_owned());
        }
    }

    /// Logs and counts that what was to be read is wrong, and what is in force remains.
    pub fn refused(&self, fault: &dyn std::fmt::Display) {
        let fault = fault.to_string();
        self.metrics.count_refused_reload();
        self.context.tell(&Event::ReloadRefused { fault: &fault });
        self.context.reload_fault.store(Some(Arc::new(fault.replace('\n', "; "))));
        for fault in fault.lines() {
            error!(%fault, "not reloaded: what was read before stays in force");
        }
    }

    fn replace(&self, mut config: Config) -> Result<Reloaded, StartError> {
        let old = self.context.snapshot();
        let held_back = config.hold_back(&old.config);
        if !held_back.is_empty() {
            let settings = held_back.join(", ");
            warn!(%settings, "these settings need a restart");
        }
        let Loaded { clients, keys, admin_token, issuer, key_files } = Loaded::read(&config)?;
        if keys.is_empty() {
            return Err(StartError::NoKeys(config.live.keys));
        }
        *self.key_files.lock().unwrap_or_else(PoisonError::into_inner) = key_files;
        let now = self.context.clock.unix_seconds();
        let new = Snapshot::after(&old, clients, keys, issuer, config, now);
        let new = Snapshot { admin_token, ..new };
        let changes = Changes::between(&old, &new);
        if changes.is_empty() {
            info!("read again: the files are in order, and nothing has changed");
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
        self.context.tell(&Event::Reloaded { generation, changes: &changes.to_string() });
        retire(old);
        Ok(Reloaded::Applied)
    }
}

/// Makes the engine sign with `keys` in batches, if it is to and can with all of them. Says whether
/// it does.
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

/// Has a thread of its own wait until no request reads it any more: freeing a million clients would
/// hold up whoever does.
fn retire(old: Arc<Snapshot>) {
    let wait = move || {
        for _ in 0..MOST_LOOKS {
            if Arc::strong_count(&old) == 1 {
                return;
            }
            sleep(BETWEEN_LOOKS);
        }
    };
    // Without a thread it is freed here and now.
    let _ = Builder::new().name("retire".to_owned()).spawn(wait);
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// Ten seconds and some: as long as a request may take.
const MOST_LOOKS: u32 = 1200;
