//! `grantd client`: registers clients, changes them and shows them.

mod import;
mod rotate;
mod show;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::live::{AdminArgs, WaitArgs};
use crate::cli::secret::{self, HashKind};
use crate::cli::{CliError, cannot, print};
use crate::fault::Fault;
use crate::form::urlencoded;
use crate::jose::public_key;
use crate::oauth::client::AuthMethod;
use crate::store::client_file::{self, NewClient, NewSecret, edit};
use crate::store::whole_file;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Register a client. Prints its id and secret, once.
    Add(AddArgs),
    /// Show every client, one JSON object a line.
    List {
        #[command(flatten)]
        file: FileArg,
    },
    /// Show what is registered of one client, without its secrets' hashes.
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
    /// Add a secret to a client and print it, once. The old ones stay valid unless told otherwise.
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
    /// The client registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CLIENTS", default_value = "clients.json")]
    clients: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    #[command(flatten)]
    file: FileArg,
    /// Its client_id.
    #[arg(long, value_name = "ID")]
    id: String,
    /// A scope it may ask for; may be repeated. It gets all of them if it asks for none.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Who its tokens are for; may be repeated [default: the issuer].
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// Seconds that its tokens live.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    lifetime: u32,
    /// A static claim in its tokens; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
    claims: Vec<(String, String)>,
    /// How it may authenticate; may be repeated [default: client_secret_basic, client_secret_post].
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<AuthMethod>,
    /// A JWK Set with the public keys that it signs with; it is copied into the registry.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Read the secret from standard input instead of making one.
    #[arg(long)]
    secret_stdin: bool,
    /// What is kept of the secret [default: sha256; argon2id if it has fewer than 32 characters].
    #[arg(long, value_name = "HASH")]
    hash: Option<HashKind>,
}

pub(super) fn run(command: ClientCommand) -> Result<(), CliError> {
    match command {
        ClientCommand::Add(args) => add(args),
        ClientCommand::List { file } => show::list(&file),
        ClientCommand::Show { file, id, server } => show::show(&file, &id, &server),
        ClientCommand::Enable { file, id } => {
            file.edit(|path, text| edit::set_enabled(path, text, &id, true))
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

/// Waits until the server, if one is named, knows the client so. `None`: not at all.
fn wait_for(
    id: &str,
    server: &WaitArgs,
    is_in_force: impl Fn(Option<&Value>) -> bool,
) -> Result<(), CliError> {
    let path = format!("/clients/{}", urlencoded::encode(id));
    server.wait_until(&format!("client {id}"), &path, is_in_force)
}

impl FileArg {
    /// Changes the file as `change` says; nobody else does meanwhile.
    fn edit(
        &self,
        change: impl FnOnce(&Path, &str) -> Result<String, Vec<Fault>>,
    ) -> Result<(), CliError> {
        self.edit_or_create(|path, text| match text {
            Some(text) => change(path, text),
            // For the fault that says so.
            None => change(path, &client_file::read(path).map_err(|fault| vec![fault])?),
        })
    }

    /// The same where there need not be a file.
    fn edit_or_create(
        &self,
        change: impl FnOnce(&Path, Option<&str>) -> Result<String, Vec<Fault>>,
    ) -> Result<(), CliError> {
        let file = &self.clients;
        let _lock = whole_file::lock(file).map_err(|error| cannot("locked", file, &error))?;
        if whole_file::has_other_names(file) {
            let problem = "has another name (a hard link), which would keep the old registry: make \
                           that one a symbolic link (ln -s), or a copy";
            return Err(Fault::new(file, problem).into());
        }
        let text = if file.exists() { Some(client_file::read(file)?) } else { None };
        let changed = change(file, text.as_deref())?;
        whole_file::replace(file, changed.as_bytes())
            .map_err(|error| cannot("written", file, &error))
    }
}

fn add(args: AddArgs) -> Result<(), CliError> {
    let methods = if args.methods.is_empty() { AuthMethod::DEFAULT.to_vec() } else { args.methods };
    let has_secret = methods.iter().any(|method| AuthMethod::DEFAULT.contains(method));
    if args.secret_stdin && !has_secret {
        return Err(CliError(
            "--secret-stdin: no --method of this client takes a secret".to_owned(),
        ));
    }
    let secret = match (has_secret, args.secret_stdin) {
        (false, _) => None,
        (true, true) => Some(secret::read()?),
        (true, false) => Some(secret::make()?),
    };
    let hash = secret.as_ref().map(|secret| secret::hash(secret, args.hash)).transpose()?;
    let jwks = args.jwks.as_deref().map(read_jwks).transpose()?;
    let client = NewClient {
        client_id: args.id.clone(),
        enabled: true,
        secrets: Vec::from_iter(hash.map(|hash| NewSecret { label: FIRST_LABEL.to_owned(), hash })),
        auth_methods: methods.into_iter().map(AuthMethod::as_str).collect(),
        jwks,
        default_scopes: args.scopes.clone(),
        scopes: args.scopes,
        audience: args.audiences,
        token_lifetime: args.lifetime,
        claims: args.claims.into_iter().map(|(name, value)| (name, value.into())).collect(),
    };
    args.file.edit_or_create(|path, text| client_file::append(path, text, &client))?;
    match secret {
        Some(secret) => print_secret(&args.id, &secret, args.secret_stdin),
        None => print(json!({ "client_id": args.id })),
    }
}

/// The set as it stands in `file`.
fn read_jwks(file: &Path) -> Result<Value, CliError> {
    let text = fs::read_to_string(file).map_err(|error| cannot("read", file, &error))?;
    public_key::parse_set(&text).map_err(|problem| {
        let fault = Fault::new(file, problem.problem);
        match problem.index {
            Some(index) => fault.in_field(format!("keys[{index}]")),
            None => fault,
        }
    })?;
    serde_json::from_str(&text).map_err(|error| CliError(error.to_string()))
}

/// Tells a secret that was made, once; one that was given is known.
fn print_secret(id: &str, secret: &str, is_given: bool) -> Result<(), CliError> {
    if is_given {
        print(json!({ "client_id": id }))
    } else {
        print(json!({ "client_id": id, "client_secret": secret }))
    }
}

/// What a client's first secret is called.
const FIRST_LABEL: &str = "first";

fn parse_claim(argument: &str) -> Result<(String, String), &'static str> {
    let (name, value) = argument.split_once('=').ok_or("a claim is written NAME=VALUE")?;
    if name.is_empty() {
        return Err("a claim has a name");
    }
    Ok((name.to_owned(), value.to_owned()))
}
