//! What is wrong with a file that an operator wrote: where it is, and what to do about it.

pub mod text;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use crate::fault::text::Position;

/// One fault in a file: `clients.json:12:23: clients[0].token_lifetime: must be …`.
///
/// The text never holds a value from the file, since the value may be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file or directory at fault.
    pub file: PathBuf,
    /// Line in it, counted from 1, where one is known.
    pub line: Option<usize>,
    /// Character in that line, counted from 1, where one is known.
    pub column: Option<usize>,
    /// Path of the field, as in `clients[0].scopes`, where one is known.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { file: file.to_owned(), line: None, column: None, field: None, problem }
    }

    /// The operating system does not let `file` be read, written, locked …: `done` is such a word.
    pub fn cannot(done: &str, file: &Path, error: &io::Error) -> Self {
        let advice = advice(error).map(|advice| format!(": {advice}")).unwrap_or_default();
        Self::new(file, format!("cannot be {done}: {error}{advice}"))
    }

    /// The same fault, on this line (counted from 1).
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// The same fault, at this place.
    pub fn at(mut self, Position { line, column }: Position) -> Self {
        self.line = Some(line);
        self.column = Some(column);
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
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Fault {}

/// Advice about an error of the operating system, as far as its kind tells.
fn advice(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{
        NotFound, PermissionDenied, ReadOnlyFilesystem, ResourceBusy, StorageFull,
    };
    match error.kind() {
        NotFound => Some(
            "check the path; one that does not begin with a slash starts at the working directory",
        ),
        PermissionDenied => Some(
            "this user may not: run the command as the user of the server, or change the owner or \
             mode of the file and of the directories above it",
        ),
        ResourceBusy => Some(
            "a file that is a mount of its own, as with a bind mount of a single file, cannot be \
             replaced: mount the directory that holds it instead",
        ),
        ReadOnlyFilesystem => Some("it is on a read-only mount: mount it writable, or name a copy"),
        StorageFull => Some("the file system is full: make room, and try again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_has_its_own_advice() {
        for (kind, says) in [
            (io::ErrorKind::NotFound, "working directory"),
            (io::ErrorKind::PermissionDenied, "user of the server"),
            (io::ErrorKind::ResourceBusy, "mount the directory"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only mount"),
            (io::ErrorKind::StorageFull, "make room"),
        ] {
            let fault = Fault::cannot("written", Path::new("a"), &kind.into()).to_string();
            assert!(fault.starts_with("a: cannot be written: ") && fault.contains(says), "{fault}");
        }
        let other = Fault::cannot("read", Path::new("a"), &io::ErrorKind::TimedOut.into());
        assert_eq!(other.to_string(), "a: cannot be read: timed out");
    }
}
