//! `grantd client`: registers, changes and shows clients.

mod fields;
mod file;
mod import;
mod rotate;
mod show;
mod update;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::client::file::{ClientArg, FIRST_LABEL, RegistryArgs, text_of, told};
use crate::cli::error::CliError;
use crate::cli::live::{AdminArgs, WaitArgs};
use crate::cli::secret::{self, HashKind};
use crate::fault::Fault;
use crate::oauth::client::AuthMethod;
use crate::registry::client_file::edit::{self, NewSecret};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Register a client. Prints its id and its secret, which cannot be shown again.
    Add(Box<AddArgs>),
    /// Change fields of a client. A field stays unchanged if its flag is not given.
    Update(Box<update::UpdateArgs>),
    /// Show all clients and the states of their secrets, one JSON object per line.
    List(show::ListArgs),
    /// Show one client's registry entry, without the hashes of its secrets.
    Show {
        #[command(flatten)]
        client: ClientArg,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Enable a disabled client.
    Enable(ClientArg),
    /// Disable a client. Until the client is enabled again, its requests get the same error as
    /// requests with a wrong secret.
    Disable {
        #[command(flatten)]
        client: ClientArg,
        #[command(flatten)]
        server: WaitArgs,
    },
    /// Remove a client from the registry.
    Remove {
        #[command(flatten)]
        client: ClientArg,
        #[command(flatten)]
        server: WaitArgs,
    },
    /// Add a secret to a client and print the secret. Old secrets stay valid unless --expire-old is
    /// given.
    RotateSecret(rotate::RotateArgs),
    /// End the validity of one secret of a client, now or at a given time.
    ExpireSecret(rotate::ExpireArgs),
    /// Register many clients from registry entries, one per line. Registers all of them or none.
    ///
    /// An entry may contain a plain-text secret as `client_secret`. Only the hash of the secret is
    /// stored.
    Import {
        #[command(flatten)]
        registry: RegistryArgs,
        /// File of JSON Lines; - for standard input.
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    #[command(flatten)]
    client: ClientArg,
    #[command(flatten)]
    fields: fields::FieldArgs,
    /// Read the secret from standard input instead of generating one.
    #[arg(long)]
    secret_stdin: bool,
    /// Hash algorithm for the stored secret [default: sha256, or argon2id for a secret of fewer
    /// than 32 characters].
    #[arg(long, value_name = "HASH")]
    hash: Option<HashKind>,
}

pub(super) fn run(command: ClientCommand) -> Result<(), CliError> {
    match command {
        ClientCommand::Add(args) => add(&args),
        ClientCommand::Update(args) => update::update(&args),
        ClientCommand::List(args) => show::list(&args),
        ClientCommand::Show { client, server } => show::show(&client, &server),
        ClientCommand::Enable(client) => {
            client.edit(|text| text.set_enabled(true), None)?;
            client.warn()
        }
        ClientCommand::Disable { client, server } => {
            client.edit(|text| text.set_enabled(false), None)?;
            client.wait_until(&server, |client| client["enabled"] == false)
        }
        ClientCommand::Remove { client, server } => {
            client.edit(|text| text.remove(), None)?;
            client.wait_until(&server, Value::is_null)
        }
        ClientCommand::RotateSecret(args) => rotate::rotate_secret(&args),
        ClientCommand::ExpireSecret(args) => rotate::expire_secret(&args),
        ClientCommand::Import { registry, from } => import::import(&registry, &from),
    }
}

fn add(args: &AddArgs) -> Result<(), CliError> {
    let AddArgs { client, fields, secret_stdin, hash } = args;
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
    let mut entry = with_defaults(&client.id, &given);
    // Check the fields before asking for a secret.
    fields::check(Path::new(""), &entry.to_string(), &given)?;
    let secret = match (has_secret, secret_stdin) {
        (false, _) => None,
        (true, true) => Some(secret::read("Secret of the new client: ")?),
        (true, false) => Some(secret::make()?),
    };
    if let Some(secret) = &secret {
        let new = NewSecret { label: FIRST_LABEL.to_owned(), hash: secret::hash(secret, *hash)? };
        entry["secrets"] = json!([new]);
    }
    let change = |path: &Path, text: Option<&str>| {
        if text.is_some_and(|text| text_of(text, &client.id).is_some()) {
            let problem = format!(
                "{} has a client with this id already; `grantd client update` changes it",
                path.display()
            );
            return Err(vec![Fault::new(Path::new("--id"), problem)]);
        }
        edit::append(path, text, &entry)
    };
    let shown = secret.filter(|_| !secret_stdin);
    let line = told(&client.id, shown.as_ref().map(|secret| secret.as_str()));
    client.registry.open()?.edit_or_create(&[&client.id], change, Some(&line))?;
    if fields.are_for_no_token() { Ok(()) } else { client.warn() }
}

/// Returns the entry of a new client, in a readable order of fields.
fn with_defaults(id: &str, given: &Map<String, Value>) -> Value {
    let mut entry = json!({
        "client_id": id,
        "enabled": true,
        "secrets": [],
        "auth_methods": AuthMethod::DEFAULT.map(AuthMethod::as_str),
        "scopes": [],
        "default_scopes": [],
        "audience": [],
        "token_lifetime": 3600,
        "claims": {},
    });
    for (name, value) in given {
        entry[name] = value.clone();
    }
    entry
}
