//! The command line: one file for each command.
//!
//! Exit codes: 0 for success, 1 for an error, 2 for wrong usage. An error on standard error says
//! what happened, where, and what to do. A secret is never a command-line argument, because other
//! users of the machine can read the arguments of a process.

mod addresses;
mod check;
mod client;
#[cfg(feature = "opentelemetry")]
mod collector;
mod completions;
mod environment;
mod error;
mod health;
mod http_client;
mod key;
mod live;
mod man;
mod no_token;
mod output;
#[cfg(unix)]
mod process;
mod reload;
mod secret;
mod serve;
mod service_manager;
mod settings;
#[cfg(feature = "postgres")]
mod store;
mod times;
mod token;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::error::{CliError, complain};
use crate::cli::output::written;
use crate::cli::settings::{ServeArgs, check_store_flag};

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    #[cfg(unix)]
    if let Err(error) = process::protect_memory() {
        complain(&format!(
            "core dumps cannot be turned off ({error}): a crash could write keys to a file"
        ));
    }
    let Cli { command, serve } = match read_command_line() {
        Ok(read) => read,
        Err(code) => return code,
    };
    let done = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Client(command) => client::run(command),
        Command::Key(command) => key::run(command),
        #[cfg(feature = "postgres")]
        Command::Store(command) => store::run(command),
        Command::Check(args) => check::run(args),
        Command::Health(args) => health::run(args),
        Command::Token(args) => token::run(&args),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    };
    exit_code(&done)
}

/// Reads the arguments and the environment. `Err` holds the exit code if there is no command to
/// run: help or the version was printed, or the usage was wrong.
fn read_command_line() -> Result<Cli, ExitCode> {
    let mut program = environment::without_empty_variables(Cli::command());
    let read = program
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (read, matches) = read.map_err(|error| {
        let is_shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        match error.print() {
            // Help and version were requested, so failing to print them is an error.
            Err(error) if is_shown => exit_code(&written(Err(error))),
            _ if is_shown => ExitCode::SUCCESS,
            _ => ExitCode::from(USAGE),
        }
    })?;
    let matches = of_command(&matches);
    let store_url = matches.try_get_one::<String>("store_url").ok().flatten();
    if let Some(Err(problem)) = store_url.map(|url| check_store_flag(url)) {
        complain(&problem.to_string());
        return Err(ExitCode::from(USAGE));
    }
    Ok(read)
}

/// Returns the matches of the innermost subcommand.
fn of_command(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| of_command(matches))
}

const USAGE: u8 = 2;

fn exit_code(done: &Result<(), CliError>) -> ExitCode {
    let Err(CliError(problem)) = done else { return ExitCode::SUCCESS };
    complain(problem);
    ExitCode::FAILURE
}

/// A small, very fast OAuth 2.0 token server.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. `grantd` without a command does the same.
    ///
    /// If several sources set the same setting, the first of these sources applies: flag,
    /// environment variable, configuration file, default.
    Serve(ServeArgs),
    /// Register, change and show clients.
    ///
    /// These commands edit the client registry, a JSON file. A running server notices the change
    /// within seconds.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Generate, rotate, retire and show signing keys.
    ///
    /// A key is first published in the key set, then signs. When a later key signs, the old key
    /// stays in the key set until all tokens that it signed have expired. A running server notices
    /// changed keys within seconds.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Prepare, fill and show the store in PostgreSQL, which several servers share.
    #[cfg(feature = "postgres")]
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Check the configuration and all files that `serve` would load.
    ///
    /// Takes the flags of `serve`. Prints warnings and notes, then `ok`. If `serve` would refuse to
    /// start, `check` lists the faults and exits with 1. `check` tries to bind the addresses, but
    /// serves nothing and leaves no file behind. An address that a running server uses is not a
    /// fault.
    Check(ServeArgs),
    /// Check whether a running server is alive. Exits with 0 if the server is alive, otherwise with
    /// 1.
    Health(health::HealthArgs),
    /// Request a token from a running server, as a client does.
    ///
    /// The client secret is read from GRANTD_CLIENT_SECRET or, if that variable is not set, from
    /// standard input. On a terminal, the command prompts for the secret without echo.
    Token(token::TokenArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Print a manual page in roff, which `man` reads.
    Man(man::ManArgs),
}
