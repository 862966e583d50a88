//! Reads a secret from a terminal without echo.

use std::io::{self, BufRead, StdinLock, Write};

/// Prints `prompt` and reads one line. The prompt goes to standard error, because standard output
/// is for the result.
pub(super) fn ask(input: &mut StdinLock<'_>, prompt: &str, line: &mut String) -> io::Result<()> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{prompt}")?;
    // Reserve more than any secret needs: reallocating would leave a copy of the secret in memory.
    line.reserve(4096);
    let read = input.read_line(line);
    drop(hidden);
    // The terminal did not echo the line break that ended the input, so print a line break.
    writeln!(io::stderr())?;
    read.map(drop)
}

/// Keeps the terminal's echo turned off until this value is dropped.
struct Hidden {
    #[cfg(target_os = "linux")]
    before: rustix::termios::Termios,
}

impl Hidden {
    #[cfg(target_os = "linux")]
    fn begin() -> io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // Discard the input that was typed before this call, because the terminal has echoed it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }

    #[cfg(not(target_os = "linux"))]
    fn begin() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "echo cannot be turned off here: pipe the secret into standard input",
        ))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::termios::{OptionalActions, tcsetattr};
            // This fails only if the terminal no longer exists.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}
