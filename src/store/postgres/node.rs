//! The store as a server uses it.
//!
//! A server has three connections: one to follow the store, one to write revocations, and one to
//! record uses. Each belongs to a thread, so no request waits for another's statement.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::Startup;
use crate::fault::Fault;
use crate::keys::change::{self, First};
use crate::keys::signing_key::SigningKey;
use crate::oauth::decoy::DecoyKey;
use crate::random::Random;
use crate::registry::clients::Registry;
use crate::snapshot::lifetimes::Lifetimes;
use crate::state::revocations::Revocations;
use crate::state::revocations::ledger::Ledger;
use crate::state::secret_uses::SecretUses;
use crate::state::store_health::StoreHealth;
use crate::state::uses::Uses;
use crate::state::uses::index::Index;
use crate::store::postgres::database::{BULK_LIMIT, Database};
use crate::store::postgres::follow::Follower;
use crate::store::postgres::keys::KeyRows;
use crate::store::postgres::lifetimes;
use crate::store::postgres::revocations::{RevocationRows, Unpolled};
use crate::store::postgres::rotation::KeyRotator;
use crate::store::postgres::rows;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::secret_uses::SecretUseRows;
use crate::store::postgres::snapshot_file::{self, SnapshotFile, Source};
use crate::store::postgres::start::{Known, LOCK_PAUSE, LOCK_WAIT, Start};
use crate::store::postgres::timelines::Timelines;
use crate::store::postgres::upkeep::Upkeep;
use crate::store::postgres::uses::UseRows;
use crate::telemetry::audit::Audit;
use crate::telemetry::once_a_second::OnceASecond;
use crate::time::UnixTime;

/// The contents of the store at the start of a server, and the means to follow and change it.
pub struct Node {
    /// The clients.
    pub clients: Registry,
    /// The signing keys in any state; none at the first start.
    pub keys: Vec<SigningKey>,
    /// The revocations.
    pub revocations: Revocations,
    /// The uses of assertions and proofs.
    pub uses: Uses,
    /// The decoy key, which is the same on all servers: an attacker could otherwise compare them.
    pub decoy_key: DecoyKey,
    /// The lifetimes that were shortened.
    pub lifetimes: Vec<lifetimes::Row>,
    /// The uses of secrets.
    pub secret_uses: Arc<SecretUses>,
    /// How well the server knows the store.
    pub health: Arc<StoreHealth>,
    /// Follows the store from what was read on.
    pub follower: Follower,
}

impl Node {
    /// Reads the whole store, or, while that is away, the snapshot of it. `audit` gets an event for each
    /// cut-off.
    ///
    /// # Errors
    ///
    /// All [`Fault`]s: the store cannot be reached and no snapshot of it can be used, the store has
    /// another schema, or a signing key cannot be opened. An entry of a client that has a fault is
    /// logged and left out: the other clients must not wait until it is mended.
    pub fn open(
        startup: &Startup,
        clock: &Clock,
        random: &Random,
        audit: Option<Arc<Audit>>,
    ) -> Result<Self, Vec<Fault>> {
        let (settings, limits) = (&startup.store, &startup.limits);
        if let Some((setting, problem)) = settings.contradiction() {
            return Err(vec![Fault::new(Path::new(setting), problem)]);
        }
        let master_keys = Arc::new(MasterKeys::load(settings, random)?);
        // `None` if no snapshot is kept.
        let path = settings.cache.then(|| snapshot_file::path(&startup.state));
        let seen = path.as_ref().map(|path| snapshot_file::timelines(path, &master_keys));
        let seen = seen.transpose().unwrap_or_else(|fault| {
            warn!(%fault, "a primary from before the last failover will not be recognized");
            None
        });
        let timelines = Arc::new(Timelines::new(seen.unwrap_or_default(), path.clone(), clock));
        let database = || -> Result<_, Fault> {
            Ok(Database::new(settings, clock)?.with_timelines(&timelines))
        };
        let [mut database, for_revocations, for_uses] = [database()?, database()?, database()?];
        let (begin, begin_time) = (clock.instant(), clock.now());
        let source = settings.url.as_ref().map(Source::of).unwrap_or_default();
        let mut snapshot_file = match &path {
            Some(path) => SnapshotFile::start(path, Arc::clone(&master_keys), clock)?,
            None => SnapshotFile::off(),
        };
        let mut start = Start {
            database: &mut database,
            master_keys: &master_keys,
            clock,
            snapshot_file: &mut snapshot_file,
            source: &source,
        };
        let known = start.run(path.as_deref())?;
        let Known { clients, faulty, keys, decoy_key, shared, position, .. } = known;
        let Known { key_fault, lifetimes, source, away, .. } = known;
        for fault in faulty.values() {
            error!(%fault, "this client is not served");
        }
        let store = database.name().to_owned();
        if away.is_none() {
            info!(
                store = %store.display(),
                clients = clients.len(),
                keys = keys.len(),
                revocations = shared.revoked.len(),
                "the store was read"
            );
        }

        let mut health = StoreHealth::new(
            store.display().to_string(),
            settings.max_staleness,
            begin,
            begin_time,
        );
        if let Some((age, problem)) = away {
            health = health.away_for(age, problem);
        }
        health.note_epoch(source.since);
        let health = Arc::new(health);
        let unpolled = Unpolled::default();
        let rows = RevocationRows {
            database: for_revocations,
            shared: Arc::clone(&shared),
            health: Arc::clone(&health),
            unpolled: Arc::clone(&unpolled),
        };
        let ledger =
            Ledger::new(rows, Arc::clone(&shared), limits.revocations, clock.clone(), audit);
        let revocations = Revocations::start(ledger, Arc::clone(&shared), &store)?;
        let unrecorded = Arc::default();
        let rows = UseRows {
            database: for_uses,
            index: Index::default(),
            capacity: limits.replay_entries,
            clock: clock.clone(),
            health: Arc::clone(&health),
            complaints: OnceASecond::default(),
            unrecorded: Arc::clone(&unrecorded),
        };
        let uses = Uses::start(rows, unrecorded, &store)?;
        let secret_uses = Arc::<SecretUses>::default();
        let follower = Follower {
            database,
            master_keys,
            snapshot_file,
            source,
            health: Arc::clone(&health),
            revoked: shared,
            unpolled,
            secret_uses: Arc::clone(&secret_uses),
            clock: clock.clone(),
            every: Duration::from_millis(settings.poll_ms),
            position,
            last: None,
            faulty,
            key_fault,
            secret_use_rows: SecretUseRows::new(begin),
            written_lifetimes: Lifetimes::default(),
            upkeep: Upkeep::new(begin),
            rotation: KeyRotator::new(random, begin),
            drop_due: begin,
        };
        follower.note_faults();
        Ok(Self {
            clients,
            keys,
            revocations,
            uses,
            decoy_key,
            lifetimes,
            secret_uses,
            health,
            follower,
        })
    }

    /// Makes the first signing key, unless another server has made it since the store was read.
    ///
    /// # Errors
    ///
    /// All [`Fault`]s.
    pub fn make_first_key(&mut self, bits: u16, now: UnixTime) -> Result<(), Vec<Fault>> {
        let Follower { database, master_keys, snapshot_file, clock, .. } = &mut self.follower;
        let begin = clock.instant();
        let First { keys, is_made } = loop {
            // Another server may hold the lock for longer than a time limit of the role.
            let mut has_timed_out = false;
            let first = database.transaction(BULK_LIMIT, |transaction| {
                let mut rows = KeyRows::new(transaction, master_keys);
                let first = change::first(&mut rows, bits, now);
                has_timed_out = transaction.has_timed_out();
                first
            });
            if has_timed_out && clock.instant().saturating_duration_since(begin) < LOCK_WAIT {
                info!("another server is making the first signing key: trying again");
                thread::sleep(LOCK_PAUSE);
                continue;
            }
            break first?;
        };
        self.keys = keys.into_iter().map(|(_, key)| key).collect();
        snapshot_file.add_keys(rows::sealed_keys(database)?, &[]);
        if let (true, [key]) = (is_made, &self.keys[..]) {
            let (key_id, store) = (key.key_id(), database.name().display());
            info!(%key_id, %store, bits, "made the first signing key");
        }
        Ok(())
    }
}
