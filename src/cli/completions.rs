//! `grantd completions`: prints a shell's completion script.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, CliError, print_bytes};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to print the script for.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    // Generate into memory, so that `print_bytes` handles a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "grantd", &mut script);
    print_bytes(&script)
}
