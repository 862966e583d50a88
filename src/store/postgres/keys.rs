//! The signing keys as sealed rows.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::keys::key_file;
use crate::keys::key_store::KeyStore;
use crate::keys::signing_key::SigningKey;
use crate::random::Random;
use crate::store::postgres::database::{Transaction, Type};
use crate::store::postgres::failure::clean;
use crate::store::postgres::seal::{MasterKeys, Purpose};

/// The signing keys in a transaction. The changes are in force when the transaction is committed.
pub struct KeyRows<'t, 'd> {
    transaction: &'t mut Transaction<'d>,
    store: PathBuf,
    master_keys: &'t MasterKeys,
    random: &'t Random,
}

impl<'t, 'd> KeyRows<'t, 'd> {
    /// Names the keys. Reads and changes nothing.
    pub fn new(
        transaction: &'t mut Transaction<'d>,
        master_keys: &'t MasterKeys,
        random: &'t Random,
    ) -> Self {
        let store = transaction.store().to_owned();
        Self { transaction, store, master_keys, random }
    }
}

impl KeyRows<'_, '_> {
    /// Fails if no value in the store was sealed with one of the master keys that are set: the
    /// servers have others, and none of them could open a key that is added.
    fn require_known_master_key(&mut self) -> Result<(), Fault> {
        let rows = self.transaction.query(SEALED, &[])?;
        let mut found = BTreeSet::new();
        for row in &rows {
            found.extend(MasterKeys::id_in(row.get(0)?));
        }
        let own = self.master_keys.ids();
        if found.is_empty() || own.iter().any(|id| found.contains(id)) {
            return Ok(());
        }
        let found: Vec<_> = found.into_iter().collect();
        Err(Fault::new(
            &self.store,
            format!(
                "is sealed with other master keys ({}) than those that are set ({}): set \
                 store.master_key_file to the file of the servers; if those master keys are lost, \
                 delete the rows of grantd.signing_key and grantd.secret, and restart the servers",
                found.join(", "),
                own.join(", ")
            ),
        ))
    }
}

impl KeyStore for KeyRows<'_, '_> {
    fn path(&self) -> &Path {
        &self.store
    }

    /// The schema has a table for them.
    fn create(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn lock(&mut self) -> Result<(), Fault> {
        self.transaction.query("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])?;
        Ok(())
    }

    fn names(&mut self) -> Result<Vec<PathBuf>, Fault> {
        let rows = self.transaction.query(NAMES, &[])?;
        rows.iter().map(|row| Ok(row.get::<&str>(0)?.into())).collect()
    }

    fn load(&mut self, name: &Path) -> Result<Option<SigningKey>, Fault> {
        let id = id_of(name);
        let rows = self.transaction.query(LOAD, &[(&id, Type::TEXT)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        open(&self.store, self.master_keys, &id, row.get(0)?).map(Some)
    }

    fn add(&mut self, key_id: &str, document: &str) -> Result<(), Fault> {
        self.require_known_master_key()?;
        if !self.transaction.query(FIND, &[(&key_id, Type::TEXT)])?.is_empty() {
            let problem = format!("holds the key {key_id} already, and it was retired");
            return Err(Fault::new(&self.store, problem));
        }
        let sealed =
            self.master_keys.seal(self.random, Purpose::SigningKey, key_id, document.as_bytes());
        let sealed = sealed.map_err(|_| {
            Fault::new(&self.store, "the operating system has no random bytes to seal a key")
        })?;
        let parameters = [(&key_id as _, Type::TEXT), (&sealed as _, Type::BYTEA)];
        self.transaction.query(ADD, &parameters)?;
        Ok(())
    }

    fn retire(&mut self, name: &Path, _: Option<&str>) -> io::Result<PathBuf> {
        let id = id_of(name);
        let retired = self.transaction.query(RETIRE, &[(&id, Type::TEXT)]);
        retired.map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(name.to_owned())
    }
}

/// Opens a sealed document and reads its key. `store` is shown in the faults.
pub(super) fn open(
    store: &Path,
    master_keys: &MasterKeys,
    id: &str,
    sealed: &[u8],
) -> Result<SigningKey, Fault> {
    open_row(store, master_keys, id, sealed).map_err(|mut fault| {
        fault.problem = format!(
            "{}; if no server has written this row, remove it as the owner: \
             DELETE FROM grantd.signing_key WHERE key_id = '{}'",
            fault.problem,
            clean(id).replace('\'', "''")
        );
        fault
    })
}

fn open_row(
    store: &Path,
    master_keys: &MasterKeys,
    id: &str,
    sealed: &[u8],
) -> Result<SigningKey, Fault> {
    let text = master_keys.open(store, Purpose::SigningKey, id, sealed)?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| Fault::new(store, format!("the signing key {} is not text", clean(id))))?;
    let key = key_file::parse(store, text)?;
    if key.key_id() != id {
        return Err(Fault::new(
            store,
            format!("the signing key {} has the document of another", clean(id)),
        ));
    }
    Ok(key)
}

fn id_of(name: &Path) -> String {
    name.to_string_lossy().into_owned()
}

const NAMES: &str =
    "select k.key_id from grantd.signing_key k where k.retired_at is null order by k.key_id";
const LOAD: &str = "select k.document from grantd.signing_key k \
                    where k.key_id = $1 and k.retired_at is null";
const FIND: &str = "select from grantd.signing_key k where k.key_id = $1";
const SEALED: &str = "select k.document from grantd.signing_key k \
                      union all select s.sealed from grantd.secret s";
const ADD: &str = "insert into grantd.signing_key (key_id, document) values ($1, $2)";
const RETIRE: &str = "update grantd.signing_key set retired_at = clock_timestamp() \
                      where key_id = $1 and retired_at is null";
/// The advisory lock of a transaction that changes signing keys.
const LOCK: i64 = 0x6772_616e_7464_0002;
