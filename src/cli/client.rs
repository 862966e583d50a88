//! `grantd client`: registers clients and shows them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::{CliError, cannot, print};
use crate::fault::Fault;
use crate::jose::public_key;
use crate::oauth::client::{AuthMethod, is_vschar};
use crate::oauth::client_secret::SecretHash;
use crate::random::Random;
use crate::store::client_file::{self, NewClient, NewSecret};
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
}

pub(super) fn run(command: ClientCommand) -> Result<(), CliError> {
    match command {
        ClientCommand::Add(args) => add(args),
        ClientCommand::List { file } => list(&file),
        ClientCommand::Show { file, id } => show(&file, &id),
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
        (true, true) => Some(read_secret()?),
        (true, false) => Some(make_secret()?),
    };
    let jwks = args.jwks.as_deref().map(read_jwks).transpose()?;
    let client = NewClient {
        client_id: args.id.clone(),
        enabled: true,
        secrets: Vec::from_iter(secret.as_ref().map(|secret| NewSecret {
            label: "first".to_owned(),
            hash: SecretHash::of(secret).to_stored(),
        })),
        auth_methods: methods.into_iter().map(AuthMethod::as_str).collect(),
        jwks,
        default_scopes: args.scopes.clone(),
        scopes: args.scopes,
        audience: args.audiences,
        token_lifetime: args.lifetime,
        claims: args.claims.into_iter().map(|(name, value)| (name, value.into())).collect(),
    };

    let file = &args.file.clients;
    let _lock = whole_file::lock(file).map_err(|error| cannot("locked", file, &error))?;
    let text = if file.exists() { Some(client_file::read(file)?) } else { None };
    let changed = client_file::append(file, text.as_deref(), &client)?;
    whole_file::replace(file, changed.as_bytes())
        .map_err(|error| cannot("written", file, &error))?;

    match secret.filter(|_| !args.secret_stdin) {
        None => print(json!({ "client_id": args.id })),
        Some(secret) => print(json!({ "client_id": args.id, "client_secret": *secret })),
    }
}

fn list(file: &FileArg) -> Result<(), CliError> {
    for entry in entries(file)? {
        let shown = ["client_id", "enabled", "scopes", "token_lifetime"]
            .into_iter()
            .filter_map(|field| Some((field.to_owned(), entry.get(field)?.clone())));
        print(Value::Object(shown.collect()))?;
    }
    Ok(())
}

fn show(file: &FileArg, id: &str) -> Result<(), CliError> {
    let entries = entries(file)?;
    let found = entries.into_iter().find(|entry| entry.get("client_id").is_some_and(|i| i == id));
    let Some(mut entry) = found else {
        let file = file.clients.display();
        return Err(CliError(format!("{file}: has no such client; see `grantd client list`")));
    };
    if let Some(Value::Array(secrets)) = entry.get_mut("secrets") {
        for secret in secrets.iter_mut().filter_map(Value::as_object_mut) {
            secret.remove("hash");
        }
    }
    print(format_args!("{:#}", Value::Object(entry)))
}

/// The entries of a file without faults.
fn entries(file: &FileArg) -> Result<Vec<Map<String, Value>>, CliError> {
    let text = client_file::read(&file.clients)?;
    client_file::parse(&file.clients, &text)?;
    Ok(client_file::entries(&file.clients, &text)?)
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

/// 256 random bits.
fn make_secret() -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new([0; 32]);
    Random::system()
        .fill(&mut *bytes)
        .map_err(|_| CliError("the operating system has no random bytes".to_owned()))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Standard input up to its end, without the line break that a shell puts there.
fn read_secret() -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CliError(format!("the secret cannot be read: {error}")))?;
    let secret = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if !is_vschar(&secret) {
        return Err(CliError("the secret must be printable ASCII characters".to_owned()));
    }
    if secret.len() < SecretHash::MIN_SECRET_CHARS {
        return Err(CliError(format!(
            "the secret has fewer than {} characters; leave out --secret-stdin and one is made",
            SecretHash::MIN_SECRET_CHARS
        )));
    }
    Ok(secret)
}

fn parse_claim(argument: &str) -> Result<(String, String), &'static str> {
    let (name, value) = argument.split_once('=').ok_or("a claim is written NAME=VALUE")?;
    if name.is_empty() {
        return Err("a claim has a name");
    }
    Ok((name.to_owned(), value.to_owned()))
}
