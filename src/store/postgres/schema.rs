//! The tables of the store, in the schema `grantd`, and their versions.
//!
//! The owner of the schema runs the migrations. A server needs no right to change the schema, nor to
//! change clients.

use crate::store::postgres::database::{BULK_LIMIT, Database, REQUEST_LIMIT, Transaction, Type};
use crate::store::postgres::failure::{Failure, FailureKind};

/// The version of the schema that this program uses.
pub const VERSION: i32 = 6;

/// The migrations, in order: the first leads to version 1.
const MIGRATIONS: [&str; 6] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
];
/// The rights of a server. `{role}` stands for its role.
const GRANTS: &str = include_str!("schema/grants.sql");

/// The result of [`migrate`].
#[derive(Debug)]
pub struct Migrated {
    /// The version before; 0 if there was no schema.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// Brings the schema to [`VERSION`], and gives `node_role` the rights of a server. All or nothing.
/// Commands that run at the same time wait for each other.
///
/// # Errors
///
/// A [`Failure`] if the database is unfit, or newer than this program, or if the role of the
/// connection does not own the schema.
pub fn migrate(database: &mut Database, node_role: Option<&str>) -> Result<Migrated, Failure> {
    database.transaction(BULK_LIMIT, |transaction| {
        transaction.query("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])?;
        require_fit_server(transaction)?;
        let from = match read_version(transaction)? {
            Some(version) => version,
            None => {
                create(transaction)?;
                0
            }
        };
        if from > VERSION {
            return Err(refused(transaction, newer(from)));
        }
        for (version, script) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > from) {
            transaction.run_script(script)?;
            let note = "insert into grantd.migration (version) values ($1)";
            transaction.query(note, &[(&version, Type::INT4)])?;
        }
        if let Some(role) = node_role {
            require_role(transaction, role)?;
            transaction.run_script(&GRANTS.replace("{role}", &quoted(role)))?;
        }
        Ok(Migrated { from, to: VERSION })
    })
}

/// Checks that the schema has this program's version.
///
/// # Errors
///
/// A [`Failure`] if it has another version.
pub fn require(database: &mut Database) -> Result<(), Failure> {
    database.reading(REQUEST_LIMIT, |transaction| match read_version(transaction)? {
        Some(VERSION) => Ok(()),
        Some(version) if version > VERSION => Err(refused(transaction, newer(version))),
        Some(version) => {
            let problem = format!(
                "has version {version} of the schema grantd, and this program needs version \
                 {VERSION}: run `grantd store migrate` with the URL of the owner"
            );
            Err(refused(transaction, problem))
        }
        None => {
            let problem = "has no schema grantd: run `grantd store migrate` with the URL of the \
                           owner, who may create it";
            Err(refused(transaction, problem))
        }
    })
}

/// Reads the version; `None` if there is no schema.
pub(super) fn read_version(transaction: &mut Transaction<'_>) -> Result<Option<i32>, Failure> {
    let sql = "select to_regclass('grantd.migration') is not null";
    if !transaction.value(sql, &[])?.unwrap_or(false) {
        return Ok(None);
    }
    transaction.value("select coalesce(max(version), 0) from grantd.migration", &[])
}

fn create(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    // `create schema if not exists` demands the right to create one even if there is one.
    let sql = "select to_regnamespace('grantd') is not null";
    if !transaction.value(sql, &[])?.unwrap_or(false) {
        transaction.run_script("create schema grantd")?;
    }
    transaction.run_script(
        "create table grantd.migration (
           version integer primary key,
           applied_at timestamptz not null default clock_timestamp()
         )",
    )
}

fn require_fit_server(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    let rows = transaction.query(
        "select current_setting('server_version_num')::int4, getdatabaseencoding()::text",
        &[],
    )?;
    let Some(row) = rows.first() else { return Ok(()) };
    let version: i32 = row.get(0)?;
    if version < OLDEST_SERVER {
        let problem = format!("is PostgreSQL {}, and 14 or later is needed", version / 10_000);
        return Err(refused(transaction, problem));
    }
    if row.get::<&str>(1)? != "UTF8" {
        let problem = "does not store text in UTF-8: create the database with ENCODING 'UTF8'";
        return Err(refused(transaction, problem));
    }
    Ok(())
}

fn require_role(transaction: &mut Transaction<'_>, role: &str) -> Result<(), Failure> {
    let sql = "select 1 from pg_roles where rolname = $1";
    if !transaction.query(sql, &[(&role, Type::TEXT)])?.is_empty() {
        return Ok(());
    }
    let problem = format!("has no role {role}: create it with CREATE ROLE … LOGIN PASSWORD …");
    Err(refused(transaction, problem))
}

fn newer(version: i32) -> String {
    format!(
        "has version {version} of the schema grantd, and this program knows only version \
         {VERSION}: use the release that migrated it, or a later one"
    )
}

fn refused(transaction: &Transaction<'_>, problem: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Refused, transaction.store(), problem)
}

/// Quotes a name as an identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The oldest PostgreSQL whose functions may have a body in the SQL standard's form.
const OLDEST_SERVER: i32 = 140_000;
/// The advisory lock of a transaction that changes the schema.
const LOCK: i64 = 0x6772_616e_7464_0001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_migration_to_each_version() {
        assert_eq!(MIGRATIONS.len(), usize::try_from(VERSION).unwrap());
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
