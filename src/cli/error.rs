//! The error of a command.

use std::io::{self, Write};

use crate::config::ConfigError;
use crate::fault::Fault;

/// Error messages, one per line. Each says what happened, where, and what to do.
pub(super) struct CliError(pub(super) String);

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Vec<Fault>> for CliError {
    fn from(faults: Vec<Fault>) -> Self {
        Self(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

/// Writes `text` to standard error, with `grantd: ` before each line.
pub(super) fn complain(text: &str) {
    for line in text.lines() {
        // Nothing can be done if standard error is closed.
        let _ = writeln!(io::stderr(), "grantd: {line}");
    }
}
