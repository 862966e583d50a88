//! Reads a secret from a terminal without echo.

use std::io::{self, BufRead, StdinLock, Write};

/// Prompts on standard error, since standard output is for the result, and reads one line.
pub(super) fn ask(input: &mut StdinLock<'_>, prompt: &str, line: &mut String) -> io::Result<()> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{prompt}")?;
    // Longer than any secret: reallocating would leave a copy in memory.
    line.reserve(4096);
    let read = input.read_line(line);
    drop(hidden);
    // The typed line break was not echoed either.
    writeln!(io::stderr())?;
    read.map(drop)
}

/// Turns off the terminal's echo until it is dropped.
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
        // Discard what was typed before: it was echoed.
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
            // Fails only if the terminal has gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}
