//! Commands that run to their end.

use std::borrow::BorrowMut;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The exit code and the output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts that the command ended with this exit code, that its error contains all of `says`,
    /// and that its standard output is empty.
    #[track_caller]
    pub(crate) fn assert_error(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "");
        for part in says {
            assert!(self.stderr.contains(part), "{} does not say {part}", self.stderr);
        }
    }

    #[track_caller]
    pub(crate) fn assert_fine(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// Asserts success, and returns the JSON value that was printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.assert_fine()).expect("one JSON value")
    }

    /// Asserts success, and returns the JSON values that were printed, one on each line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.assert_fine().lines();
        lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

pub(crate) fn run(command: impl BorrowMut<Command>) -> Ended {
    run_with_input(command, "")
}

/// Runs `command` with `input` as its standard input.
pub(crate) fn run_with_input(mut command: impl BorrowMut<Command>, input: &str) -> Ended {
    let mut child = command
        .borrow_mut()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A command that fails early may not read its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Cargo, as a shell would start it. Cargo names the package under test in variables; build scripts that
/// watch these, such as ring's, would compile their crates again.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let is_of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()));
        if is_of_package {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// The Python interpreter with the libraries that `tests/run` installs.
pub(crate) fn python() -> PathBuf {
    installed("clients/bin/python")
}

/// A program that `tests/run` installs below `target`.
pub(crate) fn installed(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path);
    assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
    program
}

/// Runs `command`, asserts success, and returns its standard output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}
