//! Faults in files that an operator wrote. A fault names the place, the problem and the remedy.

mod position;
pub mod text;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use crate::fault::position::Position;

/// One fault in a file: `clients.json:12:23: clients[0].token_lifetime: must be …`.
///
/// The text never quotes a value from the file, because an operator may have written a secret in
/// the wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file or directory.
    pub file: PathBuf,
    /// The line, counted from 1, if known.
    pub line: Option<usize>,
    /// The column: the number of the character in the line, counted from 1, if known.
    pub column: Option<usize>,
    /// The path of the field, as in `clients[0].scopes`, if known.
    pub field: Option<String>,
    /// The problem and its remedy.
    pub problem: String,
}

impl Fault {
    /// Returns a fault that concerns the file as a whole, with no line or field.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { file: file.to_owned(), line: None, column: None, field: None, problem }
    }

    /// Returns the fault of `setting`, which names the file of this fault.
    pub fn of_setting(self, setting: &str) -> Self {
        Self::new(Path::new(setting), self.to_string())
    }

    /// Returns the fault for an operating system error. `done` is the operation that failed, as a
    /// past participle: "read", "written" or "locked".
    pub fn cannot(done: &str, file: &Path, error: &io::Error) -> Self {
        let advice = advice(error).map(|advice| format!(": {advice}")).unwrap_or_default();
        Self::new(file, format!("cannot be {done}: {error}{advice}"))
    }

    /// Sets the line, counted from 1.
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// Sets the line and column.
    pub fn at(mut self, Position { line, column }: Position) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    /// Sets the path of the field.
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

/// So that `?` turns one fault into the list of all faults.
impl From<Fault> for Vec<Fault> {
    fn from(fault: Fault) -> Self {
        vec![fault]
    }
}

/// Returns the advice for an operating system error; `None` if this kind of error has no advice.
fn advice(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{
        NotFound, PermissionDenied, ReadOnlyFilesystem, ResourceBusy, StorageFull,
    };
    match error.kind() {
        NotFound => {
            Some("check the path; a relative path is resolved against the working directory")
        }
        PermissionDenied => Some(
            "this user has no permission: run the command as the user of the server, or change \
             the owner or mode of the file and of the directories above it",
        ),
        ResourceBusy => Some(
            "a file that is itself a mount point, such as a bind mount of a single file, cannot \
             be replaced: mount the directory that holds it instead",
        ),
        ReadOnlyFilesystem => Some("it is on a read-only mount: mount it writable, or use a copy"),
        StorageFull => Some("the file system is full: free some space and try again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_system_error_has_its_advice() {
        for (kind, says) in [
            (io::ErrorKind::NotFound, "working directory"),
            (io::ErrorKind::PermissionDenied, "user of the server"),
            (io::ErrorKind::ResourceBusy, "mount the directory"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only mount"),
            (io::ErrorKind::StorageFull, "free some space"),
        ] {
            let fault = Fault::cannot("written", Path::new("a"), &kind.into()).to_string();
            assert!(fault.starts_with("a: cannot be written: ") && fault.contains(says), "{fault}");
        }
        let other = Fault::cannot("read", Path::new("a"), &io::ErrorKind::TimedOut.into());
        assert_eq!(other.to_string(), "a: cannot be read: timed out");
    }
}
