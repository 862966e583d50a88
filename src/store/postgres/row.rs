//! A row of a result, and what else the statements share.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::types::FromSql;

use crate::store::postgres::failure::{Failure, FailureKind};
use crate::time::UnixTime;

/// A row of a result.
pub struct Row {
    pub(super) row: tokio_postgres::Row,
    pub(super) store: Arc<Path>,
}

impl Row {
    /// Returns the value in the column with the number `column`, counted from 0.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if there is no such column, or if it has another type.
    pub fn get<'r, T: FromSql<'r>>(&'r self, column: usize) -> Result<T, Failure> {
        self.row.try_get(column).map_err(|_| {
            let problem = format!("answers with a row whose column {column} is not as it must be");
            Failure::new(FailureKind::Malformed, &self.store, problem)
        })
    }
}

/// Returns a time as a value of the database.
pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// Returns a time of the database.
pub(super) fn time(seconds: i64) -> UnixTime {
    UnixTime(u64::try_from(seconds).unwrap_or(0))
}

/// Returns the first value of the first row.
pub(super) fn first<T: for<'r> FromSql<'r>>(rows: &[Row]) -> Result<Option<T>, Failure> {
    rows.first().map(|row| row.get(0)).transpose()
}

/// The most rows that one statement reads or writes by their names.
pub(super) const PART: usize = 5000;
