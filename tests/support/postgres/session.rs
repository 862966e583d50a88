//! A connection that stays open.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::{Postgres, QUIET, Role, client};

/// A `psql` of the owner. It is ended on drop, and what it has not committed is lost.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    pub(crate) fn open(cluster: &Postgres) -> Self {
        let mut psql = client("psql");
        psql.args(QUIET).arg(cluster.url(Role::Owner));
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// Runs statements, each in a transaction of its own if none is open, and waits for their end.
    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) {
        const END: &str = "the end\n";
        writeln!(self.input, "{sql};\nselect '{}';", END.trim_end()).unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        while line != END {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "a statement failed: {sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
