//! `grantd key`: generates, rotates, retires and shows signing keys.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use serde_json::{Value, json};

use crate::cli::error::{CliError, complain};
use crate::cli::live::{self, AdminArgs, OLDER_VERSION, WaitArgs};
use crate::cli::output::print;
use crate::cli::secret;
#[cfg(feature = "postgres")]
use crate::cli::settings::database;
use crate::cli::settings::{ServeArgs, StoreArg, value_of};
use crate::cli::times::add_dates;
use crate::clock::Clock;
use crate::config::Config;
use crate::fault::Fault;
use crate::keys::change::{self, Replaced, Rotated};
use crate::keys::directory::KeyDirectory;
use crate::keys::key_file;
use crate::keys::key_set::KeySet;
use crate::keys::key_store::{KeyStore, StoredKeys};
use crate::keys::life::{KeyTimes, Retention, Retirement};
use crate::keys::signing_key::SigningKey;
use crate::random::Random;
use crate::registry::client_file;
use crate::registry::clients::Registry;
use crate::snapshot::lifetimes::Recorded;
use crate::snapshot::retention;
#[cfg(feature = "postgres")]
use crate::store::postgres::{
    client_document,
    database::{BULK_LIMIT, Database},
    keys::KeyRows,
    lifetimes,
    seal::MasterKeys,
};
use crate::time::UnixTime;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Generate an RSA key.
    ///
    /// The first key signs at once. A later key is published at once, but does not sign yet. It
    /// starts to sign when every cached key set includes it. This takes twice the setting
    /// jwks_max_age.
    Generate {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        size: SizeArg,
    },
    /// Generate an RSA key that will replace the signing key.
    ///
    /// The new key starts to sign when every cached key set includes it. This takes twice the
    /// setting jwks_max_age. In the output, `retires` says when the old key stops signing and when
    /// it leaves the key set. If there is already a new key that does not sign yet, as with the
    /// setting keys.rotate_every, this key starts to sign as soon as every cached key set includes
    /// it, and no key is generated. Fails if that key cannot begin earlier, or has another size than
    /// --bits asks for.
    Rotate {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        size: SizeArg,
        /// Replace leaked keys: the new key signs at once, and all other keys are retired. Tokens
        /// that the retired keys have signed become invalid.
        #[arg(long)]
        now: bool,
        /// With --now: the kid of a key that is kept and not retired.
        #[arg(
            long,
            value_name = "KID",
            requires = "now",
            value_parser = parse_key_id,
            allow_hyphen_values = true
        )]
        keep: Option<String>,
        #[command(flatten)]
        server: WaitArgs,
    },
    /// Retire each old key whose tokens have all expired.
    ///
    /// The file of a retired key is renamed to `<kid>.pem.retired`, and is no longer loaded. In a
    /// database, the key is kept and marked as retired. A running server notices the change within
    /// seconds.
    Retire {
        #[command(flatten)]
        keys: KeyArgs,
        /// Additional key to retire in any state: for example, a key that has leaked. Tokens
        /// that this key has signed become invalid when verifiers fetch the key set again.
        #[arg(value_name = "KID", value_parser = parse_key_id, allow_hyphen_values = true)]
        key_id: Option<String>,
    },
    /// Import an existing RSA key. The help of `key generate` says when a new key starts to sign.
    /// The same applies to an imported key.
    Import {
        #[command(flatten)]
        keys: KeyArgs,
        /// File with a PKCS#8 private key in PEM; - for standard input.
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
    /// Show all keys, one JSON object per line.
    ///
    /// Times are in Unix seconds. `dates` shows the same times in the format of RFC 3339.
    List {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        server: AdminArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    /// Directory of signing keys [env: GRANTD_KEYS] [default: keys, as for `serve`]. With this flag,
    /// the command works on files, even if a store is configured.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath,
          value_parser = value_of("keys"), conflicts_with = "store_url")]
    keys: Option<String>,
    #[command(flatten)]
    store: StoreArg,
    /// Configuration file (TOML), which may set the directory, jwks_max_age and the client
    /// registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
    /// Client registry, which sets the lifetimes of tokens [env: GRANTD_CLIENTS] [default:
    /// clients.json, as for `serve`].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          value_parser = value_of("clients"), conflicts_with = "store_url")]
    clients: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct SizeArg {
    /// Size of the key in bits: 2048, 3072 or 4096 [default: 2048].
    #[arg(long, value_parser = parse_bits)]
    bits: Option<u16>,
}

pub(super) fn run(command: KeyCommand) -> Result<(), CliError> {
    let now = Clock::system().now();
    match command {
        KeyCommand::Generate { keys, size } => {
            let mut keys = keys.open()?;
            let retention = keys.retention()?;
            let bits = size.bits.unwrap_or(DEFAULT_BITS);
            let key = keys.change(|store| change::generate(store, bits, &retention, now))?;
            keys.print(describe(&key))
        }
        KeyCommand::Rotate { keys, size, now: false, server, .. } => {
            rotate(keys, size.bits, &server, now)
        }
        KeyCommand::Rotate { keys, size, keep, server, .. } => {
            replace(keys, size.bits.unwrap_or(DEFAULT_BITS), keep.as_deref(), &server, now)
        }
        KeyCommand::Retire { keys, key_id } => retire(keys, key_id.as_deref(), now),
        KeyCommand::Import { keys, from } => import(keys, &from, now),
        KeyCommand::List { keys, server } => list(keys, &server, now),
    }
}

fn rotate(
    args: KeyArgs,
    bits: Option<u16>,
    server: &WaitArgs,
    now: UnixTime,
) -> Result<(), CliError> {
    let mut keys = args.open()?;
    let retention = keys.retention_of_clients()?;
    let Rotated { made, instead_of, signing, retirement } =
        keys.change(|store| change::rotate(store, bits, &retention, now))?;
    let Retirement { retires_at, gone_at } = retirement;
    let mut described = describe(&made);
    described["retires"] = json!({ "kid": signing, "retires_at": retires_at, "gone_at": gone_at });
    if let Some(planned) = instead_of {
        described["instead_of"] = json!(planned);
        described["note"] = json!(
            "this key was published already and begins to sign earlier than planned; a server with \
             keys.rotate_every makes the next key when this one signs; without one, run \
             `grantd key rotate` then"
        );
    }
    keys.print(described)?;
    server.wait_until(&format!("key {}", made.key_id()), "/keys", |keys| {
        let is_early = |key: &Value| {
            instead_of.is_none_or(|planned| key["signs_from"].as_u64() < Some(planned.0))
        };
        let is_in_use = |key: &Value| {
            (key["state"] == "published" || key["state"] == "signing") && is_early(key)
        };
        let mut keys = keys.as_array().into_iter().flatten();
        keys.any(|key| key["kid"] == made.key_id() && is_in_use(key))
    })
}

/// Runs `key rotate --now`.
fn replace(
    args: KeyArgs,
    bits: u16,
    keep: Option<&str>,
    server: &WaitArgs,
    now: UnixTime,
) -> Result<(), CliError> {
    // Do not read the client registry: a fault in the registry must not prevent the replacement.
    let mut keys = args.open()?;
    let Replaced { made, retired } =
        keys.change(|store| change::replace(store, bits, keep, now))?;
    let mut described = describe(&made);
    described["retired"] = json!(retired);
    described["verifiers"] = json!(format!(
        "those with a cached key set refuse tokens of the new key and accept tokens of the retired \
         keys until they fetch the key set again: within {} s, or on the first unknown kid if \
         they fetch it then",
        keys.config.live.jwks_max_age
    ));
    keys.print(described)?;
    server.wait_until(&format!("key {}", made.key_id()), "/keys", |keys| {
        let keys = || keys.as_array().into_iter().flatten();
        let is_made = |key: &Value| key["kid"] == made.key_id();
        keys().any(|key| is_made(key) && key["state"] == "signing")
            && keys().all(|key| is_made(key) || key["kid"].as_str() == keep)
    })
}

fn retire(args: KeyArgs, key_id: Option<&str>, now: UnixTime) -> Result<(), CliError> {
    let mut keys = args.open()?;
    let retention = keys.retention_of_clients()?;
    keys.require_directory()?;
    for retired in keys.change(|store| change::retire(store, key_id, &retention, now))? {
        print(json!({
            "kid": retired.key_id, "state": retired.state.to_string(), "file": retired.file,
        }))?;
    }
    Ok(())
}

fn import(args: KeyArgs, from: &Path, now: UnixTime) -> Result<(), CliError> {
    let mut keys = args.open()?;
    let retention = keys.retention()?;
    let (source, text) = secret::read_input(from, key_file::read)?;
    let key = keys.change(|store| change::import(store, source, &text, &retention, now))?;
    keys.print(describe(&key))
}

fn list(args: KeyArgs, server: &AdminArgs, now: UnixTime) -> Result<(), CliError> {
    let mut keys = args.open()?;
    let retention = keys.retention()?;
    keys.require_directory()?;
    let found = keys.change(|store| StoredKeys::read(store).all())?;
    if found.is_empty() {
        complain(&keys.none());
    }
    let live = server.ask("/keys", OLDER_VERSION)?;
    let found = KeySet::new(found.into_iter().map(|(_, key)| key).collect(), retention);
    for (_, described) in found.describe(now.into()) {
        let mut described = Value::Object(described);
        if let Some(live) = &live {
            live::add_figures(&mut described, live, "kid", &["fetches", "last_fetch"]);
        }
        add_dates(&mut described);
        print(described)?;
    }
    Ok(())
}

/// Returns the description of a key that was added to the directory. The caller prints the
/// description.
fn describe(key: &SigningKey) -> Value {
    let KeyTimes { published_at, signs_from } = key.times();
    json!({
        "kid": key.key_id(), "bits": key.bits(), "published_at": published_at,
        "signs_from": signs_from,
    })
}

const DEFAULT_BITS: u16 = change::KEY_SIZES[0];

fn parse_bits(argument: &str) -> Result<u16, String> {
    let bits = argument.parse().ok().filter(|bits| change::KEY_SIZES.contains(bits));
    bits.ok_or_else(|| format!("must be one of {:?}", change::KEY_SIZES))
}

/// Checks that `argument` has the syntax of a `kid`. A `kid` may begin with a hyphen, so clap also
/// passes mistyped flags to this function, which refuses them.
fn parse_key_id(argument: &str) -> Result<String, String> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if argument.len() == THUMBPRINT_CHARS && argument.bytes().all(is_base64url) {
        Ok(argument.to_owned())
    } else {
        Err("must be a kid, as shown by `grantd key list`".to_owned())
    }
}

/// The length of a `kid`: a SHA-256 thumbprint of 32 bytes in base64url (RFC 7638).
const THUMBPRINT_CHARS: usize = 43;

impl KeyArgs {
    /// Opens the directory of the flag `--keys` or, without that flag, the store of keys that `serve`
    /// would use with the same flags and environment.
    fn open(self) -> Result<Keys, CliError> {
        let Self { keys, store, config, clients } = self;
        let is_in_files = keys.is_some();
        let args =
            ServeArgs { keys, store_url: store.url, config, clients, ..ServeArgs::default() };
        let mut config = args.clone().resolve()?;
        if is_in_files && let Some(store) = config.startup.store.url.take() {
            let keys = config.live.keys.display();
            complain(&format!(
                "warning: --keys: works on the keys in {keys}, not on those in {store}"
            ));
        }
        if let Some(problem) = args.without_effect(&config) {
            complain(&format!("warning: {problem}"));
        }
        #[cfg(feature = "postgres")]
        if config.startup.store.url.is_some() {
            let database = Box::new(database(&config)?);
            let master_keys = MasterKeys::load(&config.startup.store, &Random::system())?;
            return Ok(Keys { config, rows: Some((database, master_keys)) });
        }
        Ok(Keys {
            config,
            #[cfg(feature = "postgres")]
            rows: None,
        })
    }
}

/// The signing keys that the commands read and change: those in a directory, or in a database.
struct Keys {
    config: Config,
    /// `None` if the keys are in a directory.
    #[cfg(feature = "postgres")]
    rows: Option<(Box<Database>, MasterKeys)>,
}

impl Keys {
    /// Reads or changes the keys.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut dyn KeyStore) -> Result<T, Vec<Fault>>,
    ) -> Result<T, CliError> {
        #[cfg(feature = "postgres")]
        if let Some((database, master_keys)) = &mut self.rows {
            let done = database.transaction(BULK_LIMIT, |transaction| {
                change(&mut KeyRows::new(transaction, master_keys))
            });
            return Ok(done?);
        }
        Ok(change(&mut KeyDirectory::new(&self.config.live.keys))?)
    }

    /// Returns how long a key is needed. If there is no client registry, assumes that no tokens
    /// exist.
    fn retention(&mut self) -> Result<Retention, CliError> {
        let clients = self.clients()?;
        // The user of this command may have no access to the state directory.
        let lifetimes = Recorded::read(&self.config.startup.state).unwrap_or_default();
        let now = Clock::system().now();
        let mut lifetimes = lifetimes.followed_by(&clients, now);
        #[cfg(feature = "postgres")]
        if let Some((database, _)) = &mut self.rows {
            lifetimes.learn(lifetimes::read(database)?, now);
        }
        Ok(retention(&self.config, &clients, &lifetimes))
    }

    /// Like [`Self::retention`], but fails if there is no client registry, because the registry
    /// sets the lifetimes of tokens.
    fn retention_of_clients(&mut self) -> Result<Retention, CliError> {
        let file = &self.config.live.clients;
        if !self.is_in_database() && !file.exists() {
            return Err(CliError(format!(
                "{}: there is no client registry, which sets the lifetimes of tokens: run this in \
                 the server's directory, or pass its configuration with --config",
                file.display()
            )));
        }
        self.retention()
    }

    fn clients(&mut self) -> Result<Registry, CliError> {
        #[cfg(feature = "postgres")]
        if let Some((database, _)) = &mut self.rows {
            return Ok(client_document::registry(database)?);
        }
        let file = &self.config.live.clients;
        Ok(if file.exists() { client_file::load(file)?.registry } else { Registry::default() })
    }

    fn is_in_database(&self) -> bool {
        self.config.startup.store.url.is_some()
    }

    /// Fails if the directory does not exist, so that a mistyped name does not look like an empty
    /// directory.
    fn require_directory(&self) -> Result<(), CliError> {
        let directory = &self.config.live.keys;
        if self.is_in_database() || directory.is_dir() {
            return Ok(());
        }
        let what = if directory.exists() { "is not a directory" } else { "does not exist" };
        Err(CliError(format!(
            "{}: {what}: pass the server's directory of keys with --keys or --config, or generate \
             the first key with `grantd key generate`",
            directory.display()
        )))
    }

    /// Returns the message that there is no key.
    fn none(&self) -> String {
        if self.is_in_database() {
            return "the store holds no key: `grantd key generate` generates the first".to_owned();
        }
        format!(
            "{}: holds no key (no file *.pem): `grantd key generate` generates the first; if the \
             server has keys, pass their directory with --keys or --config",
            self.config.live.keys.display()
        )
    }

    /// Prints a key that was added. If printing fails, the error says what holds the key.
    fn print(&self, mut described: Value) -> Result<(), CliError> {
        add_dates(&mut described);
        let place = if self.is_in_database() {
            "the store".to_owned()
        } else {
            let name = format!("{}.pem", described["kid"].as_str().unwrap_or_default());
            self.config.live.keys.join(name).display().to_string()
        };
        print(described)
            .map_err(|CliError(problem)| CliError(format!("{problem}; the key is in {place}")))
    }
}
