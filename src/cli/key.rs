//! `grantd key`: makes signing keys and shows where they stand.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{CliError, ServeArgs, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::jose::key_life::Retention;
use crate::jose::key_set::KeySet;
use crate::store::snapshot::Sources;
use crate::store::{client_file, key_directory};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an RSA key. The first signs at once; one beside others is published first and signs
    /// when every cached key set has it.
    Generate {
        #[command(flatten)]
        keys: KeyArgs,
        /// Bits of its modulus: 2048, 3072 or 4096.
        #[arg(long, default_value_t = 2048, value_parser = parse_bits)]
        bits: u16,
    },
    /// Show every key, one JSON object a line.
    List {
        #[command(flatten)]
        keys: KeyArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    /// The directory of signing keys [default: keys].
    #[arg(long, value_name = "DIRECTORY", env = "GRANTD_KEYS")]
    keys: Option<PathBuf>,
    /// Configuration file (TOML), for the age of key sets and the client registry.
    #[arg(long, value_name = "FILE", env = "GRANTD_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Generate { keys, bits } => generate(keys, bits),
        KeyCommand::List { keys } => list(keys),
    }
}

fn generate(args: KeyArgs, bits: u16) -> Result<(), CliError> {
    let (config, retention) = args.resolve()?;
    let now = Clock::system().unix_seconds();
    let key = key_directory::generate(&config.keys, bits, &retention, now)?;
    let times = key.times();
    print(json!({
        "kid": key.key_id(), "bits": key.bits(),
        "published_at": times.published_at, "signs_from": times.signs_from,
    }))
}

fn list(args: KeyArgs) -> Result<(), CliError> {
    let (config, retention) = args.resolve()?;
    let keys = KeySet::new(key_directory::load(&config.keys)?, retention);
    for (key, state) in keys.states(Clock::system().unix_seconds()) {
        let times = key.times();
        print(json!({
            "kid": key.key_id(), "bits": key.bits(), "state": state.to_string(),
            "published_at": times.published_at, "signs_from": times.signs_from,
        }))?;
    }
    Ok(())
}

fn parse_bits(argument: &str) -> Result<u16, String> {
    let bits = argument.parse().ok().filter(|bits| key_directory::KEY_SIZES.contains(bits));
    bits.ok_or_else(|| format!("must be one of {:?}", key_directory::KEY_SIZES))
}

impl KeyArgs {
    fn resolve(self) -> Result<(Config, Retention), CliError> {
        let Self { keys, config } = self;
        let config = ServeArgs { keys, config, ..ServeArgs::default() }.resolve()?;
        let sources = Sources::of(&config);
        // Keys can be made before there are clients; then no token lives yet.
        let clients = if config.clients.exists() {
            client_file::load(&config.clients)?
        } else {
            Default::default()
        };
        let retention = sources.retention(&clients);
        Ok((config, retention))
    }
}
