//! One connection to the database.
//!
//! A connection belongs to one thread, which waits for its answers, so there is no pool: a server
//! has one connection for each of its threads that need one, and a command has one. The statements
//! are unnamed and set nothing in the session, so a PgBouncer in transaction mode may stand between.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
pub use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::clock::Clock;
use crate::config::StoreSettings;
use crate::fault::Fault;
use crate::store::postgres::dial::{Connection, Target};
use crate::store::postgres::failure::{Failure, FailureKind};
pub use crate::store::postgres::row::Row;
use crate::store::postgres::row::first;
use crate::store::postgres::timelines::{Timeline, Timelines};

/// One connection to the database, which is made when it is needed, and anew when it was lost.
pub struct Database {
    target: Target,
    clock: Clock,
    /// `None` only while the value is dropped.
    runtime: Option<Runtime>,
    connection: Option<Connection>,
    /// After an attempt to connect has failed: its failure, until when it is the answer to every
    /// statement, and the next pause.
    pause: Option<(Failure, Instant, Duration)>,
}

/// A parameter of a statement, and its type.
pub type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// The most time that a statement may take that a request waits for.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// The most time until the next row of a long result that a server reads. A server that has a snapshot
/// starts from it then.
pub(super) const ROW_LIMIT: Duration = Duration::from_secs(5);
/// The most time that a statement of a command may take, or the next row of a long result.
pub const BULK_LIMIT: Duration = Duration::from_secs(60);

impl Database {
    /// Prepares a connection to the database of `settings`, but does not connect yet.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `settings` has no URL or no certificate authorities can be read.
    pub fn new(settings: &StoreSettings, clock: &Clock) -> Result<Self, Fault> {
        let target = Target::of(settings)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Fault::cannot("connected to", &target.name, &error))?;
        Ok(Self {
            target,
            clock: clock.clone(),
            runtime: Some(runtime),
            connection: None,
            pause: None,
        })
    }

    /// Uses no database of a lower timeline than the highest one in `timelines`.
    pub(super) fn with_timelines(mut self, timelines: &Arc<Timelines>) -> Self {
        self.target.timelines = Some(Arc::clone(timelines));
        self
    }

    /// The highest timelines that were seen.
    pub(super) fn timelines(&self) -> Vec<Timeline> {
        self.target.timelines.as_ref().map_or_else(Vec::new, |timelines| timelines.seen())
    }

    /// Checks the epoch in an answer: behind a pooler, another database may have given it than the
    /// one that the connection was made to.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if a higher timeline of the same system was seen. The next statement is then
    /// run on a new connection.
    pub(super) fn admit(&mut self, epoch: &str) -> Result<(), Failure> {
        let about = self.target.about();
        let timeline = Timeline::of_epoch(epoch);
        let timeline = timeline.ok_or_else(|| about.malformed("its epoch"))?;
        let admitted = self.target.admit(&timeline, &about);
        admitted.inspect_err(|_| self.drop_connection())
    }

    /// Connects to the database of `settings`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the settings are faulty or the database cannot be reached.
    pub fn connect(settings: &StoreSettings, clock: &Clock) -> Result<Self, Vec<Fault>> {
        let mut database = Self::new(settings, clock)?;
        database.connected(None)?;
        Ok(database)
    }

    /// Connects within `limit`, however many hosts there are.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the database cannot be reached.
    pub fn connect_within(&mut self, limit: Duration) -> Result<(), Failure> {
        self.connected(Some(limit))
    }

    /// The name of the store: its URL without the password.
    pub fn name(&self) -> &Path {
        &self.target.name
    }

    /// The role that the connection has.
    pub fn user(&self) -> &str {
        &self.target.user
    }

    /// Runs one statement outside a transaction, within `limit`. Returns its rows, which have
    /// [`MAX_ANSWER`] bytes at most; [`Self::for_each`] reads longer results.
    ///
    /// # Errors
    ///
    /// The [`Failure`]. After any failure but one of the statement, the next statement is run on a
    /// new connection.
    pub fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, Failure> {
        self.connected(None)?;
        self.rows(sql, parameters, limit)
    }

    /// Runs one statement as [`Self::query`] does, within [`REQUEST_LIMIT`]. Returns the first value of
    /// the first row; `None` if there is no row.
    pub(super) fn value<T: for<'r> FromSql<'r>>(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<T>, Failure> {
        first(&self.query(sql, parameters, REQUEST_LIMIT)?)
    }

    /// Runs one statement outside a transaction, and passes each row to `each` as it arrives. Each
    /// row must arrive within `limit`. The result has a bounded length, which a store of a million
    /// clients and five million revocations does not reach.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the statement or of `each`.
    pub fn for_each(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
        mut each: impl FnMut(Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.connected(None)?;
        self.run(sql, parameters, limit, LONG, &mut each)
    }

    /// Runs `work` in a transaction. The transaction is committed if `work` returns `Ok` and none
    /// of its statements has failed, and rolled back otherwise.
    ///
    /// # Errors
    ///
    /// The error of `work`, or the [`Failure`] of a statement. If the kind is
    /// [`FailureKind::Away`], it is not known whether the transaction was committed.
    pub fn transaction<T, E: From<Failure>>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.in_transaction("begin", limit, work)
    }

    /// Runs `work` in a transaction that only reads, and sees the database as it was at its first
    /// statement.
    ///
    /// # Errors
    ///
    /// As [`Self::transaction`].
    pub fn reading<T, E: From<Failure>>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.in_transaction("begin isolation level repeatable read read only", limit, work)
    }

    fn in_transaction<T, E: From<Failure>>(
        &mut self,
        begin: &str,
        limit: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.connected(None)?;
        self.run_script(begin, limit)?;
        let mut transaction = Transaction { database: self, limit, failed: None };
        let done = work(&mut transaction);
        let failed = transaction.failed.take();
        match (done, failed) {
            (Ok(done), None) => {
                self.run_script("commit", limit)?;
                Ok(done)
            }
            (done, failed) => {
                // If this fails, the connection is dropped, which rolls back as well.
                if self.connection.is_some() && self.run_script("rollback", limit).is_err() {
                    self.drop_connection();
                }
                Err(match (done, failed) {
                    (Err(error), _) => error,
                    (Ok(_), failed) => E::from(failed.unwrap_or_else(|| self.lost())),
                })
            }
        }
    }

    /// Makes sure that there is a connection, within `limit` if there is one.
    fn connected(&mut self, limit: Option<Duration>) -> Result<(), Failure> {
        if self.is_alive() {
            return Ok(());
        }
        self.drop_connection();
        let now = self.clock.instant();
        let mut pause = SHORTEST_PAUSE;
        if let Some((failure, until, next)) = &self.pause {
            if now < *until {
                return Err(failure.clone());
            }
            pause = *next;
        }
        let target = &self.target;
        let connected = self.wait(async {
            let Some(limit) = limit else { return target.connect().await };
            let connected = timeout(limit, target.connect()).await;
            connected.unwrap_or_else(|_| Err(target.about().too_slow(limit)))
        });
        match connected {
            Ok(connection) => {
                self.connection = Some(connection);
                self.pause = None;
                Ok(())
            }
            Err(failure) => {
                let until = self.clock.instant() + pause;
                self.pause = Some((failure.clone(), until, (pause * 2).min(LONGEST_PAUSE)));
                Err(failure)
            }
        }
    }

    /// Runs `work` on this thread until it ends. A panic, which a malformed answer may cause in the
    /// client library, is a failure.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let about = self.target.about();
        let Some(runtime) = &self.runtime else { return Err(about.away("is no longer used")) };
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)))
            .unwrap_or_else(|_| Err(about.malformed("an answer that cannot be read")))
    }

    /// Whether there is a connection that the server has not closed.
    fn is_alive(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        // The task of the connection runs only while this thread waits for an answer. It must run
        // now to notice that the server has closed the connection.
        let ran = self.wait(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        ran.is_ok() && !connection.client.is_closed() && self.target.is_current(connection)
    }

    /// Runs a statement on the connection that there is, and returns its rows.
    fn rows(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        self.run(sql, parameters, limit, SHORT, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs a statement on the connection that there is.
    fn run(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
        most: Most,
        each: &mut dyn FnMut(Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(connection) = &self.connection else {
            return Err(self.lost());
        };
        connection.allowance.store(most.bytes, Ordering::Relaxed);
        let about = self.target.about();
        let store = &self.target.name;
        // A failure of `each` leaves the rest of the result unread, so the connection is dropped.
        let stopped = Cell::new(false);
        let all = limit * ROWS_OF_LIMIT;
        let read = async {
            let of = |error: tokio_postgres::Error| connection.failure(&error, &about);
            let late = |_| about.too_slow(limit);
            let parameters = parameters.iter().map(|(value, of)| (*value, of.clone()));
            let rows = timeout(limit, connection.client.query_typed_raw(sql, parameters));
            let mut rows = pin!(rows.await.map_err(late)?.map_err(of)?);
            let mut left = most.rows;
            while let Some(row) =
                timeout(limit, rows.try_next()).await.map_err(late)?.map_err(of)?
            {
                left = left
                    .checked_sub(1)
                    .ok_or_else(|| about.malformed(&format!("more than {} rows", most.rows)))?;
                each(Row { row, store: Arc::clone(store) }).inspect_err(|_| stopped.set(true))?;
            }
            Ok(())
        };
        let result = self
            .wait(async { timeout(all, read).await.unwrap_or_else(|_| Err(about.too_slow(all))) });
        self.keep_if_sound(result, stopped.get())
    }

    /// Runs statements without parameters, separated by semicolons.
    fn run_script(&mut self, sql: &str, limit: Duration) -> Result<(), Failure> {
        let Some(connection) = &self.connection else {
            return Err(self.lost());
        };
        connection.allowance.store(MAX_ANSWER, Ordering::Relaxed);
        let about = self.target.about();
        let result = self.wait(async {
            match timeout(limit, connection.client.batch_execute(sql)).await {
                Ok(done) => done.map_err(|error| connection.failure(&error, &about)),
                Err(_) => Err(about.too_slow(limit)),
            }
        });
        self.keep_if_sound(result, false)
    }

    /// Drops the connection unless it can be used for the next statement.
    fn keep_if_sound<T>(
        &mut self,
        result: Result<T, Failure>,
        is_unread: bool,
    ) -> Result<T, Failure> {
        let is_unsound = |failure: &Failure| failure.kind != FailureKind::Refused;
        if is_unread || result.as_ref().is_err_and(is_unsound) {
            self.drop_connection();
        }
        result
    }

    fn lost(&self) -> Failure {
        self.target.about().away("the connection was lost in a transaction: try again")
    }

    /// Ends the connection, if there is one.
    fn drop_connection(&mut self) {
        if let Some(Connection { client, task, .. }) = self.connection.take()
            && let Some(runtime) = &self.runtime
        {
            drop(client);
            // Without its client, the task ends the connection and itself.
            let abort = task.abort_handle();
            let ended = async { timeout(LONGEST_END, task).await.is_ok() };
            if !catch_unwind(AssertUnwindSafe(|| runtime.block_on(ended))).unwrap_or(false) {
                abort.abort();
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.drop_connection();
        if let Some(runtime) = self.runtime.take() {
            // A look-up of a host's name may still run.
            runtime.shutdown_background();
        }
    }
}

/// A transaction, which ends with the function that it was passed to.
pub struct Transaction<'d> {
    database: &'d mut Database,
    limit: Duration,
    /// The first failure of a statement. PostgreSQL then refuses all further ones.
    failed: Option<Failure>,
}

impl Transaction<'_> {
    /// Runs one statement and returns its rows, as [`Database::query`] does.
    ///
    /// # Errors
    ///
    /// The [`Failure`]. The transaction will be rolled back.
    pub fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        let done = self.database.rows(sql, parameters, self.limit);
        self.note(done)
    }

    /// Runs one statement, and returns the first value of the first row; `None` if there is no row.
    pub(super) fn value<T: for<'r> FromSql<'r>>(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<T>, Failure> {
        first(&self.query(sql, parameters)?)
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
    pub(super) fn run_script(&mut self, sql: &str) -> Result<(), Failure> {
        let done = self.database.run_script(sql, self.limit);
        self.note(done)
    }

    /// Whether the first failure of a statement was a time limit of the role.
    pub(super) fn has_timed_out(&self) -> bool {
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

    fn note<T>(&mut self, done: Result<T, Failure>) -> Result<T, Failure> {
        done.inspect_err(|failure| {
            self.failed.get_or_insert_with(|| failure.clone());
        })
    }
}

/// The greatest length of a result.
#[derive(Clone, Copy)]
struct Most {
    bytes: u64,
    rows: u64,
}

/// The most bytes of the answer to a statement whose rows are returned together.
pub const MAX_ANSWER: u64 = 64 << 20;
const SHORT: Most = Most { bytes: MAX_ANSWER, rows: u64::MAX };
/// A server that is not the store could otherwise fill the memory.
const LONG: Most = Most { bytes: 8 << 30, rows: 6_000_000 };
/// All rows must arrive within so many times the limit of the next row.
const ROWS_OF_LIMIT: u32 = 40;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The time in which a connection must end that is no longer used.
const LONGEST_END: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
