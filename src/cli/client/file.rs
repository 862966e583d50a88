//! The registry that the commands edit: a file, or the rows of a database.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::error::{CliError, complain};
use crate::cli::live::WaitArgs;
use crate::cli::no_token;
use crate::cli::output::{not_written, write_out};
#[cfg(feature = "postgres")]
use crate::cli::settings::database;
use crate::cli::settings::{ServeArgs, StoreArg};
use crate::clock::Clock;
use crate::config::Config;
use crate::fault::Fault;
use crate::form::urlencoded;
use crate::fs::whole_file;
use crate::registry::client_file;
use crate::registry::client_file::edit::{self, ClientText};
#[cfg(feature = "postgres")]
use crate::store::postgres::client_document;
#[cfg(feature = "postgres")]
use crate::store::postgres::database::{BULK_LIMIT, Database, Transaction};

#[derive(Args, Debug)]
pub(crate) struct RegistryArgs {
    /// Client registry [env: GRANTD_CLIENTS] [default: clients.json, as for `serve`]. With this
    /// flag, the command works on the file, even if a store is configured.
    #[arg(long, value_name = "FILE", conflicts_with = "store_url")]
    clients: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArg,
    /// Configuration file (TOML), which may set the path of the registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
}

/// The registry that the commands read and edit.
pub(super) enum Registry {
    File(PathBuf),
    #[cfg(feature = "postgres")]
    Database(Box<Database>),
}

impl RegistryArgs {
    /// Returns the file of the flag `--clients` or, without that flag, the registry that `serve`
    /// would use with the same flags and environment.
    pub(super) fn open(&self) -> Result<Registry, CliError> {
        if let Some(clients) = &self.clients {
            return Ok(Registry::File(clients.clone()));
        }
        let Self { config, store, .. } = self;
        let (config, store_url) = (config.clone(), store.url.clone());
        Registry::of(&ServeArgs { config, store_url, ..ServeArgs::default() }.resolve()?)
    }
}

impl Registry {
    /// Returns the registry that `config` names.
    pub(super) fn of(config: &Config) -> Result<Self, CliError> {
        #[cfg(feature = "postgres")]
        if config.startup.store.url.is_some() {
            return Ok(Self::Database(Box::new(database(config)?)));
        }
        Ok(Self::File(config.live.clients.clone()))
    }

    /// The name of the registry in faults.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::File(file) => file,
            #[cfg(feature = "postgres")]
            Self::Database(database) => database.name(),
        }
    }

    /// Returns the text of the registry. Of a database, it has the clients `ids` alone.
    pub(super) fn read(&mut self, ids: Option<&[&str]>) -> Result<String, CliError> {
        match self {
            Self::File(file) => Ok(client_file::read(file)?),
            #[cfg(feature = "postgres")]
            Self::Database(database) => {
                let read = |transaction: &mut Transaction<'_>| match ids {
                    Some(ids) => client_document::read_some(transaction, ids),
                    None => client_document::read_all(transaction),
                };
                Ok(database.reading(BULK_LIMIT, read)?)
            }
        }
    }

    /// Locks the registry, replaces its text by the result of `change`, and prints `line`. A file
    /// is created if it does not exist. Of a database, the text has the clients `ids` alone.
    ///
    /// If the line cannot be printed, the change is undone, because a secret in it could not be
    /// shown again.
    pub(super) fn edit_or_create(
        &mut self,
        ids: &[&str],
        change: impl FnOnce(&Path, Option<&str>) -> Result<String, Vec<Fault>>,
        line: Option<&str>,
    ) -> Result<(), CliError> {
        match self {
            Self::File(file) => edit_file(file, change, line),
            #[cfg(feature = "postgres")]
            Self::Database(database) => database.transaction(BULK_LIMIT, |transaction| {
                let text = client_document::lock(transaction, ids)?;
                let changed = change(transaction.store(), Some(&text))?;
                client_document::write(transaction, &text, &changed)?;
                let Some(line) = line else { return Ok(()) };
                write_out(line.as_bytes()).map_err(|error| {
                    let (problem, store) = (not_written(&error), transaction.store().display());
                    CliError(format!("{problem}: {store} is unchanged"))
                })
            }),
        }
    }
}

fn edit_file(
    file: &Path,
    change: impl FnOnce(&Path, Option<&str>) -> Result<String, Vec<Fault>>,
    line: Option<&str>,
) -> Result<(), CliError> {
    let _lock = whole_file::lock(file).map_err(|error| Fault::cannot("locked", file, &error))?;
    if whole_file::has_other_names(file) {
        let problem = "has another name (a hard link), which would keep the old registry: \
                       replace that one by a symbolic link (ln -s) or a copy";
        return Err(Fault::new(file, problem).into());
    }
    let text = if file.exists() { Some(client_file::read(file)?) } else { None };
    let changed = change(file, text.as_deref())?;
    whole_file::replace(file, changed.as_bytes())
        .map_err(|error| Fault::cannot("written", file, &error))?;
    let Some(line) = line else { return Ok(()) };
    write_out(line.as_bytes()).map_err(|error| {
        let undone = match &text {
            Some(text) => whole_file::replace(file, text.as_bytes()),
            None => std::fs::remove_file(file),
        };
        let (problem, file) = (not_written(&error), file.display());
        CliError(match undone {
            Ok(()) => format!("{problem}: {file} is unchanged"),
            Err(error) => format!("{problem}: {file} keeps the change, because {error}"),
        })
    })
}

/// The flags that name a client in the registry.
#[derive(Args, Debug)]
pub(crate) struct ClientArg {
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    /// Client ID.
    #[arg(long, value_name = "ID")]
    pub(super) id: String,
}

impl ClientArg {
    /// Locks the registry, replaces its text by the result of `change`, and prints `line`; see
    /// [`Registry::edit_or_create`]. Fails if the registry does not exist.
    pub(super) fn edit(
        &self,
        change: impl FnOnce(&ClientText<'_>) -> Result<String, Vec<Fault>>,
        line: Option<&str>,
    ) -> Result<(), CliError> {
        let change = |file: &Path, text: Option<&str>| {
            // If the file does not exist, reading it returns the fault to report.
            let read = if text.is_none() { client_file::read(file)? } else { String::new() };
            let text = text.unwrap_or(&read);
            change(&ClientText { file, text, client_id: &self.id })
        };
        self.registry.open()?.edit_or_create(&[&self.id], change, line)
    }

    /// Warns if the client can get no token.
    pub(super) fn warn(&self) -> Result<(), CliError> {
        let mut registry = self.registry.open()?;
        let text = registry.read(Some(&[&self.id]))?;
        if let Some(entry) = text_of(&text, &self.id)
            && let Ok(client) = client_file::check_entry(registry.name(), 1, entry)
            && let Some(reason) = no_token::reason(&client, Clock::system().now())
        {
            complain(&format!("warning: client {}: it can get no token: {reason}", client.id));
        }
        Ok(())
    }

    /// If `--admin` names a server, waits until the change of the client is in force on that
    /// server. `is_in_force` gets the server's JSON description of the client, or null if the
    /// server does not know the client.
    pub(super) fn wait_until(
        &self,
        server: &WaitArgs,
        is_in_force: impl Fn(&Value) -> bool,
    ) -> Result<(), CliError> {
        let path = format!("/clients/{}", urlencoded::encode(&self.id));
        server.wait_until(&format!("client {}", self.id), &path, is_in_force)
    }
}

/// Returns the line to print: the client's id and, if the secret was generated, the secret.
pub(super) fn told(id: &str, secret: Option<&str>) -> Zeroizing<String> {
    let told = match secret {
        Some(secret) => json!({ "client_id": id, "client_secret": secret }),
        None => json!({ "client_id": id }),
    };
    Zeroizing::new(format!("{told}\n"))
}

/// Returns the text of the entry of the client `id`.
pub(super) fn text_of<'t>(text: &'t str, id: &str) -> Option<&'t str> {
    let mut entries = edit::entries(text).ok()?;
    entries.find(|entry| edit::id_of(entry).is_some_and(|found| found == id))
}

/// Returns the entry of the client `id`, with its fields in the order of the file.
pub(super) fn entry_of(text: &str, id: &str) -> Option<Value> {
    serde_json::from_str(text_of(text, id)?).ok()
}

/// The label of a client's first secret.
pub(super) const FIRST_LABEL: &str = "first";
