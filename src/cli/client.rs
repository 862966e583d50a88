//! `grantd client`: registers clients, changes them and shows them.

mod fields;
mod import;
mod rotate;
mod show;
mod update;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::live::{AdminArgs, WaitArgs};
use crate::cli::secret::{self, HashKind};
use crate::cli::{CliError, ServeArgs, cannot, complain, no_token, not_written, write_out};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::form::urlencoded;
use crate::oauth::client::{AuthMethod, Client};
use crate::store::client_file::{self, NewSecret, edit};
use crate::store::whole_file;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Register a client. Prints its id and secret, once.
    Add(Box<AddArgs>),
    /// Change the given fields of a client and no others.
    Update(Box<update::UpdateArgs>),
    /// Show every client with its main settings and secret labels, one JSON object a line.
    List(show::ListArgs),
    /// Show the entry of one client without the hashes of its secrets.
    Show {
        #[command(flatten)]
        file: FileArg,
        /// Its client_id.
        #[arg(long, value_name = "ID")]
        id: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Let a client authenticate again.
    Enable {
        #[command(flatten)]
        file: FileArg,
        /// Its client_id.
        #[arg(long, value_name = "ID")]
        id: String,
    },
    /// Refuse a client like one with a wrong secret, until it is enabled again.
    Disable {
        #[command(flatten)]
        file: FileArg,
        /// Its client_id.
        #[arg(long, value_name = "ID")]
        id: String,
        #[command(flatten)]
        server: WaitArgs,
    },
    /// Take a client out of the registry.
    Remove {
        #[command(flatten)]
        file: FileArg,
        /// Its client_id.
        #[arg(long, value_name = "ID")]
        id: String,
        #[command(flatten)]
        server: WaitArgs,
    },
    /// Add a secret to a client and print it, once. The old secrets stay valid unless --expire-old
    /// ends them.
    RotateSecret(rotate::RotateArgs),
    /// End one of a client's secrets.
    ExpireSecret(rotate::ExpireArgs),
    /// Register many clients, all or none: one entry as in the registry on each line.
    ///
    /// An entry may have its secret in clear as `client_secret`; it is hashed.
    Import {
        #[command(flatten)]
        file: FileArg,
        /// JSON Lines; - is standard input.
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(super) struct FileArg {
    /// The client registry [default: as `serve` has it, clients.json].
    #[arg(long, value_name = "FILE", env = "GRANTD_CLIENTS")]
    clients: Option<PathBuf>,
    /// Configuration file (TOML), for the path of the registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    #[command(flatten)]
    file: FileArg,
    /// Its client_id.
    #[arg(long, value_name = "ID")]
    id: String,
    #[command(flatten)]
    fields: fields::FieldArgs,
    /// Read the secret from standard input instead of making one.
    #[arg(long)]
    secret_stdin: bool,
    /// The hash to store of the secret [default: sha256; argon2id if it has fewer than 32
    /// characters].
    #[arg(long, value_name = "HASH")]
    hash: Option<HashKind>,
}

pub(super) fn run(command: ClientCommand) -> Result<(), CliError> {
    match command {
        ClientCommand::Add(args) => add(&args),
        ClientCommand::Update(args) => update::update(&args),
        ClientCommand::List(args) => show::list(&args),
        ClientCommand::Show { file, id, server } => show::show(&file, &id, &server),
        ClientCommand::Enable { file, id } => {
            file.edit(|path, text| edit::set_enabled(path, text, &id, true))?;
            file.warn_of(&id)
        }
        ClientCommand::Disable { file, id, server } => {
            file.edit(|path, text| edit::set_enabled(path, text, &id, false))?;
            wait_for(&id, &server, |client| client.is_some_and(|client| client["enabled"] == false))
        }
        ClientCommand::Remove { file, id, server } => {
            file.edit(|path, text| edit::remove(path, text, &id))?;
            wait_for(&id, &server, |client| client.is_none())
        }
        ClientCommand::RotateSecret(args) => rotate::rotate_secret(&args),
        ClientCommand::ExpireSecret(args) => rotate::expire_secret(&args),
        ClientCommand::Import { file, from } => import::import(&file, &from),
    }
}

/// Waits until the server reports the client as `is_in_force` wants it; `None` is a client that the
/// server does not know. Does not wait if no server is named.
fn wait_for(
    id: &str,
    server: &WaitArgs,
    is_in_force: impl Fn(Option<&Value>) -> bool,
) -> Result<(), CliError> {
    let path = format!("/clients/{}", urlencoded::encode(id));
    server.wait_until(&format!("client {id}"), &path, is_in_force)
}

impl FileArg {
    /// The registry that `serve` would use with the same flags and environment.
    fn path(&self) -> Result<PathBuf, CliError> {
        if let Some(clients) = &self.clients {
            return Ok(clients.clone());
        }
        let config = self.config.clone();
        Ok(ServeArgs { config, ..ServeArgs::default() }.resolve()?.clients)
    }

    /// Replaces the contents of the file with what `change` returns. The file is locked meanwhile.
    fn edit(
        &self,
        change: impl FnOnce(&Path, &str) -> Result<String, Vec<Fault>>,
    ) -> Result<(), CliError> {
        self.edit_and_tell(change, || None)
    }

    /// The same, and prints `line` on standard output.
    fn edit_and_tell(
        &self,
        change: impl FnOnce(&Path, &str) -> Result<String, Vec<Fault>>,
        line: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<(), CliError> {
        let change = |path: &Path, text: Option<&str>| match text {
            Some(text) => change(path, text),
            // Fails, and says that the file does not exist.
            None => change(path, &client_file::read(path).map_err(|fault| vec![fault])?),
        };
        self.edit_or_create(change, line)
    }

    /// The same, but the file need not exist.
    ///
    /// The line is printed when the new contents are on disk but have not replaced the file, so
    /// that a secret that could not be printed does not take effect.
    fn edit_or_create(
        &self,
        change: impl FnOnce(&Path, Option<&str>) -> Result<String, Vec<Fault>>,
        line: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<(), CliError> {
        let file = &self.path()?;
        let _lock = whole_file::lock(file).map_err(|error| cannot("locked", file, &error))?;
        if whole_file::has_other_names(file) {
            let problem = "has another name (a hard link), which would keep the old registry: make \
                           that one a symbolic link (ln -s), or a copy";
            return Err(Fault::new(file, problem).into());
        }
        let text = if file.exists() { Some(client_file::read(file)?) } else { None };
        let changed = change(file, text.as_deref())?;
        let staged = whole_file::stage(file, changed.as_bytes())
            .map_err(|error| cannot("written", file, &error))?;
        let line = line();
        if let Some(line) = &line {
            write_out(line.as_bytes()).map_err(|error| {
                let file = file.display();
                CliError(format!("{}: {file} is as it was", not_written(&error)))
            })?;
        }
        staged.commit().map_err(|error| {
            let CliError(problem) = cannot("replaced", file, &error);
            let told = if line.is_some() { "; what was printed is not in force" } else { "" };
            CliError(format!("{problem}{told}"))
        })
    }

    /// Warns of a client that can get no token.
    fn warn_of(&self, id: &str) -> Result<(), CliError> {
        let file = self.path()?;
        let text = client_file::read(&file)?;
        let entry = show::text_of(&text, id);
        if let Some(Ok(client)) = entry.map(|entry| client_file::check_entry(&file, 1, entry)) {
            warn_of(&client);
        }
        Ok(())
    }
}

/// Warns of a client that can get no token.
fn warn_of(client: &Client) {
    if let Some(reason) = no_token::reason(client, Clock::system().unix_seconds()) {
        complain(&format!("warning: client {}: it can get no token: {reason}", client.id));
    }
}

fn add(args: &AddArgs) -> Result<(), CliError> {
    let AddArgs { file, id, fields, secret_stdin, hash } = args;
    let methods = match &fields.auth_methods[..] {
        [] => &AuthMethod::DEFAULT,
        methods => methods,
    };
    let has_secret = methods.iter().any(|method| AuthMethod::DEFAULT.contains(method));
    if *secret_stdin && !has_secret {
        return Err(CliError(
            "--secret-stdin: no --method of this client takes a secret".to_owned(),
        ));
    }
    let given = fields.given(Map::new())?;
    let mut entry = with_defaults(id, &given);
    // Report faults before asking for a secret.
    fields::check(Path::new(""), &Value::Object(entry.clone()).to_string(), &given)?;
    let secret = match (has_secret, secret_stdin) {
        (false, _) => None,
        (true, true) => Some(secret::read("Secret of the new client: ")?),
        (true, false) => Some(secret::make()?),
    };
    if let Some(secret) = &secret {
        let new = NewSecret { label: FIRST_LABEL.to_owned(), hash: secret::hash(secret, *hash)? };
        entry.insert("secrets".to_owned(), json!([new]));
    }
    let change = |path: &Path, text: Option<&str>| {
        if let Some(text) = text
            && client_file::parse(path, text)?.get(id).is_some()
        {
            let problem = format!(
                "{} has a client of this id already; `grantd client update` changes it",
                path.display()
            );
            return Err(vec![Fault::new(Path::new("--id"), problem)]);
        }
        client_file::append(path, text, &entry)
    };
    file.edit_or_create(change, || Some(told(id, secret.as_deref().filter(|_| !secret_stdin))))?;
    let is_meant = fields.no_scope || !fields.introspects.is_empty();
    if !is_meant {
        file.warn_of(id)?;
    }
    Ok(())
}

/// The entry of a new client, its fields in the order of the documentation.
fn with_defaults(id: &str, given: &Map<String, Value>) -> Map<String, Value> {
    let nothing = || Value::Array(Vec::new());
    let defaults = [
        ("client_id", Value::from(id)),
        ("enabled", Value::Bool(true)),
        ("secrets", nothing()),
        ("auth_methods", json!(AuthMethod::DEFAULT.map(AuthMethod::as_str))),
        ("scopes", nothing()),
        ("default_scopes", nothing()),
        ("audience", nothing()),
        ("token_lifetime", Value::from(3600)),
        ("claims", Value::Object(Map::new())),
    ];
    let mut entry: Map<_, _> =
        defaults.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    entry.extend(given.clone());
    entry
}

/// The line that shows a new client's id, and its secret if that was generated.
fn told(id: &str, secret: Option<&String>) -> Zeroizing<String> {
    let mut line = match secret {
        Some(secret) => json!({ "client_id": id, "client_secret": secret }),
        None => json!({ "client_id": id }),
    }
    .to_string();
    line.push('\n');
    Zeroizing::new(line)
}

/// The label of a client's first secret.
const FIRST_LABEL: &str = "first";
