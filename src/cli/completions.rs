//! `grantd completions`: prints a shell's completion script.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::cli::error::CliError;
use crate::cli::output::print_bytes;

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to print the script for.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut program: Command) -> Result<(), CliError> {
    // Generate into memory, so that `print_bytes` handles a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "grantd", &mut script);
    print_bytes(&script)
}
