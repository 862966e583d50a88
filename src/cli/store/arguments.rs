//! The flags of the commands of the store.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::error::CliError;
use crate::cli::settings::{ServeArgs, StoreArg};
use crate::clock::Clock;
use crate::config::StoreSettings;
use crate::store::postgres::database::Database;

#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    #[command(flatten)]
    store: StoreArg,
    /// Configuration file (TOML), which may set the URL, the master key file and the certificate
    /// authorities.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Client registry.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) clients: PathBuf,
    /// Directory of signing keys.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(super) keys: PathBuf,
    /// New state directory: gets the revocations.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(super) state: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Client registry.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "state", requires = "keys")]
    pub(super) clients: Option<PathBuf>,
    /// Directory of signing keys.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    #[arg(required_unless_present = "state", requires = "clients")]
    pub(super) keys: Option<PathBuf>,
    /// State directory of the servers that have used the files: adds its revocations to those in the
    /// store. Without --clients and --keys, the store need not be empty.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(super) state: Option<PathBuf>,
}

impl StoreArgs {
    /// Connects to the store. Returns its settings, too.
    pub(super) fn connect(self) -> Result<(StoreSettings, Database), CliError> {
        let Self { store, config } = self;
        let settings =
            ServeArgs { store_url: store.url, config, ..ServeArgs::default() }.resolve()?;
        let settings = settings.startup.store;
        let database = Database::connect(&settings, &Clock::system())?;
        Ok((settings, database))
    }
}
