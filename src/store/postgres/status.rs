//! Describes the store, and tries the master keys.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::store::postgres::database::{BULK_LIMIT, Database, FromSql, Transaction};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::seal::{MasterKeys, Purpose};
use crate::store::postgres::{keys, rows, schema};

/// Describes the store.
///
/// # Errors
///
/// A [`Failure`] if the role of the connection may not read it.
pub fn read(database: &mut Database) -> Result<Value, Failure> {
    let role = database.user().to_owned();
    let name = database.name().to_owned();
    database.reading(BULK_LIMIT, |transaction| {
        let server: String = one(transaction, "select current_setting('server_version')")?;
        let mut sealed_with: BTreeMap<String, usize> = BTreeMap::new();
        transaction.for_each(keys::SEALED, &[], |row| {
            let id = MasterKeys::id_in(row.get(0)?).unwrap_or_else(|| "none".to_owned());
            *sealed_with.entry(id).or_default() += 1;
            Ok(())
        })?;
        Ok(json!({
            "store": name,
            "server": server,
            "role": role,
            "schema": schema::read_version(transaction)?,
            "clients": one::<i64>(transaction, "select count(*) from grantd.client")?,
            "keys": one::<i64>(transaction, KEYS)?,
            "retired_keys": one::<i64>(transaction, RETIRED_KEYS)?,
            "master_keys": sealed_with,
            "revocations": one::<i64>(transaction, "select count(*) from grantd.revocation")?,
            "cut_offs": one::<i64>(transaction, "select count(*) from grantd.cut_off")?,
        }))
    })
}

/// Opens everything that a server opens. Returns the faults.
///
/// # Errors
///
/// A [`Failure`] if the role of the connection may not read it.
pub fn unopened(database: &mut Database, master_keys: &MasterKeys) -> Result<Vec<Fault>, Failure> {
    let store = database.name().to_owned();
    let mut faults = rows::open_keys(&store, master_keys, rows::sealed_keys(database)?).faults;
    database.for_each(SECRETS, &[], BULK_LIMIT, |row| {
        let opened = master_keys.open(&store, Purpose::Secret, row.get(0)?, row.get(1)?);
        faults.extend(opened.err());
        Ok(())
    })?;
    Ok(faults)
}

/// Returns the value in the first row of a result that has one row.
fn one<T: for<'r> FromSql<'r>>(transaction: &mut Transaction<'_>, sql: &str) -> Result<T, Failure> {
    transaction.value(sql, &[])?.ok_or_else(|| transaction.malformed())
}

const KEYS: &str = "select count(*) from grantd.signing_key where retired_at is null";
const RETIRED_KEYS: &str = "select count(*) from grantd.signing_key where retired_at is not null";
const SECRETS: &str = "select name, sealed from grantd.secret";
