//! `grantd man`: the manual pages, from the same words as the help.

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::{Cli, CliError, print_bytes};

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The command, as in `client add` [default: the program as a whole].
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Gives the commands below it their full names.
    program.build();
    let found =
        args.command.iter().try_fold(&program, |command, name| command.find_subcommand(name));
    let Some(command) = found else {
        let problem = format!("there is no command '{}'", args.command.join(" "));
        program.error(ErrorKind::InvalidSubcommand, problem).exit()
    };
    print_bytes(&page(command.clone())?)
}

/// In roff, as `man` reads it.
fn page(command: Command) -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    Man::new(command)
        .source(concat!("grantd ", env!("CARGO_PKG_VERSION")))
        .manual("grantd")
        .render(&mut page)
        .map_err(|error| CliError(format!("the page cannot be made: {error}")))?;
    Ok(page)
}
