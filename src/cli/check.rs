//! `grantd check`: would `serve` start?

use crate::cli::{CliError, ServeArgs, print};
use crate::store::decoy_key;
use crate::store::revocations::Revocations;
use crate::store::snapshot::{Sources, demo_clients};

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = args.resolve()?;
    #[cfg(feature = "opentelemetry")]
    crate::cli::collector::configured()?;
    let sources = Sources::of(&config);
    let (clients, keys) = sources.load()?;
    Revocations::check(&config.state)?;
    decoy_key::check(&config.state)?;

    let file = config.clients.display();
    let demo = demo_clients(&clients);
    if !demo.is_empty() {
        print(format_args!(
            "warning: {file}: the demo clients ({}) have secrets that everyone knows; remove them \
             before others can reach the server",
            demo.join(", ")
        ))?;
    }
    if clients.is_empty() {
        print(format_args!("warning: {file}: no client is registered; see `grantd client add`"))?;
    }
    if keys.is_empty() {
        let directory = config.keys.display();
        print(format_args!("note: {directory}: holds no key; `serve` will make one"))?;
    }
    print(format_args!("ok: clients: {}, keys: {}", clients.len(), keys.len()))
}
