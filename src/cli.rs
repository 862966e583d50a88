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
mod times;
mod token;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{
    Config, IssuerUrl, ListenAddr, Log, LogFormat, LogLevel, MAX_WORKERS, Settings, SignerChoice,
};
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
        let error = environment::named_by_variable(error, &mut program);
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

/// Flags win over `GRANTD_*` in the environment, which wins over the file, which wins over defaults.
#[derive(Args, Clone, Debug, Default)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
    /// Where to answer requests: host:port or unix:/path; may be repeated [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS", env = "GRANTD_LISTEN", value_delimiter = ',')]
    listen: Option<Vec<ListenAddr>>,
    /// Where operators ask for health and metrics [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS", env = "GRANTD_ADMIN_LISTEN")]
    admin_listen: Option<ListenAddr>,
    /// The file with the token by which other machines may ask there.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// The client registry [default: clients.json].
    #[arg(long, value_name = "FILE", env = "GRANTD_CLIENTS")]
    clients: Option<PathBuf>,
    /// The directory of signing keys; one is made at the first start [default: keys].
    #[arg(long, value_name = "DIRECTORY", env = "GRANTD_KEYS")]
    keys: Option<PathBuf>,
    /// The directory of what the server has to remember [default: state].
    #[arg(long, value_name = "DIRECTORY", env = "GRANTD_STATE")]
    state: Option<PathBuf>,
    /// The issuer's URL, as clients and verifiers see it [default: http:// and the first address].
    #[arg(long, value_name = "URL", env = "GRANTD_ISSUER")]
    issuer: Option<IssuerUrl>,
    /// Event-loop threads, and as many signing threads [default: one for each core].
    #[arg(long, value_name = "N", env = "GRANTD_WORKERS", value_parser = parse_workers)]
    workers: Option<usize>,
    /// What signs tokens [default: auto].
    #[arg(long, env = "GRANTD_SIGNER", ignore_case = true)]
    signer: Option<SignerChoice>,
    /// Serve the demo clients even where others can reach them.
    #[arg(long, value_name = "BOOL", env = "GRANTD_ALLOW_DEMO_CLIENTS", num_args = 0..=1,
          require_equals = true, default_missing_value = "true",
          value_parser = environment::parse_switch)]
    allow_demo_clients: Option<bool>,
    /// The shape of log lines [default: human on a terminal, json elsewhere].
    #[arg(long, env = "GRANTD_LOG_FORMAT", ignore_case = true)]
    log_format: Option<LogFormat>,
    /// The least weight of a log line; every request is an info line [default: info].
    #[arg(long, env = "GRANTD_LOG_LEVEL", ignore_case = true)]
    log_level: Option<LogLevel>,
}

impl ServeArgs {
    /// Flags, environment, file and defaults in one.
    fn resolve(self) -> Result<Config, CliError> {
        let file = match &self.config {
            Some(file) => Settings::read(file)?,
            None => Settings::default(),
        };
        let file_log = file.log.unwrap_or_default();
        let flags = Settings {
            listen: self.listen,
            admin_listen: self.admin_listen,
            socket_mode: from_environment("GRANTD_SOCKET_MODE")?,
            admin_token_file: self.admin_token_file,
            clients: self.clients,
            keys: self.keys,
            state: self.state,
            issuer: self.issuer,
            workers: self.workers,
            signer: self.signer,
            allow_demo_clients: self.allow_demo_clients,
            jwks_max_age: None,
            trusted_proxies: None,
            client_certificate: None,
            dpop_nonce: None,
            assertion_audience: None,
            routes: Vec::new(),
            limits: None,
            failures: None,
            audit: None,
            log: Some(Log {
                format: self.log_format.unwrap_or(file_log.format),
                level: self.log_level.unwrap_or(file_log.level),
            }),
        };
        flags.or(file).resolve().map_err(|error| match &self.config {
            Some(file) => CliError(format!("{}: {error}", file.display())),
            None => CliError(error.to_string()),
        })
    }
}

/// A setting that has a variable and no flag. An empty variable is an unset one.
fn from_environment<T>(variable: &str) -> Result<Option<T>, CliError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.to_string_lossy().parse();
    value.map(Some).map_err(|error| CliError(format!("{variable}: {error}")))
}

fn parse_workers(argument: &str) -> Result<usize, String> {
    let workers = argument.parse().ok().filter(|workers| (1..=MAX_WORKERS).contains(workers));
    let workers = workers.and_then(|workers| usize::try_from(workers).ok());
    workers.ok_or_else(|| format!("must be a number from 1 to {MAX_WORKERS}"))
}

/// What went wrong, where, and what to do; one line each.
struct CliError(String);

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
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
