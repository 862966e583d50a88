//! `grantd key`: makes signing keys, takes them out of use and shows where they stand.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::live::{self, AdminArgs, WaitArgs};
use crate::cli::settings::{ServeArgs, value_of};
use crate::cli::{CliError, complain, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::fault::text;
use crate::jose::key_life::{KeyTimes, Retention, Retirement};
use crate::jose::key_set::{KeySet, SigningKey};
use crate::store::client_file;
use crate::store::key_directory::{self, Replaced, Rotated};
use crate::store::snapshot::Sources;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an RSA key. The first signs at once; one beside others is published first and signs
    /// when every cached key set has it.
    Generate {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        size: SizeArg,
    },
    /// Make an RSA key that takes over from the one that signs, when every cached key set has it.
    ///
    /// Refused while another one waits for that.
    Rotate {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        size: SizeArg,
        /// For keys that have leaked: the new key signs at once, all others are retired, and their tokens
        /// become invalid.
        #[arg(long)]
        now: bool,
        /// With --now, a key that is not taken out.
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
    /// Retire the keys whose last token has expired.
    ///
    /// A key is renamed to `<kid>.pem.retired`; nothing is lost. A running server notices by itself.
    Retire {
        #[command(flatten)]
        keys: KeyArgs,
        /// A key to take out too, whatever its state: one that has leaked. The tokens that it has
        /// signed are worthless as soon as verifiers read the key set again.
        #[arg(value_name = "KID", value_parser = parse_key_id, allow_hyphen_values = true)]
        key_id: Option<String>,
    },
    /// Take in an RSA key that was made elsewhere, as if it were made now.
    Import {
        #[command(flatten)]
        keys: KeyArgs,
        /// A PKCS#8 document in PEM; - is standard input.
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
    /// Show every key, one JSON object a line.
    List {
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        server: AdminArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    /// The directory of signing keys [env: GRANTD_KEYS] [default: as `serve` has it, keys].
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath,
          value_parser = value_of("keys"))]
    keys: Option<String>,
    /// Configuration file (TOML), for the directory, the age of key sets and the client registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
    /// The client registry, which says how long tokens live [env: GRANTD_CLIENTS] [default: as
    /// `serve` has it, clients.json].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          value_parser = value_of("clients"))]
    clients: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct SizeArg {
    /// Bits of its modulus: 2048, 3072 or 4096.
    #[arg(long, default_value_t = 2048, value_parser = parse_bits)]
    bits: u16,
}

pub(super) fn run(command: KeyCommand) -> Result<(), CliError> {
    let now = Clock::system().unix_seconds();
    match command {
        KeyCommand::Generate { keys, size } => {
            let (config, retention) = keys.resolve()?;
            let key = key_directory::generate(&config.live.keys, size.bits, &retention, now)?;
            print_key(describe(&key), &config.live.keys)
        }
        KeyCommand::Rotate { keys, size, now: true, keep, server } => {
            replace(keys, size.bits, keep.as_deref(), &server, now)
        }
        KeyCommand::Rotate { keys, size, now: false, keep: _, server } => {
            rotate(keys, size.bits, &server, now)
        }
        KeyCommand::Retire { keys, key_id } => retire(keys, key_id.as_deref(), now),
        KeyCommand::Import { keys, from } => import(keys, &from, now),
        KeyCommand::List { keys, server } => list(keys, &server, now),
    }
}

fn rotate(args: KeyArgs, bits: u16, server: &WaitArgs, now: u64) -> Result<(), CliError> {
    let (config, retention) = args.resolve_with_clients()?;
    let Rotated { made, signing, retirement } =
        key_directory::rotate(&config.live.keys, bits, &retention, now)?;
    let Retirement { retires_at, gone_at } = retirement;
    let mut described = describe(&made);
    described.insert(
        "retires".to_owned(),
        json!({ "kid": signing, "retires_at": retires_at, "gone_at": gone_at }),
    );
    print_key(described, &config.live.keys)?;
    wait_for(&made, server, &["published", "signing"])
}

/// For a leak: a key that signs at once instead of all others.
fn replace(
    args: KeyArgs,
    bits: u16,
    keep: Option<&str>,
    server: &WaitArgs,
    now: u64,
) -> Result<(), CliError> {
    // No registry is read: one that is broken must not be in the way.
    let config = args.configuration()?;
    let Replaced { made, retired } = key_directory::replace(&config.live.keys, bits, keep, now)?;
    let mut described = describe(&made);
    described.insert("retired".to_owned(), json!(retired));
    let verifiers = format!(
        "those with a copy of the key set refuse tokens of the new key, and accept those of the \
         retired keys, until they fetch it again: within {} s, or as soon as they meet an unknown \
         kid if they fetch it then",
        config.live.jwks_max_age
    );
    described.insert("verifiers".to_owned(), verifiers.into());
    print_key(described, &config.live.keys)?;
    wait_for(&made, server, &["signing"])
}

/// Waits until the server, if one is named, has the key in one of these states.
fn wait_for(key: &SigningKey, server: &WaitArgs, states: &[&str]) -> Result<(), CliError> {
    server.wait_until(&format!("key {}", key.key_id()), "/keys", |keys| {
        let mut keys = keys.and_then(Value::as_array).into_iter().flatten();
        let found = keys.find(|known| known["kid"] == key.key_id());
        let state = found.and_then(|known| known["state"].as_str());
        state.is_some_and(|state| states.contains(&state))
    })
}

/// A directory that was mistyped is not one without keys.
fn require_directory(directory: &Path) -> Result<(), CliError> {
    if directory.is_dir() {
        return Ok(());
    }
    let what = if directory.exists() { "is no directory" } else { "does not exist" };
    Err(CliError(format!(
        "{}: {what}: name the server's directory of keys with --keys or --config, or make a first \
         key with `grantd key generate`",
        directory.display()
    )))
}

fn retire(args: KeyArgs, key_id: Option<&str>, now: u64) -> Result<(), CliError> {
    let (config, retention) = args.resolve_with_clients()?;
    require_directory(&config.live.keys)?;
    for retired in key_directory::retire(&config.live.keys, key_id, &retention, now)? {
        print(json!({
            "kid": retired.key_id, "state": retired.state.to_string(), "file": retired.file,
        }))?;
    }
    Ok(())
}

fn import(args: KeyArgs, from: &Path, now: u64) -> Result<(), CliError> {
    let (config, retention) = args.resolve()?;
    let (source, text) = if from == Path::new("-") {
        let source = Path::new("standard input");
        (source, Zeroizing::new(text::read_from(io::stdin().lock(), source)?))
    } else {
        (from, key_directory::read(from)?)
    };
    let key = key_directory::import(&config.live.keys, source, &text, &retention, now)?;
    print_key(describe(&key), &config.live.keys)
}

/// Shows a key that has just come into `directory`; where that fails, it is there all the same.
fn print_key(described: Map<String, Value>, directory: &Path) -> Result<(), CliError> {
    let file = directory.join(format!("{}.pem", described["kid"].as_str().unwrap_or_default()));
    print(Value::Object(described)).map_err(|CliError(problem)| {
        CliError(format!("{problem}; the key is in {}", file.display()))
    })
}

fn list(args: KeyArgs, server: &AdminArgs, now: u64) -> Result<(), CliError> {
    let (config, retention) = args.resolve()?;
    require_directory(&config.live.keys)?;
    let keys = KeySet::new(key_directory::load(&config.live.keys)?, retention);
    if keys.iter().next().is_none() {
        let directory = config.live.keys.display();
        complain(&format!(
            "{directory}: holds no key (no file *.pem): `grantd key generate` makes the first; if \
             the server has one, name its directory with --keys or --config"
        ));
    }
    let live = server.ask("/keys", "is an older one")?;
    for (_, mut described) in keys.describe(now) {
        if let Some(live) = &live {
            live::add_figures(&mut described, live, "kid", &["fetches", "last_fetch"]);
        }
        print(Value::Object(described))?;
    }
    Ok(())
}

/// A key that has just come into the directory.
fn describe(key: &SigningKey) -> Map<String, Value> {
    let KeyTimes { published_at, signs_from } = key.times();
    [
        ("kid", key.key_id().into()),
        ("bits", key.bits().into()),
        ("published_at", published_at.into()),
        ("signs_from", signs_from.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

fn parse_bits(argument: &str) -> Result<u16, String> {
    let bits = argument.parse().ok().filter(|bits| key_directory::KEY_SIZES.contains(bits));
    bits.ok_or_else(|| format!("must be one of {:?}", key_directory::KEY_SIZES))
}

/// It may begin with a hyphen, and what is no key's name is likely a mistyped flag.
fn parse_key_id(argument: &str) -> Result<String, String> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if argument.len() == THUMBPRINT_CHARS && argument.bytes().all(is_base64url) {
        Ok(argument.to_owned())
    } else {
        Err("must be a kid, as `grantd key list` shows it".to_owned())
    }
}

/// Of 32 bytes in base64url.
const THUMBPRINT_CHARS: usize = 43;

impl KeyArgs {
    /// The same where a registry is needed: without one, nobody knows how long tokens live.
    fn resolve_with_clients(self) -> Result<(Config, Retention), CliError> {
        let (config, retention) = self.resolve()?;
        if config.live.clients.exists() {
            return Ok((config, retention));
        }
        Err(CliError(format!(
            "{}: there is no client registry, and so no knowing how long tokens live: run this \
             where it is, or name the server's configuration with --config",
            config.live.clients.display()
        )))
    }

    fn configuration(self) -> Result<Config, CliError> {
        let Self { keys, config, clients } = self;
        ServeArgs { keys, config, clients, ..ServeArgs::default() }.resolve()
    }

    fn resolve(self) -> Result<(Config, Retention), CliError> {
        let config = self.configuration()?;
        let sources = Sources::of(&config);
        // Keys can be made before there are clients; then no token lives yet.
        let clients = if config.live.clients.exists() {
            client_file::load(&config.live.clients)?
        } else {
            Default::default()
        };
        let retention = sources.retention(&clients);
        Ok((config, retention))
    }
}
