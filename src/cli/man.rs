//! `grantd man`: prints manual pages, generated from the help texts.

use clap::error::ErrorKind;
use clap::{Args, Command};
use clap_mangen::Man;

use crate::cli::error::CliError;
use crate::cli::output::print_bytes;

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Command to describe, such as `client add` [default: grantd itself].
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(args: &ManArgs, program: Command) -> Result<(), CliError> {
    let mut program = program.disable_help_subcommand(true);
    // `build` sets the full names of the subcommands, such as `grantd client add`. The manual page
    // shows the full name.
    program.build();
    let found =
        args.command.iter().try_fold(&program, |command, name| command.find_subcommand(name));
    let Some(command) = found else {
        let problem = format!("there is no command '{}'", args.command.join(" "));
        program.error(ErrorKind::InvalidSubcommand, problem).exit()
    };
    let mut page = Vec::new();
    Man::new(command.clone())
        .source(concat!("grantd ", env!("CARGO_PKG_VERSION")))
        .manual("grantd")
        .render(&mut page)
        .map_err(|error| CliError(format!("the page cannot be generated: {error}")))?;
    print_bytes(&page)
}
