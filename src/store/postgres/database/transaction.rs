//! A transaction.

use std::path::Path;
use std::time::Duration;

use crate::store::postgres::database::{Database, LONG, Parameter, Row, SHORT};
use crate::store::postgres::failure::Failure;

/// A transaction, which ends with the function that it was passed to.
pub struct Transaction<'d> {
    pub(super) database: &'d mut Database,
    pub(super) limit: Duration,
    /// The first failure of a statement. PostgreSQL then refuses all further ones.
    pub(super) failed: Option<Failure>,
}

impl Transaction<'_> {
    /// Runs one statement and returns its rows, as [`Database::query`] does.
    ///
    /// # Errors
    ///
    /// The [`Failure`]. The transaction will be rolled back.
    pub fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        let done = self.database.run(sql, parameters, self.limit, SHORT, &mut |row| {
            rows.push(row);
            Ok(())
        });
        self.note(done).map(|()| rows)
    }

    /// Runs one statement, and passes each row to `each` as it arrives.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the statement or of `each`. The transaction will be rolled back.
    pub fn for_each(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        mut each: impl FnMut(Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let done = self.database.run(sql, parameters, self.limit, LONG, &mut each);
        self.note(done)
    }

    /// Runs statements without parameters, separated by semicolons.
    pub(in crate::store::postgres) fn run_script(&mut self, sql: &str) -> Result<(), Failure> {
        let done = self.database.run_script(sql, self.limit);
        self.note(done)
    }

    /// Whether the first failure of a statement was a time limit of the role.
    pub(in crate::store::postgres) fn has_timed_out(&self) -> bool {
        self.failed.as_ref().is_some_and(Failure::has_timed_out)
    }

    /// The name of the store.
    pub fn store(&self) -> &Path {
        self.database.name()
    }

    /// Returns the failure of an answer that lacks what it must have.
    pub fn malformed(&self) -> Failure {
        self.database.target.about().malformed("a result lacks a row")
    }

    fn note(&mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        done.inspect_err(|failure| {
            self.failed.get_or_insert_with(|| failure.clone());
        })
    }
}
