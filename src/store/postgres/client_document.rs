//! Clients as the text of a registry document, so that the commands that edit `clients.json` edit
//! the rows of the database as well.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use parking_lot::Mutex;

use crate::fault::Fault;
use crate::registry::client_file::{self, edit};
use crate::registry::clients::Registry;
use crate::store::postgres::database::{BULK_LIMIT, Database, Parameter, Transaction, Type};
use crate::store::postgres::failure::{Failure, clean, literal};
use crate::store::postgres::row::PART;
use crate::store::postgres::rows::{self, Entry};

/// Reads the clients with these `ids`.
///
/// # Errors
///
/// The [`Failure`].
pub fn read_some(transaction: &mut Transaction<'_>, ids: &[&str]) -> Result<String, Failure> {
    let sql = "select entry from grantd.client where client_id = any($1) order by position";
    document(transaction, sql, &[(&ids, Type::TEXT_ARRAY)])
}

/// Waits for other commands that change clients, and keeps them from it until the transaction ends.
/// Then reads the clients with these `ids`.
///
/// # Errors
///
/// The [`Failure`].
pub fn lock(transaction: &mut Transaction<'_>, ids: &[&str]) -> Result<String, Failure> {
    transaction.query("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])?;
    read_some(transaction, ids)
}

/// Reads all clients, in the order in which they were registered.
///
/// # Errors
///
/// The [`Failure`].
pub fn read_all(transaction: &mut Transaction<'_>) -> Result<String, Failure> {
    document(transaction, "select entry from grantd.client order by position", &[])
}

/// Reads all clients as a registry.
///
/// # Errors
///
/// All [`Fault`]s.
pub fn registry(database: &mut Database) -> Result<Registry, Vec<Fault>> {
    let text = database.reading(BULK_LIMIT, read_all)?;
    client_file::parse(database.name(), &text).or_else(|faults| {
        let of_rows = faults_of_rows(database)?;
        Err(if of_rows.is_empty() { faults } else { of_rows })
    })
}

/// Returns the first faults of entries, each with the client and what to do.
///
/// # Errors
///
/// The [`Failure`].
pub fn faults_of_rows(database: &mut Database) -> Result<Vec<Fault>, Failure> {
    let found = Mutex::new(Vec::new());
    let take = |entries: Vec<Entry>| {
        let mut found = found.lock();
        for (id, client) in entries {
            let Err(problem) = client else { continue };
            if found.len() < MOST_FAULTS {
                let name = format!("client {}", clean(&id));
                let problem = problem.strip_prefix(&*name).unwrap_or(&problem);
                let problem = format!(
                    "{}; correct this entry, or remove it as the owner: DELETE FROM grantd.client \
                     WHERE client_id = {}",
                    problem.trim_start_matches(": "),
                    literal(&id)
                );
                found.push(Fault::new(Path::new(&name), problem));
            }
        }
    };
    rows::each_client(database, &take, &mut |_, _| {})?;
    Ok(found.into_inner())
}

fn document(
    transaction: &mut Transaction<'_>,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<String, Failure> {
    let mut document = String::from("{\n  \"clients\": [");
    let mut comma = "";
    transaction.for_each(sql, parameters, |row| {
        document.extend([comma, "\n    ", row.get::<&str>(0)?]);
        comma = ",";
        Ok(())
    })?;
    document.push_str(if comma.is_empty() { "]\n}\n" } else { "\n  ]\n}\n" });
    Ok(document)
}

/// Makes the rows of the document `old` those of the document `new`.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if a client's `jwks` is a path: the file would have to be on the
/// machine of every server.
pub fn write(transaction: &mut Transaction<'_>, old: &str, new: &str) -> Result<(), Vec<Fault>> {
    let before: HashMap<_, _> = entries(transaction.store(), old)?.into_iter().collect();
    let mut after = entries(transaction.store(), new)?;
    let left: HashSet<_> = after.iter().map(|(id, _)| id.clone()).collect();
    let removed: Vec<_> = before.keys().filter(|id| !left.contains(*id)).collect();
    after.retain(|(id, entry)| before.get(id) != Some(entry));
    let has_path = after.iter().find(|(_, entry)| client_file::names_key_file(entry));
    if let Some((id, _)) = has_path {
        let problem = format!(
            "client {id}: must be a key set, not the path of a file, which every server would \
             need: `grantd client update --jwks` stores what the file holds"
        );
        return Err(Fault::new(transaction.store(), problem).in_field("jwks").into());
    }
    if !removed.is_empty() {
        let sql = "delete from grantd.client where client_id = any($1)";
        transaction.query(sql, &[(&removed, Type::TEXT_ARRAY)])?;
    }
    let (changed, added): (Vec<_>, Vec<_>) =
        after.into_iter().partition(|(id, _)| before.contains_key(id));
    put(transaction, UPDATE, &changed)?;
    insert(transaction, &added)?;
    Ok(())
}

/// Adds clients, each with its entry.
pub(super) fn insert(
    transaction: &mut Transaction<'_>,
    entries: &[(String, impl AsRef<str>)],
) -> Result<(), Failure> {
    put(transaction, INSERT, entries)
}

fn put(
    transaction: &mut Transaction<'_>,
    sql: &str,
    mut entries: &[(String, impl AsRef<str>)],
) -> Result<(), Failure> {
    while !entries.is_empty() {
        // As many as fit into a statement of a bounded size, but at least one.
        let mut bytes = 0;
        let count = entries.iter().take(PART).take_while(|(id, entry)| {
            bytes += id.len() + entry.as_ref().len();
            bytes <= BYTES
        });
        let (part, left) = entries.split_at(count.count().max(1));
        let (ids, texts): (Vec<_>, Vec<_>) =
            part.iter().map(|(id, entry)| (id, entry.as_ref())).unzip();
        transaction.query(sql, &[(&ids, Type::TEXT_ARRAY), (&texts, Type::TEXT_ARRAY)])?;
        entries = left;
    }
    Ok(())
}

/// The id and the text of each entry of a document.
fn entries<'t>(store: &Path, document: &'t str) -> Result<Vec<(String, &'t str)>, Fault> {
    let fault = |error: serde_json::Error| Fault::new(store, error.to_string());
    let entries = edit::entries(document).map_err(fault)?;
    Ok(entries.filter_map(|entry| Some((edit::id_of(entry)?.into_owned(), entry))).collect())
}

const UPDATE: &str = "update grantd.client c set entry = n.entry \
                      from unnest($1, $2) n (client_id, entry) where c.client_id = n.client_id";
const INSERT: &str = "insert into grantd.client (client_id, entry) select * from unnest($1, $2)";
/// The advisory lock of a transaction that changes clients.
const LOCK: i64 = 0x6772_616e_7464_0003;
/// The most faults of entries that are shown.
const MOST_FAULTS: usize = 20;
/// The most bytes of the texts of one statement.
const BYTES: usize = 8 << 20;
