//! `grantd store`: prepares, fills, reads and describes the store in PostgreSQL.

mod arguments;
mod export;
mod import;

use clap::Subcommand;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::store::arguments::{ExportArgs, ImportArgs, StoreArgs};
use crate::random::Random;
use crate::store::postgres::failure::Failure;
use crate::store::postgres::rekey::{self, Rekeyed};
use crate::store::postgres::schema::{self, Migrated};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::status;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Create the schema, or bring it to the version of this program.
    ///
    /// Needs the URL of the schema's owner, who may create a schema in the database at the first
    /// time. Changes nothing if the schema has this version.
    Migrate {
        #[command(flatten)]
        store: StoreArgs,
        /// Role of the servers: gets the rights that a server needs, and no more. Needed again
        /// after each new version of the schema.
        #[arg(long, value_name = "ROLE")]
        node_role: Option<String>,
    },
    /// Show what is in the store. Exits with 1 if a server could not use it.
    Status(StoreArgs),
    /// Seal all private keys with the first master key.
    ///
    /// To replace a master key: append the new one to the master key file of every server, and
    /// restart them; put it first; run this command; then remove the old one.
    Rekey(StoreArgs),
    /// Fill an empty store from files. Copies all clients and keys or none.
    ///
    /// Copies the clients, and the signing keys with their times. A `jwks` that names a file is
    /// replaced by the keys in the file. If the store holds exactly this already, changes nothing.
    /// Revocations are copied first, and added to those in the store.
    Import {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        from: ImportArgs,
    },
    /// Write the store to new files, which `serve` reads. Writes all of them or none.
    Export {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        to: ExportArgs,
    },
}

pub(super) fn run(command: StoreCommand) -> Result<(), CliError> {
    match command {
        StoreCommand::Migrate { store, node_role } => migrate(store, node_role.as_deref()),
        StoreCommand::Status(store) => show(store),
        StoreCommand::Rekey(store) => rekey(store),
        StoreCommand::Import { store, from } => import::import(store, &from),
        StoreCommand::Export { store, to } => export::export(store, &to),
    }
}

fn migrate(store: StoreArgs, node_role: Option<&str>) -> Result<(), CliError> {
    let (_, mut database) = store.connect()?;
    let Migrated { from, to } = schema::migrate(&mut database, node_role)?;
    print(json!({ "store": database.name(), "from": from, "schema": to, "node_role": node_role }))
}

fn show(store: StoreArgs) -> Result<(), CliError> {
    let (settings, mut database) = store.connect()?;
    schema::require(&mut database)?;
    print(status::read(&mut database)?)?;
    let master_keys = MasterKeys::load(&settings, &Random::system())?;
    let faults = status::unopened(&mut database, &master_keys)?;
    if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
}

fn rekey(store: StoreArgs) -> Result<(), CliError> {
    let (settings, mut database) = store.connect()?;
    let master_keys = MasterKeys::load(&settings, &Random::system())?;
    schema::require(&mut database)?;
    let Rekeyed { sealed_anew, unchanged } = rekey::rekey(&mut database, &master_keys)?;
    print(json!({
        "store": database.name(), "master_key": master_keys.ids().first(),
        "sealed_anew": sealed_anew, "unchanged": unchanged,
    }))
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}
