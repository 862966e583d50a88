//! The store as a server uses it.
//!
//! A server has three connections: one to follow the store, one to write revocations, and one to
//! record uses. Each belongs to a thread, so no request waits for another's statement.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Startup;
use crate::fault::Fault;
use crate::keys::change::{self, First};
use crate::keys::signing_key::SigningKey;
use crate::oauth::decoy::DecoyKey;
use crate::random::Random;
use crate::registry::clients::Registry;
use crate::state::revocations::Revocations;
use crate::state::revocations::ledger::{Ledger, Shared};
use crate::state::secret_uses::SecretUses;
use crate::state::store_health::StoreHealth;
use crate::state::uses::Uses;
use crate::store::postgres::database::{BULK_LIMIT, Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::{Failure, FailureKind};
use crate::store::postgres::follow::{Follower, Position, read_revoked};
use crate::store::postgres::keys::KeyRows;
use crate::store::postgres::revocations::RevocationRows;
use crate::store::postgres::rows;
use crate::store::postgres::schema;
use crate::store::postgres::seal::{MasterKeys, Purpose};
use crate::store::postgres::secret_uses::SecretUseRows;
use crate::store::postgres::upkeep::Upkeep;
use crate::store::postgres::uses::UseRows;
use crate::telemetry::audit::Audit;
use crate::time::UnixTime;

/// What a server reads from the store at its start, and what it writes to the store.
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
    /// The uses of secrets.
    pub secret_uses: Arc<SecretUses>,
    /// How well the server knows the store.
    pub health: Arc<StoreHealth>,
    /// Follows the store from what was read on.
    pub follower: Follower,
}

/// What a server has when it opens the store.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The settings.
    pub startup: &'a Startup,
    /// The time.
    pub clock: &'a Clock,
    /// The source of random bytes.
    pub random: &'a Random,
    /// Gets an event for each cut-off.
    pub audit: Option<Arc<Audit>>,
}

impl Node {
    /// Reads the whole store.
    ///
    /// # Errors
    ///
    /// All [`Fault`]s: the store cannot be reached, has another schema, or a signing key in it
    /// cannot be opened. An entry of a client that has a fault is logged and left out: the other
    /// clients must not wait until it is mended.
    pub fn open(opening: Opening<'_>) -> Result<Self, Vec<Fault>> {
        let Opening { startup, clock, random, audit } = opening;
        let (settings, limits) = (&startup.store, &startup.limits);
        let master_keys = MasterKeys::load(settings)?;
        let mut database = Database::connect(settings, clock)?;
        schema::require(&mut database)?;
        let begin = clock.instant();
        let position = Position::begin(&mut database)?;
        let shared = Arc::<Shared>::default();
        read_revoked(&mut database, &shared, drop, drop)?;
        let (keys, faults) = rows::signing_keys(&mut database, &master_keys)?;
        if !faults.is_empty() {
            return Err(faults);
        }
        let (clients, faulty) = rows::registry(&mut database)?;
        for fault in faulty.values() {
            error!(%fault, "this client is not served");
        }
        let decoy_key = decoy_key(&mut database, &master_keys, random)?;
        let store = database.name().to_owned();
        info!(
            store = %store.display(),
            clients = clients.len(),
            keys = keys.len(),
            revocations = shared.revoked.len(),
            "the store was read"
        );

        let health = StoreHealth::new(store.display().to_string(), settings.max_staleness, begin);
        health.note_epoch(position.since());
        let health = Arc::new(health);
        let rows = RevocationRows::new(
            Database::new(settings, clock)?,
            Arc::clone(&shared),
            Arc::clone(&health),
        );
        let ledger =
            Ledger::new(rows, Arc::clone(&shared), limits.revocations, clock.clone(), audit);
        let revocations = Revocations::start(ledger, Arc::clone(&shared), &store)?;
        let unrecorded = Arc::default();
        let rows = UseRows::new(
            Database::new(settings, clock)?,
            limits.replay_entries,
            clock.clone(),
            Arc::clone(&health),
            Arc::clone(&unrecorded),
        );
        let uses = Uses::start(rows, unrecorded, &store)?;
        let secret_uses = Arc::<SecretUses>::default();
        let follower = Follower {
            database,
            master_keys,
            health: Arc::clone(&health),
            revoked: shared,
            secret_uses: Arc::clone(&secret_uses),
            clock: clock.clone(),
            every: Duration::from_millis(settings.poll_ms),
            position: Some(position),
            faulty,
            key_fault: None,
            secret_use_rows: SecretUseRows::new(begin),
            upkeep: Upkeep::new(begin),
            drop_due: begin,
        };
        follower.note_faults();
        Ok(Self { clients, keys, revocations, uses, decoy_key, secret_uses, health, follower })
    }

    /// Makes the first signing key, unless another server has made it since the store was read.
    ///
    /// # Errors
    ///
    /// All [`Fault`]s.
    pub fn make_first_key(
        &mut self,
        random: &Random,
        bits: u16,
        now: UnixTime,
    ) -> Result<(), Vec<Fault>> {
        let Follower { database, master_keys, .. } = &mut self.follower;
        let First { keys, is_made } = database.transaction(BULK_LIMIT, |transaction| {
            change::first(&mut KeyRows::new(transaction, master_keys, random), bits, now)
        })?;
        self.keys = keys.into_iter().map(|(_, key)| key).collect();
        if let (true, [key]) = (is_made, &self.keys[..]) {
            let (key_id, store) = (key.key_id(), database.name().display());
            info!(%key_id, %store, bits, "made the first signing key");
        }
        Ok(())
    }
}

/// Reads the decoy key. If there is none, generates one; of several servers that do so at the same
/// time, all use the first one's.
fn decoy_key(
    database: &mut Database,
    master_keys: &MasterKeys,
    random: &Random,
) -> Result<DecoyKey, Vec<Fault>> {
    let store = database.name().to_owned();
    if let Some(key) = read_decoy_key(database, master_keys)? {
        return Ok(key);
    }
    let no_random = |_| Fault::new(&store, "the operating system has no random bytes");
    let mut bytes = Zeroizing::new([0; DecoyKey::BYTES]);
    random.fill(&mut *bytes).map_err(no_random)?;
    let sealed =
        master_keys.seal(random, Purpose::Secret, DECOY_KEY, &*bytes).map_err(no_random)?;
    let parameters = [(&DECOY_KEY as _, Type::TEXT), (&sealed as _, Type::BYTEA)];
    database.query(PUT_SECRET, &parameters, REQUEST_LIMIT)?;
    read_decoy_key(database, master_keys)?.ok_or_else(|| vec![lost(&store).into()])
}

fn read_decoy_key(
    database: &mut Database,
    master_keys: &MasterKeys,
) -> Result<Option<DecoyKey>, Vec<Fault>> {
    let rows = database.query(GET_SECRET, &[(&DECOY_KEY, Type::TEXT)], REQUEST_LIMIT)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let store = database.name();
    let key = master_keys.open(store, Purpose::Secret, DECOY_KEY, row.get(0)?)?;
    let key = key.as_slice().try_into().map(DecoyKey::new);
    let problem = "holds a decoy key of another length: delete it from grantd.secret";
    key.map(Some).map_err(|_| vec![Fault::new(store, problem)])
}

fn lost(store: &Path) -> Failure {
    let problem = "has not kept the row that was written to grantd.secret: see its triggers";
    Failure::new(FailureKind::Malformed, store, problem)
}

const DECOY_KEY: &str = "decoy key";
const GET_SECRET: &str = "select s.sealed from grantd.secret s where s.name = $1";
const PUT_SECRET: &str = "insert into grantd.secret (name, sealed) values ($1, $2) \
                          on conflict (name) do nothing";
