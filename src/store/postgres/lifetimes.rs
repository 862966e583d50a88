//! The lifetimes that were shortened, as rows that all servers share.

use crate::snapshot::lifetimes::Shortened;
use crate::store::postgres::database::{Database, Parameter, REQUEST_LIMIT, ROW_LIMIT, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::row::{PART, seconds, time};

/// A client, or the empty id for all clients, and the lifetime that was shortened.
pub type Row = (String, Shortened);

/// Reads all rows.
///
/// # Errors
///
/// The [`Failure`].
pub fn read(database: &mut Database) -> Result<Vec<Row>, Failure> {
    read_with(database, ALL, &[])
}

/// Reads the rows of these clients.
pub(super) fn read_some(database: &mut Database, ids: &[String]) -> Result<Vec<Row>, Failure> {
    read_with(database, SOME, &[(&ids, Type::TEXT_ARRAY)])
}

fn read_with(
    database: &mut Database,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    database.for_each(sql, parameters, ROW_LIMIT, |row| {
        let lifetime = u32::try_from(row.get::<i64>(1)?).unwrap_or(u32::MAX);
        rows.push((row.get(0)?, Shortened { lifetime, until: time(row.get(2)?) }));
        Ok(())
    })?;
    Ok(rows)
}

/// Adds rows to those in the store.
///
/// # Errors
///
/// The [`Failure`].
pub fn put(database: &mut Database, rows: &[Row]) -> Result<(), Failure> {
    for rows in rows.chunks(PART) {
        let ids: Vec<_> = rows.iter().map(|(id, _)| id.as_str()).collect();
        let lifetimes: Vec<_> = rows.iter().map(|(_, it)| i64::from(it.lifetime)).collect();
        let ends: Vec<_> = rows.iter().map(|(_, it)| seconds(it.until)).collect();
        let parameters: [Parameter<'_>; 3] =
            [(&ids, Type::TEXT_ARRAY), (&lifetimes, Type::INT8_ARRAY), (&ends, Type::INT8_ARRAY)];
        database.query(PUT, &parameters, REQUEST_LIMIT)?;
    }
    Ok(())
}

const ALL: &str = "select s.client_id, s.lifetime, s.until from grantd.shortened s";
const SOME: &str = "select s.client_id, s.lifetime, s.until from grantd.shortened s \
                    where s.client_id = any ($1::text[])";
const PUT: &str = "select from grantd.shorten($1::text[], $2::bigint[], $3::bigint[])";
