//! The command line: one file for each command.
//!
//! Exit codes: 0 fine; 1 an error on standard error that says what, where and what to do; 2 usage.
//! A secret is never an argument: other users of the machine can read those.

mod addresses;
mod check;
mod client;
#[cfg(feature = "opentelemetry")]
mod collector;
mod completions;
mod environment;
mod health;
mod http_client;
mod key;
mod live;
mod man;
mod no_token;
mod reload;
mod secret;
mod serve;
mod service_manager;
mod settings;
mod times;
mod token;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::settings::ServeArgs;
use crate::config::ConfigError;
use crate::fault::Fault;

/// Runs the program with the process's arguments and says how it ended.
pub fn run() -> ExitCode {
    let Cli { command, serve } = match read_command_line() {
        Ok(read) => read,
        Err(code) => return code,
    };
    let done = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Client(command) => client::run(command),
        Command::Key(command) => key::run(command),
        Command::Check(args) => check::run(args),
        Command::Health(args) => health::run(args),
        Command::Token(args) => token::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    exit_code(&done)
}

/// The process's arguments and environment, or the exit code if no command is to be run.
fn read_command_line() -> Result<Cli, ExitCode> {
    let mut program = environment::without_empty_variables(Cli::command());
    let read = program
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Cli::from_arg_matches(&matches));
    read.map_err(|error| {
        let is_shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        match error.print() {
            // What was asked for has to arrive.
            Err(error) if is_shown => exit_code(&written(Err(error))),
            _ if is_shown => ExitCode::SUCCESS,
            _ => ExitCode::from(USAGE),
        }
    })
}

const USAGE: u8 = 2;

fn exit_code(done: &Result<(), CliError>) -> ExitCode {
    let Err(CliError(problem)) = done else { return ExitCode::SUCCESS };
    complain(problem);
    ExitCode::FAILURE
}

/// Tells on standard error what is wrong.
fn complain(text: &str) {
    for line in text.lines() {
        // Without standard error there is no place left to tell it.
        let _ = writeln!(io::stderr(), "grantd: {line}");
    }
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
    /// Run the server (what `grantd` alone does too).
    Serve(ServeArgs),
    /// Register clients and show them.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Make signing keys, take them out of use and show where they stand.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Validate everything that `serve` would load.
    Check(ServeArgs),
    /// Ask a running server whether it is alive: exit 0 if it is, 1 if not.
    Health(health::HealthArgs),
    /// Ask a running server for a token, as a client does.
    Token(token::TokenArgs),
    /// Print what a shell completes of this command line.
    Completions(completions::CompletionsArgs),
    /// Print a manual page.
    Man(man::ManArgs),
}

/// What went wrong, where, and what to do; one line each.
struct CliError(String);

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

impl From<Vec<Fault>> for CliError {
    fn from(faults: Vec<Fault>) -> Self {
        Self(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

/// Writes one line of output; if it cannot be written, that is an error.
fn print(line: impl fmt::Display) -> Result<(), CliError> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Writes what has its line breaks already.
fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    written(write_out(bytes))
}

/// Writes all of it to standard output, past every buffer of this process.
fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(bytes).and_then(|()| output.flush())
}

/// The result of an attempt to write to standard output.
fn written(attempt: io::Result<()>) -> Result<(), CliError> {
    match attempt {
        // `head` has seen enough, which is no error: end as quietly as other programs do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        attempt => attempt.map_err(|error| CliError(not_written(&error))),
    }
}

fn not_written(error: &io::Error) -> String {
    format!("standard output cannot be written: {error}")
}

/// Says what could not be done with `file`.
fn cannot(what: &str, file: &Path, error: &io::Error) -> CliError {
    Fault::cannot(what, file, error).into()
}
