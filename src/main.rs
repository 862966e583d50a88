//! The `grantd` program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    grantd::run_program()
}
