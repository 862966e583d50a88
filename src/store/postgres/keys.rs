//! The signing keys as sealed rows.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::key_file;
use crate::keys::key_store::KeyStore;
use crate::keys::life::KeyTimes;
use crate::keys::rotation::Publisher;
use crate::keys::signing_key::SigningKey;
use crate::random::Random;
use crate::store::postgres::database::{Parameter, Row, Transaction, Type};
use crate::store::postgres::failure::{Failure, clean, literal};
use crate::store::postgres::seal::{MasterKeys, Purpose};
use crate::time::UnixTime;

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
        open(&self.store, self.master_keys, &id, row.get(0)?, &times_in(row, 1)?).map(Some)
    }

    fn add(&mut self, key: &SigningKey, document: &str) -> Result<(), Fault> {
        self.require_known_master_key()?;
        let key_id = key.key_id();
        if !self.transaction.query(FIND, &[(&key_id, Type::TEXT)])?.is_empty() {
            let problem = format!("holds the key {key_id} already, and it was retired");
            return Err(Fault::new(&self.store, problem));
        }
        let sealed = seal(&self.store, self.master_keys, self.random, key_id, document)?;
        self.transaction.query(ADD, &row_of(&key_id, &sealed, &times_of(key)))?;
        Ok(())
    }

    fn document(&mut self, name: &Path) -> Result<Zeroizing<String>, Fault> {
        let id = id_of(name);
        let rows = self.transaction.query(LOAD, &[(&id, Type::TEXT)])?;
        let sealed = rows.first().map(|row| row.get(0)).transpose()?;
        let gone = || Fault::new(&self.store, format!("the signing key {} has gone", clean(&id)));
        document(&self.store, self.master_keys, &id, sealed.ok_or_else(gone)?)
    }

    fn replace(&mut self, _: &Path, key: &SigningKey, document: &str) -> Result<(), Fault> {
        let key_id = key.key_id();
        let rows = self.transaction.query(LOAD, &[(&key_id, Type::TEXT)])?;
        let before = rows.first().map_or(Ok(&[][..]), |row| row.get(0))?;
        let sealed =
            seal_again(&self.store, self.master_keys, self.random, (key_id, before), document)?;
        self.transaction.query(REPLACE, &row_of(&key_id, &sealed, &times_of(key)))?;
        Ok(())
    }

    fn publishers(&mut self) -> Result<Vec<Publisher>, Fault> {
        let rows = self.transaction.query(PUBLISHERS, &[])?;
        Ok(rows.iter().map(|row| publisher(row).0).collect())
    }

    fn retire(&mut self, name: &Path, _: Option<&str>) -> io::Result<PathBuf> {
        let id = id_of(name);
        let retired = self.transaction.query(RETIRE, &[(&id, Type::TEXT)]);
        retired.map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(name.to_owned())
    }
}

/// Opens a sealed document and reads its key, whose row has these times. `store` is shown in the
/// faults.
pub(super) fn open(
    store: &Path,
    master_keys: &MasterKeys,
    id: &str,
    sealed: &[u8],
    times: &RowTimes,
) -> Result<SigningKey, Fault> {
    open_row(store, master_keys, id, sealed, times).map_err(|fault| with_remedy(fault, id))
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

fn open_row(
    store: &Path,
    master_keys: &MasterKeys,
    id: &str,
    sealed: &[u8],
    times: &RowTimes,
) -> Result<SigningKey, Fault> {
    let key = key_file::parse(store, &document(store, master_keys, id, sealed)?)?;
    if key.key_id() != id {
        return Err(Fault::new(
            store,
            format!("the signing key {} has the document of another", clean(id)),
        ));
    }
    // An earlier document of the key, in which it begins to sign earlier, must not come back.
    if times.is_some_and(|times| times != times_of(&key)) {
        let problem = format!(
            "the signing key {} has a document with other times than its row, which was changed \
             without grantd",
            clean(id)
        );
        return Err(Fault::new(store, problem));
    }
    Ok(key)
}

/// Opens a sealed document. `store` is shown in the faults.
pub(super) fn document(
    store: &Path,
    master_keys: &MasterKeys,
    id: &str,
    sealed: &[u8],
) -> Result<Zeroizing<String>, Fault> {
    let text = master_keys.open(store, Purpose::SigningKey, id, sealed)?;
    let text = std::str::from_utf8(&text).map(str::to_owned).map(Zeroizing::new);
    text.map_err(|_| Fault::new(store, format!("the signing key {} is not text", clean(id))))
}

/// Seals the document of a key with the first master key.
pub(super) fn seal(
    store: &Path,
    master_keys: &MasterKeys,
    random: &Random,
    id: &str,
    document: &str,
) -> Result<Vec<u8>, Fault> {
    seal_again(store, master_keys, random, (id, &[]), document)
}

/// Seals the document of the key `id` with the master key with which `before`, its document so far, was
/// sealed: the other servers have that one.
pub(super) fn seal_again(
    store: &Path,
    master_keys: &MasterKeys,
    random: &Random,
    (id, before): (&str, &[u8]),
    document: &str,
) -> Result<Vec<u8>, Fault> {
    let text = document.as_bytes();
    let sealed = master_keys.seal_again(random, Purpose::SigningKey, id, text, before);
    sealed.map_err(|_| Fault::new(store, "the operating system has no random bytes to seal a key"))
}

/// The times in the row of a key; `None` if an earlier release has written it.
pub(super) type RowTimes = Option<[i64; 2]>;

/// Reads the times in the columns from `first` on.
pub(super) fn times_in(row: &Row, first: usize) -> Result<RowTimes, Failure> {
    let (published_at, signs_from): (Option<i64>, Option<i64>) =
        (row.get(first)?, row.get(first + 1)?);
    Ok(published_at.zip(signs_from).map(|(published_at, signs_from)| [published_at, signs_from]))
}

/// Returns the times of a key as they stand in its row. They are for the functions of the database,
/// which cannot read the document; a server acts on those in the document.
pub(super) fn times_of(key: &SigningKey) -> [i64; 2] {
    let KeyTimes { published_at, signs_from } = key.times();
    [published_at, signs_from].map(|time| i64::try_from(time.0).unwrap_or(i64::MAX))
}

/// Returns the parameters `$1` to `$4` of a statement that writes the row of a key.
pub(super) fn row_of<'p>(
    id: &'p &str,
    sealed: &'p Vec<u8>,
    [published_at, signs_from]: &'p [i64; 2],
) -> [Parameter<'p>; 4] {
    [(id, Type::TEXT), (sealed, Type::BYTEA), (published_at, Type::INT8), (signs_from, Type::INT8)]
}

/// Reads a row of [`PUBLISHERS`]. If it is malformed, also returns the failure, and the server
/// counts as one that has published nothing.
pub(super) fn publisher(row: &Row) -> (Publisher, Option<Failure>) {
    let published = || -> Result<_, Failure> {
        let (keys, since): (Vec<String>, Vec<i64>) = (row.get(1)?, row.get(2)?);
        let since = since.into_iter().map(|since| UnixTime(u64::try_from(since).unwrap_or(0)));
        Ok(keys.into_iter().zip(since).collect())
    };
    let (published, failure) = match published() {
        Ok(published) => (published, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let max_age = row.get::<i64>(3).unwrap_or(0);
    let name = clean(row.get(0).unwrap_or("?"));
    (Publisher { name, published, max_age: u64::try_from(max_age).unwrap_or(0) }, failure)
}

fn id_of(name: &Path) -> String {
    name.to_string_lossy().into_owned()
}

const NAMES: &str =
    "select k.key_id from grantd.signing_key k where k.retired_at is null order by k.key_id";
const LOAD: &str = "select k.document, k.published_at, k.signs_from from grantd.signing_key k \
                    where k.key_id = $1 and k.retired_at is null";
const FIND: &str = "select from grantd.signing_key k where k.key_id = $1";
const SEALED: &str = "select k.document from grantd.signing_key k \
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
