//! The birth of the guard's contents: a row that is lost with them, and that begins an epoch.

use std::path::Path;

use crate::store::postgres::database::{Database, REQUEST_LIMIT, Type};
use crate::store::postgres::failure::{Failure, FailureKind};

/// Writes the birth, unless there is one that counts. Afterwards there is one epoch, no matter which
/// server wrote its birth.
///
/// # Errors
///
/// The [`Failure`] of the statement.
pub(super) fn write(database: &mut Database) -> Result<(), Failure> {
    database.query(BIRTH, &[], REQUEST_LIMIT).map(drop)
}

/// Writes the birth anew if the transaction ids of the database have gone back since `snapshot`: it was
/// set back, and has forgotten uses. Returns whether it did.
///
/// # Errors
///
/// The [`Failure`] of the statement.
pub(super) fn renew(database: &mut Database, snapshot: &str) -> Result<bool, Failure> {
    Ok(database.value(RENEW, &[(&snapshot, Type::TEXT)])?.unwrap_or(false))
}

/// Returns the failure that a birth that was just written does not count.
pub(super) fn missing(store: &Path) -> Failure {
    let problem = "records no use of an assertion or proof: the table grantd.guard must be \
                   UNLOGGED and on the primary: see `grantd store status`";
    Failure::new(FailureKind::Refused, store, problem)
}

const BIRTH: &str = "select from grantd.begin_epoch()";
const RENEW: &str = "select grantd.renew_epoch($1)";
