//! Writes to standard output.

use std::fmt;
use std::io::{self, Write};

use crate::cli::error::CliError;

/// Prints `line` and a line break to standard output.
pub(super) fn print(line: impl fmt::Display) -> Result<(), CliError> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Prints bytes to standard output. Ends the process on a broken pipe.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    written(write_out(bytes))
}

/// Writes `bytes` to standard output and flushes it.
pub(super) fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(bytes).and_then(|()| output.flush())
}

/// Converts the result of a write to standard output. Ends the process on a broken pipe.
pub(super) fn written(attempt: io::Result<()>) -> Result<(), CliError> {
    match attempt {
        // The reader, such as `head`, has closed the pipe: end silently, as other programs do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        attempt => attempt.map_err(|error| CliError(not_written(&error))),
    }
}

pub(super) fn not_written(error: &io::Error) -> String {
    format!("cannot write to standard output: {error}")
}
