//! The flags of `serve` and `check`. Resolves the configuration from the flags, the environment and
//! the configuration file.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Command, ValueHint};

use crate::cli::environment;
use crate::cli::error::CliError;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Layer, StoreUrl, setting_names};
use crate::fault::Fault;
use crate::fs::whole_file;
use crate::server::StartError;
#[cfg(feature = "postgres")]
use crate::store::postgres::{database::Database, schema};

/// The settings that have a flag. If several sources set the same setting, the first of these
/// sources applies: flag, environment, configuration file, default.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Address to serve clients on: host:port or unix:/path; may be repeated [env: GRANTD_LISTEN]
    /// [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = value_of("listen"))]
    pub(super) listen: Option<Vec<String>>,
    /// Address of the admin listener, which serves health and metrics [env: GRANTD_ADMIN_LISTEN]
    /// [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS", value_parser = value_of("admin_listen"))]
    pub(super) admin_listen: Option<String>,
    /// File with the admin token, which other machines need to use the admin listener
    /// [env: GRANTD_ADMIN_TOKEN_FILE].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          value_parser = value_of("admin_token_file"))]
    pub(super) admin_token_file: Option<String>,
    /// Client registry [env: GRANTD_CLIENTS] [default: clients.json].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          value_parser = value_of("clients"))]
    pub(super) clients: Option<String>,
    /// Directory of signing keys; the first start generates a key [env: GRANTD_KEYS]
    /// [default: keys].
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath,
          value_parser = value_of("keys"))]
    pub(super) keys: Option<String>,
    /// Directory for data that must survive a restart, such as revocations [env: GRANTD_STATE]
    /// [default: state].
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath,
          value_parser = value_of("state"))]
    pub(super) state: Option<String>,
    /// URL of the PostgreSQL database that holds clients, keys and revocations; without it, they
    /// are in files. A URL with a password does not belong here, where other users can read it,
    /// but into the variable or the configuration file [env: GRANTD_STORE_URL].
    #[arg(long = "store", value_name = "URL")]
    pub(super) store_url: Option<String>,
    /// Issuer URL, as clients and verifiers see it [env: GRANTD_ISSUER]
    /// [default: http:// and the first TCP address].
    #[arg(long, value_name = "URL", value_parser = value_of("issuer"))]
    pub(super) issuer: Option<String>,
    /// Number of event loops, and also of signing threads [env: GRANTD_WORKERS]
    /// [default: the number of cores].
    #[arg(long, value_name = "N", value_parser = value_of("workers"))]
    pub(super) workers: Option<String>,
    /// Implementation that signs tokens [env: GRANTD_SIGNER] [default: auto].
    #[arg(long, ignore_case = true, value_parser = PossibleValuesParser::new(SIGNERS))]
    pub(super) signer: Option<String>,
    /// Start even if other machines can reach the server and the registry contains demo clients,
    /// whose secrets are public [env: GRANTD_ALLOW_DEMO_CLIENTS].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = value_of("allow_demo_clients"))]
    pub(super) allow_demo_clients: Option<String>,
    /// Format of the log [env: GRANTD_LOG_FORMAT] [default: human on a terminal, json elsewhere].
    #[arg(long, ignore_case = true, value_parser = PossibleValuesParser::new(LOG_FORMATS))]
    pub(super) log_format: Option<String>,
    /// Least severe level to log; requests are logged at info [env: GRANTD_LOG_LEVEL]
    /// [default: info].
    #[arg(long, ignore_case = true, value_parser = PossibleValuesParser::new(LOG_LEVELS))]
    pub(super) log_level: Option<String>,
}

const SIGNERS: [&str; 4] = ["auto", "batch", "ring", "aws-lc"];
const LOG_FORMATS: [&str; 3] = ["auto", "json", "human"];
const LOG_LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

impl ServeArgs {
    /// Resolves the configuration. If several sources set the same setting, the first of these
    /// sources applies: flag, environment, configuration file, default.
    pub(super) fn resolve(self) -> Result<Config, CliError> {
        let file = self.config.as_deref().map(Layer::from_file).transpose()?;
        if let (Some(path), Some(layer)) = (&self.config, &file) {
            require_hidden_password(path, layer)?;
        }
        let environment = environment::layers(&flags())?;
        let layers = file.into_iter().chain(environment).chain(self.layers()?);
        Ok(Config::from_layers(layers)?)
    }

    /// Says which of the flags have no effect, because the resolved `config` has a store; `None` if
    /// all have.
    pub(super) fn without_effect(&self, config: &Config) -> Option<String> {
        let store = config.startup.store.url.as_ref()?;
        let flags = [("--clients", &self.clients), ("--keys", &self.keys)];
        let given = flags.into_iter().filter(|(_, value)| value.is_some());
        let given: Vec<_> = given.map(|(flag, _)| flag).collect();
        (!given.is_empty()).then(|| {
            format!("{}: no effect: clients and keys are in the store {store}", given.join(", "))
        })
    }

    /// Returns `error` with the place of the setting with which one of its lines begins: the flag,
    /// the variable, or the line of the configuration file.
    pub(super) fn with_places(self, error: &CliError) -> CliError {
        let settings = setting_names();
        let file = self.config.clone().and_then(|path| Some((Layer::from_file(&path).ok()?, path)));
        let given = self.values();
        let placed = |line: &str| {
            let (name, problem) = line.split_once(": ")?;
            let setting = settings.iter().find(|setting| *setting == name)?;
            if given.iter().any(|(given, value)| given == setting && value.is_some()) {
                let flag = environment::flag_of(setting, &flags())?.to_owned();
                return Some(format!("--{flag}: {problem}"));
            }
            if let Some(variable) = environment::variable_of(setting, &flags()) {
                return Some(format!("{variable}: {line}"));
            }
            let (layer, path) = file.as_ref()?;
            let fault = Fault::new(path, problem).at(layer.position_of(setting)?);
            Some(fault.in_field(setting).to_string())
        };
        let lines = error.0.lines().map(|line| placed(line).unwrap_or_else(|| line.to_owned()));
        CliError(lines.collect::<Vec<_>>().join("\n"))
    }

    fn layers(self) -> Result<Vec<Layer>, ConfigError> {
        let given =
            self.values().into_iter().filter_map(|(setting, value)| Some((setting, value?)));
        given.map(|(setting, value)| Layer::from_text(setting, &value)).collect()
    }

    /// Returns the settings that have a flag, each with the value of the flag.
    fn values(self) -> [(&'static str, Option<String>); 13] {
        [
            ("listen", self.listen.map(|addresses| addresses.join(","))),
            ("admin_listen", self.admin_listen),
            ("admin_token_file", self.admin_token_file),
            ("clients", self.clients),
            ("keys", self.keys),
            ("state", self.state),
            ("store.url", self.store_url),
            ("issuer", self.issuer),
            ("workers", self.workers),
            ("signer", self.signer),
            ("allow_demo_clients", self.allow_demo_clients),
            ("log.format", self.log_format),
            ("log.level", self.log_level),
        ]
    }
}

/// Refuses a configuration file that holds the password of the store and can be read by everyone.
fn require_hidden_password(file: &Path, layer: &Layer) -> Result<(), CliError> {
    let store = Config::from_layers([layer.clone()])?.startup.store;
    let has_password = store.url.is_some_and(|url| url.password().is_some());
    let metadata = std::fs::metadata(file);
    let is_open = metadata.is_ok_and(|it| whole_file::is_world_readable(&it.permissions()));
    if !(has_password && is_open) {
        return Ok(());
    }
    let problem = "holds a password and can be read by everyone on this machine: run chmod 600 on \
                   the file, or set GRANTD_STORE_URL instead";
    Err(Fault::new(file, problem).in_field("store.url").into())
}

/// Returns a command with the flags of [`ServeArgs`].
pub(super) fn flags() -> Command {
    ServeArgs::augment_args(Command::new(""))
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        if let StartError::Several(errors) = error {
            let lines: Vec<_> = errors.into_iter().map(|error| Self::from(error).0).collect();
            return Self(lines.join("\n"));
        }
        match error.setting() {
            Some(setting) => {
                Self(format!("{error} ({})", environment::how_to_set(setting, &flags())))
            }
            None => Self(error.to_string()),
        }
    }
}

/// The flag `--store` of the commands that change clients and keys.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct StoreArg {
    /// URL of the PostgreSQL database that holds clients and keys, without a password
    /// [env: GRANTD_STORE_URL].
    #[arg(id = "store_url", long = "store", value_name = "URL")]
    pub(super) url: Option<String>,
}

/// Connects to the database that `config` names, and checks its schema.
#[cfg(feature = "postgres")]
pub(super) fn database(config: &Config) -> Result<Database, CliError> {
    let mut database = Database::connect(&config.startup.store, &Clock::system())?;
    schema::require(&mut database)?;
    Ok(database)
}

/// Checks the value of `--store`. Every user of the machine can read the arguments of a process, so
/// a password is refused. This is not a parser of clap, because clap quotes a faulty value.
pub(super) fn check_store_flag(value: &str) -> Result<(), ConfigError> {
    let url = StoreUrl::parse(value).map_err(|error| format!("--store: {error}"))?;
    if url.password().is_none() {
        return Ok(());
    }
    let problem = "--store: must have no password, because other users can read a flag: set \
                   GRANTD_STORE_URL, or store.url in the configuration file, or put the password \
                   into PGPASSWORD or into a file that passfile=… names";
    Err(problem.into())
}

/// Returns a parser for clap that checks whether the value of a flag is valid for `setting`. If it
/// is not valid, the error of clap names the flag.
pub(super) fn value_of(
    setting: &'static str,
) -> impl Fn(&str) -> Result<String, ConfigError> + Clone + Send + Sync {
    move |value| Layer::from_text(setting, value).map(|_| value.to_owned())
}
