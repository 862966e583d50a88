//! The command line: one file for each command.
//!
//! Exit codes: 0 for success, 1 for an error, 2 for wrong usage. An error on standard error says
//! what happened, where, and what to do. Secrets are never arguments: other users of the machine
//! can read those.

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

/// Runs the program with the arguments of the process.
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

/// Reads arguments and environment. The error is the exit code if there is no command to run.
fn read_command_line() -> Result<Cli, ExitCode> {
    let mut program = environment::without_empty_variables(Cli::command());
    let read = program
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Cli::from_arg_matches(&matches));
    read.map_err(|error| {
        let error = environment::named_by_variable(error, &mut program);
        let is_shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        match error.print() {
            // Help and version were requested, so failing to print them is an error.
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

/// Writes `text` to standard error, each line after `grantd: `.
fn complain(text: &str) {
    for line in text.lines() {
        // Nothing can be done if standard error is closed.
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
    /// Run the server. `grantd` without a command does the same.
    ///
    /// A setting is taken from its flag, then from its environment variable, then from the
    /// configuration file, then from its default.
    Serve(ServeArgs),
    /// Register, change and show clients.
    ///
    /// These commands edit the client registry, a JSON file. A running server notices the change
    /// within seconds.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Generate, rotate, retire and show signing keys.
    ///
    /// A key is first published in the key set, then signs, then retires while its last tokens are
    /// valid, and is then gone. A running server notices changed keys within seconds.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check the configuration and all files that `serve` would load.
    ///
    /// Takes the flags of `serve`. Prints warnings and notes, then `ok`. If `serve` would refuse to
    /// start, exits with 1 and lists the faults instead. Tries to bind the addresses, but serves
    /// nothing and leaves no file behind.
    Check(ServeArgs),
    /// Check whether a running server is alive: exit 0 if it is, 1 if not.
    Health(health::HealthArgs),
    /// Request a token from a running server, as a client does.
    ///
    /// The client secret is read from GRANTD_CLIENT_SECRET or, if that is not set, from standard
    /// input. On a terminal, the command prompts for it without echo.
    Token(token::TokenArgs),
    /// Print a script that completes this command line in a shell.
    Completions(completions::CompletionsArgs),
    /// Print a manual page, in the format that `man` reads.
    Man(man::ManArgs),
}

/// The settings that have a flag. A flag takes precedence over the environment, the environment
/// over the file, and the file over defaults.
#[derive(Args, Clone, Debug, Default)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
    /// Address to serve clients on: host:port or unix:/path; may be repeated [default:
    /// 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS", env = "GRANTD_LISTEN", value_delimiter = ',')]
    listen: Option<Vec<ListenAddr>>,
    /// Address of the admin listener, which serves health and metrics [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS", env = "GRANTD_ADMIN_LISTEN")]
    admin_listen: Option<ListenAddr>,
    /// File with the admin token, by which other machines may use the admin listener.
    #[arg(long, value_name = "FILE", env = "GRANTD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Client registry [default: clients.json].
    #[arg(long, value_name = "FILE", env = "GRANTD_CLIENTS")]
    clients: Option<PathBuf>,
    /// Directory of signing keys; the first start generates one [default: keys].
    #[arg(long, value_name = "DIRECTORY", env = "GRANTD_KEYS")]
    keys: Option<PathBuf>,
    /// Directory for data that must survive a restart, such as revocations [default: state].
    #[arg(long, value_name = "DIRECTORY", env = "GRANTD_STATE")]
    state: Option<PathBuf>,
    /// Issuer URL, as clients and verifiers see it [default: http:// and the first TCP address].
    #[arg(long, value_name = "URL", env = "GRANTD_ISSUER")]
    issuer: Option<IssuerUrl>,
    /// Number of event loops, and of signing threads [default: the number of cores].
    #[arg(long, value_name = "N", env = "GRANTD_WORKERS", value_parser = parse_workers)]
    workers: Option<usize>,
    /// Implementation that signs tokens [default: auto].
    #[arg(long, env = "GRANTD_SIGNER", ignore_case = true)]
    signer: Option<SignerChoice>,
    /// Start with demo clients, whose secrets are public, even if other machines can reach the
    /// server.
    #[arg(long, value_name = "BOOL", env = "GRANTD_ALLOW_DEMO_CLIENTS", num_args = 0..=1,
          require_equals = true, default_missing_value = "true",
          value_parser = environment::parse_switch)]
    allow_demo_clients: Option<bool>,
    /// Format of the log [default: human on a terminal, json elsewhere].
    #[arg(long, env = "GRANTD_LOG_FORMAT", ignore_case = true)]
    log_format: Option<LogFormat>,
    /// Least severe level to log; requests are logged at info [default: info].
    #[arg(long, env = "GRANTD_LOG_LEVEL", ignore_case = true)]
    log_level: Option<LogLevel>,
}

impl ServeArgs {
    /// Merges flags, environment, file and defaults.
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

/// Reads a setting that has an environment variable and no flag. An empty variable counts as unset.
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

/// Error messages, one per line: what happened, where, and what to do.
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

/// Prints one line to standard output.
fn print(line: impl fmt::Display) -> Result<(), CliError> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Prints bytes that end in a line break.
fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    written(write_out(bytes))
}

/// Writes to standard output and flushes it.
fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(bytes).and_then(|()| output.flush())
}

/// Converts the result of a write to standard output. Ends the process on a broken pipe.
fn written(attempt: io::Result<()>) -> Result<(), CliError> {
    match attempt {
        // The reader, such as `head`, has closed the pipe: end silently, as other programs do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        attempt => attempt.map_err(|error| CliError(not_written(&error))),
    }
}

fn not_written(error: &io::Error) -> String {
    format!("cannot write to standard output: {error}")
}

/// Returns the error for an operation on `file` that failed; see [`Fault::cannot`].
fn cannot(what: &str, file: &Path, error: &io::Error) -> CliError {
    Fault::cannot(what, file, error).into()
}
