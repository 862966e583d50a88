//! A row of a result.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::types::FromSql;

use crate::store::postgres::failure::{Failure, FailureKind};

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
