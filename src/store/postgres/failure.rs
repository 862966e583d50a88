//! The failures of the database, each with its remedy.
//!
//! The texts are shown to operators. They contain no password and no row: the detail of an error,
//! in which PostgreSQL quotes rows, is not passed on. Text of the server may be anything, so it is
//! shortened and has no control characters.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use crate::fault::Fault;

/// Why a statement or a connection has failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind, by which a caller decides how to go on.
    pub kind: FailureKind,
    has_timed_out: bool,
    fault: Box<Fault>,
}

/// The kinds of failures, by what a caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The database cannot be reached, is starting or stopping, takes too long, or is a standby.
    /// Later it may answer. It is not known whether the last statement took effect.
    Away,
    /// The database answers, and does not let this program in, has another schema, or refuses the
    /// statement, which had no effect.
    Refused,
    /// The answer is not one that PostgreSQL gives.
    Malformed,
}

impl Failure {
    /// Returns a failure of the store with this name.
    pub fn new(kind: FailureKind, store: &Path, problem: impl Into<String>) -> Self {
        Self { kind, has_timed_out: false, fault: Box::new(Fault::new(store, problem)) }
    }

    /// The text: what happened, and what to do.
    pub fn problem(&self) -> &str {
        &self.fault.problem
    }

    /// Whether the database gave a statement up at a time limit of the role, such as `lock_timeout`. The
    /// statement had no effect, and may be tried again.
    pub fn has_timed_out(&self) -> bool {
        self.has_timed_out
    }

    /// Returns the failure of a connection to `store`. `user` and `database` are what the
    /// connection asked for.
    pub(super) fn of(error: &tokio_postgres::Error, about: &About<'_>) -> Self {
        let source = std::error::Error::source(error);
        if let Some(error) = error.as_db_error() {
            let has_timed_out =
                [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(error.code());
            return Self { has_timed_out, ..Self::of_server(error, about) };
        }
        let text = clean(&match source {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        if error.is_closed() || text.ends_with(CUT_OFF) || text.contains(NO_END_OF_TLS) {
            return about.away(CLOSED);
        }
        if text.ends_with("password missing") {
            return about.refused(
                "asks for a password, and none is set: put it into GRANTD_STORE_URL, store.url in \
                 the configuration file, PGPASSWORD, or a file that passfile=… in the URL names",
            );
        }
        if text.starts_with("authentication error") {
            return about.refused(&format!(
                "cannot prove that it is the database of this user, or asks for an unknown kind of \
                 proof ({text}): check the password, and use scram-sha-256 in its pg_hba.conf"
            ));
        }
        match source.and_then(|error| error.downcast_ref::<io::Error>()) {
            // A message ends before its parts do.
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => about.malformed(&text),
            Some(error) => Self::of_io(error, about),
            None => about.malformed(&text),
        }
    }

    /// Returns the failure of a read or write.
    pub(super) fn of_io(error: &io::Error, about: &About<'_>) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, InvalidInput,
            UnexpectedEof,
        };
        match error.kind() {
            InvalidData | InvalidInput => about.malformed(&clean(&error.to_string())),
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => about.away(CLOSED),
            _ => about.away(&format!(
                "does not answer: {}: check that it runs, and the network between",
                clean(&error.to_string())
            )),
        }
    }

    fn of_server(error: &DbError, about: &About<'_>) -> Self {
        let (code, said) = (error.code(), clean(error.message()));
        let About { user, database, .. } = about;
        let class = code.code().get(..2).unwrap_or_default();
        match *code {
            SqlState::INVALID_PASSWORD => about.refused(&format!(
                "refuses the password of the role {user} ({said}): correct it in GRANTD_STORE_URL, \
                 store.url, PGPASSWORD or the passfile, or set it there with ALTER ROLE"
            )),
            _ if class == "28" => about.refused(&format!(
                "does not let the role {user} in ({said}): create the role, or allow it in the \
                 database's pg_hba.conf"
            )),
            SqlState::UNDEFINED_DATABASE => about.refused(&format!(
                "has no database {database}: correct its name in the URL, or create it with \
                 CREATE DATABASE"
            )),
            SqlState::UNDEFINED_TABLE
            | SqlState::INVALID_SCHEMA_NAME
            | SqlState::UNDEFINED_COLUMN => about.refused(&format!(
                "lacks a part of the schema grantd ({said}): run `grantd store migrate` with the \
                 URL of the owner"
            )),
            SqlState::INSUFFICIENT_PRIVILEGE => about.refused(&format!(
                "does not give the role {user} a right that it needs ({said}): run `grantd store \
                 migrate --node-role {user}` with the URL of the owner if the role is that of a \
                 server; every other command needs the URL of the owner"
            )),
            SqlState::READ_ONLY_SQL_TRANSACTION => about.away(READ_ONLY),
            _ if class == "53" => about.away(&format!(
                "has no more room ({said}): see max_connections, its memory and its disk"
            )),
            SqlState::QUERY_CANCELED => about.away(&format!(
                "has given a statement up ({said}): see what it waits for in pg_stat_activity, and \
                 the statement_timeout of the role {user}"
            )),
            _ if ["08", "57", "58", "XX"].contains(&class) => {
                about.away(&format!("is not available ({said}): see the log of the database"))
            }
            _ => {
                let code = code.code();
                let is_code = code.len() == SQLSTATE_BYTES;
                let kind = if is_code { FailureKind::Refused } else { FailureKind::Malformed };
                let problem = format!("refuses a statement: {said} (SQLSTATE {})", clean(code));
                Self::new(kind, about.store, problem)
            }
        }
    }
}

/// The connection that a failure is about.
pub(super) struct About<'a> {
    /// The name of the store: its URL without the password.
    pub(super) store: &'a Path,
    /// The host that was reached, if there are several.
    pub(super) host: Option<String>,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
}

impl About<'_> {
    pub(super) fn away(&self, problem: &str) -> Failure {
        self.failure(FailureKind::Away, problem)
    }

    /// The failure of a statement that has not ended within `limit`.
    pub(super) fn too_slow(&self, limit: Duration) -> Failure {
        self.away(&format!(
            "did not answer within {} s: see its load and its locks (pg_stat_activity)",
            limit.as_secs()
        ))
    }

    pub(super) fn refused(&self, problem: &str) -> Failure {
        self.failure(FailureKind::Refused, problem)
    }

    pub(super) fn malformed(&self, what: &str) -> Failure {
        let problem = format!(
            "answers as PostgreSQL does not ({what}): check the host and the port, and what stands \
             between"
        );
        self.failure(FailureKind::Malformed, &problem)
    }

    fn failure(&self, kind: FailureKind, problem: &str) -> Failure {
        match &self.host {
            Some(host) => Failure::new(kind, self.store, format!("{host}: {problem}")),
            None => Failure::new(kind, self.store, problem),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        *failure.fault
    }
}

impl From<Failure> for Vec<Fault> {
    fn from(failure: Failure) -> Self {
        vec![failure.into()]
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

/// Returns text of the server, shortened and without control characters.
pub(super) fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(printable).collect()
}

/// Returns `text` as a literal of SQL that has no control characters, for the advice in a fault.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\\', r"\\").replace('\'', "''");
    if !text.contains(|c: char| c.is_control() || c == '\\') {
        return format!("'{quoted}'");
    }
    let escape = |c: char| match c.is_control() {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    format!("E'{}'", quoted.chars().map(escape).collect::<String>())
}

const MAX_TEXT: usize = 300;
const SQLSTATE_BYTES: usize = 5;
/// The words of tokio for a connection that was closed in the middle of a message.
const CUT_OFF: &str = "bytes remaining on stream";
/// The words of rustls for a connection that was closed without the end of TLS.
const NO_END_OF_TLS: &str = "close_notify";
const CLOSED: &str = "has closed the connection: see whether it runs, and its log";
pub(super) const READ_ONLY: &str = "accepts no writes, as a standby does: list the hosts of all \
                                    servers in the URL, so that the primary is found";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_controls_no_terminal() {
        for (text, says) in [
            ("it's", "'it''s'"),
            (r"a\b'", r"E'a\\b'''"),
            ("k\n\u{1b}[\u{9b}", r"E'k\u000a\u001b[\u009b'"),
        ] {
            assert_eq!(literal(text), says);
        }
    }
}
