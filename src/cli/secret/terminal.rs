//! A secret that is typed: the terminal does not show it.

use std::io::{self, BufRead, StdinLock, Write};

/// Asks for one line with `prompt`, on standard error: standard output is for what comes of it.
pub(super) fn ask(input: &mut StdinLock<'_>, prompt: &str, line: &mut String) -> io::Result<()> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{prompt}")?;
    // Long enough for any secret: growing would leave a copy of it in memory.
    line.reserve(4096);
    let read = input.read_line(line);
    drop(hidden);
    // The line break that was typed was not shown either.
    writeln!(io::stderr())?;
    read.map(drop)
}

/// A terminal that does not show what is typed, until this is dropped.
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
        // What was typed too early was shown, and is no part of it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }

    #[cfg(not(target_os = "linux"))]
    fn begin() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this terminal cannot hide it: pipe it into standard input",
        ))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::termios::{OptionalActions, tcsetattr};
            // A terminal that has gone shows nothing.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}
