//! The `grantd` program, for valgrind: built with features that replace what valgrind does not know.

use std::process::ExitCode;

fn main() -> ExitCode {
    grantd::run_program()
}
