//! `grantd completions`: what a shell completes of the command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, CliError, print_bytes};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell that reads it.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    // Into memory first: a pipe that ends early is an error like any other.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "grantd", &mut script);
    print_bytes(&script)
}
