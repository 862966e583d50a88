//! The signing keys as sealed rows.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::key_file;
use crate::keys::key_store::KeyStore;
use crate::keys::rotation::Publisher;
use crate::keys::signing_key::SigningKey;
use crate::store::postgres::database::{Parameter, Row, Transaction, Type};
use crate::store::postgres::failure::{Failure, clean, literal};
use crate::store::postgres::row::{seconds, time};
use crate::store::postgres::seal::{MasterKeys, Purpose};

/// The signing keys in a transaction. The changes are in force when the transaction is committed.
pub struct KeyRows<'t, 'd> {
    transaction: &'t mut Transaction<'d>,
    store: PathBuf,
    master_keys: &'t MasterKeys,
}

impl<'t, 'd> KeyRows<'t, 'd> {
    /// Names the keys. Reads and changes nothing.
    pub fn new(transaction: &'t mut Transaction<'d>, master_keys: &'t MasterKeys) -> Self {
        let store = transaction.store().to_owned();
        Self { transaction, store, master_keys }
    }

    fn row(&mut self, name: &Path) -> Result<Option<SealedKey>, Failure> {
        let rows = self.transaction.query(LOAD, &[(&name.to_string_lossy(), Type::TEXT)])?;
        rows.first().map(SealedKey::read).transpose()
    }

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
        let row = self.row(name)?;
        row.map(|row| row.open(&self.store, self.master_keys)).transpose()
    }

    fn add(&mut self, key: &SigningKey, document: &str) -> Result<(), Fault> {
        self.require_known_master_key()?;
        let key_id = key.key_id();
        if !self.transaction.query(FIND, &[(&key_id, Type::TEXT)])?.is_empty() {
            let problem = format!("holds the key {key_id} already, and it was retired");
            return Err(Fault::new(&self.store, problem));
        }
        let row = SealedKey::seal(&self.store, self.master_keys, key, document, &[])?;
        self.transaction.query(ADD, &row.parameters())?;
        Ok(())
    }

    fn document(&mut self, name: &Path) -> Result<Zeroizing<String>, Fault> {
        let row = self.row(name)?.ok_or_else(|| {
            let id = clean(&name.to_string_lossy());
            Fault::new(&self.store, format!("the signing key {id} has gone"))
        });
        row?.document(&self.store, self.master_keys)
    }

    fn replace(&mut self, _: &Path, key: &SigningKey, document: &str) -> Result<(), Fault> {
        let before = self.row(Path::new(key.key_id()))?.unwrap_or_default().document;
        let row = SealedKey::seal(&self.store, self.master_keys, key, document, &before)?;
        self.transaction.query(REPLACE, &row.parameters())?;
        Ok(())
    }

    fn publishers(&mut self) -> Result<Vec<Publisher>, Fault> {
        let rows = self.transaction.query(PUBLISHERS, &[])?;
        Ok(rows.iter().map(|row| publisher(row).0).collect())
    }

    fn retire(&mut self, name: &Path, _: Option<&str>) -> io::Result<PathBuf> {
        let retired = self.transaction.query(RETIRE, &[(&name.to_string_lossy(), Type::TEXT)]);
        retired.map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(name.to_owned())
    }
}

/// The row of a signing key.
#[derive(Default)]
pub(super) struct SealedKey {
    /// The `kid`.
    pub(super) id: String,
    /// The sealed document.
    pub(super) document: Vec<u8>,
    /// The times at which the key is published and begins to sign. They are for the functions of the
    /// database, which cannot read the document; a server acts on those in the document. `None` if an
    /// earlier release has written the row, and in a snapshot, whose keys were checked before.
    pub(super) times: [Option<i64>; 2],
}

impl SealedKey {
    /// Reads a row of the columns `key_id`, `document`, `published_at` and `signs_from`.
    pub(super) fn read(row: &Row) -> Result<Self, Failure> {
        let times = [row.get(2)?, row.get(3)?];
        Ok(Self { id: row.get(0)?, document: row.get(1)?, times })
    }

    /// Returns the row of `key` with its new document, which is sealed with the master key of `before`,
    /// the sealed document so far: the other servers have that one. If there is none, it is sealed with
    /// the first master key. `store` is shown in the fault.
    pub(super) fn seal(
        store: &Path,
        master_keys: &MasterKeys,
        key: &SigningKey,
        document: &str,
        before: &[u8],
    ) -> Result<Self, Fault> {
        let (id, text) = (key.key_id().to_owned(), document.as_bytes());
        let sealed = master_keys.seal_again(Purpose::SigningKey, &id, text, before);
        let problem = "the operating system has no random bytes to seal a key";
        let document = sealed.map_err(|_| Fault::new(store, problem))?;
        Ok(Self { id, document, times: times_of(key) })
    }

    /// Returns the parameters `$1` to `$4` of a statement that writes the row.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 4] {
        let [published_at, signs_from] = &self.times;
        [
            (&self.id, Type::TEXT),
            (&self.document, Type::BYTEA),
            (published_at, Type::INT8),
            (signs_from, Type::INT8),
        ]
    }

    /// Opens the document. `store` is shown in the faults.
    pub(super) fn document(
        &self,
        store: &Path,
        master_keys: &MasterKeys,
    ) -> Result<Zeroizing<String>, Fault> {
        let text = master_keys.open(store, Purpose::SigningKey, &self.id, &self.document)?;
        let text = std::str::from_utf8(&text).map(str::to_owned).map(Zeroizing::new);
        text.map_err(|_| self.fault(store, "is not text"))
    }

    /// Opens the document and reads its key. `store` is shown in the faults.
    pub(super) fn open(&self, store: &Path, master_keys: &MasterKeys) -> Result<SigningKey, Fault> {
        self.try_open(store, master_keys).map_err(|fault| with_remedy(fault, &self.id))
    }

    fn try_open(&self, store: &Path, master_keys: &MasterKeys) -> Result<SigningKey, Fault> {
        let key = key_file::parse(store, &self.document(store, master_keys)?)?;
        if key.key_id() != self.id {
            return Err(self.fault(store, "has the document of another"));
        }
        // An earlier document of the key, in which it begins to sign earlier, must not come back.
        if self.times.iter().all(Option::is_some) && self.times != times_of(&key) {
            let problem = "has a document with other times than its row, which was changed without \
                           grantd";
            return Err(self.fault(store, problem));
        }
        Ok(key)
    }

    fn fault(&self, store: &Path, problem: &str) -> Fault {
        Fault::new(store, format!("the signing key {} {problem}", clean(&self.id)))
    }
}

fn times_of(key: &SigningKey) -> [Option<i64>; 2] {
    let times = key.times();
    [times.published_at, times.signs_from].map(|time| Some(seconds(time)))
}

/// Adds the advice for the row of a key that cannot be opened.
pub(super) fn with_remedy(mut fault: Fault, id: &str) -> Fault {
    fault.problem = format!(
        "{}; if no server has written this row as it is, remove it as the owner: DELETE FROM \
         grantd.signing_key WHERE key_id = {}; a server makes another next key (without \
         keys.rotate_every: run `grantd key rotate`)",
        fault.problem,
        literal(id)
    );
    fault
}

/// Reads a row of [`PUBLISHERS`]. If it is malformed, also returns the failure, and the server
/// counts as one that has published nothing.
pub(super) fn publisher(row: &Row) -> (Publisher, Option<Failure>) {
    let published = || -> Result<_, Failure> {
        let (keys, since): (Vec<String>, Vec<i64>) = (row.get(1)?, row.get(2)?);
        Ok(keys.into_iter().zip(since.into_iter().map(time)).collect())
    };
    let (published, failure) = match published() {
        Ok(published) => (published, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let max_age = row.get::<i64>(3).unwrap_or(0);
    let name = clean(row.get(0).unwrap_or("?"));
    (Publisher { name, published, max_age: u64::try_from(max_age).unwrap_or(0) }, failure)
}

const NAMES: &str =
    "select k.key_id from grantd.signing_key k where k.retired_at is null order by k.key_id";
const LOAD: &str = "select k.key_id, k.document, k.published_at, k.signs_from \
                    from grantd.signing_key k where k.key_id = $1 and k.retired_at is null";
/// Returns all signing keys that are not retired.
pub(super) const ALL: &str = "select k.key_id, k.document, k.published_at, k.signs_from \
                              from grantd.signing_key k \
                              where k.retired_at is null order by k.key_id";
const FIND: &str = "select from grantd.signing_key k where k.key_id = $1";
/// Returns all sealed values.
pub(super) const SEALED: &str = "select k.document from grantd.signing_key k \
                      union all select s.sealed from grantd.secret s";
/// Adds the row of a key.
pub(super) const ADD: &str = "insert into grantd.signing_key (key_id, document, published_at, signs_from) \
                   values ($1, $2, $3, $4)";
const REPLACE: &str = "update grantd.signing_key \
                       set document = $2, published_at = $3, signs_from = $4 \
                       where key_id = $1 and retired_at is null";
/// The servers that may be answering requests.
pub(super) const PUBLISHERS: &str =
    "select n.node, n.keys, n.since, n.max_age from grantd.live_nodes() n";
const RETIRE: &str = "update grantd.signing_key set retired_at = clock_timestamp() \
                      where key_id = $1 and retired_at is null";
/// The advisory lock of a transaction that changes signing keys.
const LOCK: i64 = 0x6772_616e_7464_0002;
