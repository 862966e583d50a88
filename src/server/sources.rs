//! Opens what the server works with: clients, keys and state, in files or in a store.

#[cfg(feature = "postgres")]
use std::mem::take;
#[cfg(feature = "postgres")]
use std::panic::resume_unwind;
#[cfg(feature = "postgres")]
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::thread;

use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, IssuerUrl};
use crate::fault::Fault;
use crate::fs::file_watch::Stamp;
use crate::guard::decoy_key;
use crate::keys::change::{self, First};
use crate::keys::directory::KeyDirectory;
use crate::keys::life::Retention;
use crate::keys::signing_key::SigningKey;
use crate::oauth::client_secret::FastHash;
use crate::oauth::decoy::DecoyKey;
use crate::random::Random;
use crate::registry::client_file::Loaded;
use crate::registry::clients::Registry;
use crate::server::in_force::InForce;
use crate::server::judge::{about_certificate_proxies, judge};
use crate::server::start_error::StartError;
#[cfg(feature = "postgres")]
use crate::snapshot::files;
use crate::snapshot::files::{Contents, Files};
use crate::snapshot::lifetimes::{Lifetimes, Recorded};
use crate::snapshot::loss::{Loss, trace_of_use};
use crate::snapshot::retention;
use crate::state::revocations::Revocations;
use crate::state::secret_uses::SecretUses;
use crate::state::store_health::StoreHealth;
use crate::state::uses::Uses;
#[cfg(feature = "postgres")]
use crate::store::postgres::follow::Follower;
#[cfg(feature = "postgres")]
use crate::store::postgres::node::Node;
use crate::telemetry::audit::Audit;

/// Clients, keys and state of a server.
pub(super) struct Sources {
    pub(super) clients: Registry,
    /// The signing keys in any state.
    pub(super) keys: Vec<SigningKey>,
    pub(super) in_force: InForce,
    /// The stamp of the clients' key files.
    pub(super) key_files: Stamp,
    pub(super) admin_token: Option<FastHash>,
    pub(super) issuer: IssuerUrl,
    pub(super) lifetimes: Lifetimes,
    pub(super) retention: Retention,
    pub(super) loss: Option<Loss>,
    pub(super) audit: Option<Arc<Audit>>,
    pub(super) revocations: Revocations,
    pub(super) uses: Uses,
    pub(super) decoy_key: DecoyKey,
    pub(super) secret_uses: Arc<SecretUses>,
    /// How well the server knows the store; `None` if everything is in files.
    pub(super) store: Option<Arc<StoreHealth>>,
    #[cfg(feature = "postgres")]
    pub(super) follower: Option<Follower>,
}

/// Opens what `config` names.
///
/// # Errors
///
/// [`StartError`] if the server cannot start.
pub(super) fn open(config: &Config, clock: &Clock, random: &Random) -> Result<Sources, StartError> {
    if config.startup.store.url.is_none() {
        return of_files(config, clock, random);
    }
    #[cfg(feature = "postgres")]
    return of_store(config, clock, random);
    #[cfg(not(feature = "postgres"))]
    {
        let problem = "is set, but this program was built without the feature postgres";
        Err(Fault::new(std::path::Path::new("store.url"), problem).into())
    }
}

fn of_files(config: &Config, clock: &Clock, random: &Random) -> Result<Sources, StartError> {
    let state = &config.startup.state;
    let trace = trace_of_use(state);
    let contents = Files::load(&config.live).map_err(StartError::Files)?;
    let Contents { clients, mut keys, admin_token } = contents;
    let Loaded { registry: clients, key_files, key_paths, key_faults: _ } = clients;
    let issuer = judged(config, &clients)?;
    let now = clock.now();
    let lifetimes = Recorded::read(state)?.followed_by(&clients, now);
    let retention = retention(config, &clients, &lifetimes);
    let loss = Loss::find(config, trace, &keys, retention.token_lifetime, now)?;
    if let Some(loss) = &loss {
        warn!("{}", loss.text);
    }
    if keys.is_empty() {
        let first = change::first(&mut KeyDirectory::new(&config.live.keys), FIRST_KEY_BITS, now);
        let First { keys: found, is_made } = first.map_err(StartError::Files)?;
        keys = found;
        if let (true, [(_, key)]) = (is_made, &keys[..]) {
            let (key_id, directory) = (key.key_id(), config.live.keys.display());
            info!(%key_id, %directory, bits = FIRST_KEY_BITS, "made the first signing key");
        }
    }
    let audit = audit(config)?;
    let limits = &config.startup.limits;
    let revocations = Revocations::open(state, limits.revocations, clock.clone(), audit.clone())?;
    let uses = Uses::open(state, limits.replay_entries, clock.clone())?;
    let in_force = InForce::new(&keys, key_paths);
    Ok(Sources {
        clients,
        keys: keys.into_iter().map(|(_, key)| key).collect(),
        in_force,
        key_files,
        admin_token,
        issuer,
        lifetimes,
        retention,
        loss,
        audit,
        revocations,
        uses,
        decoy_key: decoy_key::open(state, random)?,
        secret_uses: Arc::default(),
        store: None,
        #[cfg(feature = "postgres")]
        follower: None,
    })
}

#[cfg(feature = "postgres")]
fn of_store(config: &Config, clock: &Clock, random: &Random) -> Result<Sources, StartError> {
    let admin_token = files::admin_token(&config.live)?;
    let audit = audit(config)?;
    let startup = &config.startup;
    let open = || -> Result<_, StartError> {
        let opened = Node::open(startup, clock, random, audit.clone());
        let mut node = opened.map_err(StartError::Files)?;
        let issuer = judged(config, &node.clients)?;
        if node.keys.is_empty() {
            let made = node.make_first_key(FIRST_KEY_BITS, clock.now());
            made.map_err(StartError::Files)?;
        }
        Ok((node, issuer))
    };
    // On a thread of its own: the caller's may be in a runtime, where nothing may wait.
    let (mut node, issuer) = thread::scope(|scope| {
        let opening = thread::Builder::new().spawn_scoped(scope, open)?;
        opening.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    warn_of_file(&startup.state, &node.revocations, clock);
    let now = clock.now();
    let mut lifetimes = Recorded::read(&startup.state)?.followed_by(&node.clients, now);
    lifetimes.learn(take(&mut node.lifetimes), now);
    let retention = retention(config, &node.clients, &lifetimes);
    let Node { clients, keys, revocations, uses, decoy_key, secret_uses, health, .. } = node;
    let Node { follower, .. } = node;
    Ok(Sources {
        clients,
        keys,
        in_force: InForce::default(),
        key_files: Stamp::default(),
        admin_token,
        issuer,
        lifetimes,
        retention,
        loss: None,
        audit,
        revocations,
        uses,
        decoy_key,
        secret_uses,
        store: Some(health),
        follower: Some(follower),
    })
}

/// Warns of revocations that a server with files has left in `state` and that are not in the store.
#[cfg(feature = "postgres")]
fn warn_of_file(state: &Path, revocations: &Revocations, clock: &Clock) {
    let file = Revocations::file(state);
    match revocations.missing_of_file(state, clock) {
        Ok(0) => {}
        Ok(missing) => warn!(
            "{}: {missing} revocations and cut-offs in this file are not in force, because \
             store.url is set: run `grantd store import --state {}`",
            file.display(),
            state.display()
        ),
        Err(fault) => warn!("{fault}"),
    }
}

/// Checks the settings together with the clients, and returns the issuer.
fn judged(config: &Config, clients: &Registry) -> Result<IssuerUrl, StartError> {
    let issuer = judge(config, clients)?;
    if let Some(warning) = about_certificate_proxies(config, clients) {
        warn!("client_certificate.proxies: {warning}");
    }
    Ok(issuer)
}

fn audit(config: &Config) -> Result<Option<Arc<Audit>>, Fault> {
    let audit = config.startup.audit.as_ref().map(|file| {
        let unwritten = |error| Fault::cannot("written", file, &error).of_setting("audit");
        Audit::to(file).map(Arc::new).map_err(unwritten)
    });
    audit.transpose()
}

/// The size of the first signing key in bits. The keys of the tokens in the documentation have this
/// size.
pub(super) const FIRST_KEY_BITS: u16 = 2048;
