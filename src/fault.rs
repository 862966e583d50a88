//! What is wrong with a file that an operator wrote: where it is, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// One fault in a file: `clients.json:12: clients[0].token_lifetime: must be …`.
///
/// The text never holds a value from the file, since the value may be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file or directory at fault.
    pub file: PathBuf,
    /// Line in it, counted from 1, where one is known.
    pub line: Option<usize>,
    /// Path of the field, as in `clients[0].scopes`, where one is known.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, field: None, problem: problem.into() }
    }

    /// The same fault, on this line (counted from 1).
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// The same fault, in this field.
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Fault {}
