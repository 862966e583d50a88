//! `grantd check`: would `serve` start?

use crate::cli::{CliError, ServeArgs, print};
use crate::config::Config;
use crate::oauth::client::Registry;
use crate::server::check_certificate_proxies;
use crate::store::revocations::Revocations;
use crate::store::snapshot::{Sources, certificate_clients, demo_clients};

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = args.resolve()?;
    #[cfg(feature = "opentelemetry")]
    crate::cli::collector::configured()?;
    let sources = Sources::of(&config);
    let (clients, keys) = sources.load()?;
    Revocations::check(&config.state)?;
    check_certificate_proxies(&config, &clients).map_err(|error| CliError(error.to_string()))?;

    let file = config.clients.display();
    let demo = demo_clients(&clients);
    if !demo.is_empty() {
        print(format_args!(
            "warning: {file}: the demo clients ({}) have secrets that everyone knows; remove them \
             before others can reach the server",
            demo.join(", ")
        ))?;
    }
    warn_of_certificate_proxies(&config, &clients)?;
    if clients.is_empty() {
        print(format_args!("warning: {file}: no client is registered; see `grantd client add`"))?;
    }
    if keys.is_empty() {
        let directory = config.keys.display();
        print(format_args!("note: {directory}: holds no key; `serve` will make one"))?;
    }
    print(format_args!("ok: clients: {}, keys: {}", clients.len(), keys.len()))
}

/// Who states certificates, beside clients that need one: no proxy, or too many hosts.
fn warn_of_certificate_proxies(config: &Config, clients: &Registry) -> Result<(), CliError> {
    let needing = certificate_clients(clients);
    if needing.is_empty() {
        return Ok(());
    }
    let needing = needing.join(", ");
    let mut proxies = config.certificate_proxies().peekable();
    if proxies.peek().is_none() {
        return print(format_args!(
            "warning: client_certificate.proxies: no proxy may state certificates, which some \
             clients need ({needing}); list its address there or in trusted_proxies"
        ));
    }
    if proxies.all(|proxy| proxy.is_single()) {
        return Ok(());
    }
    print(format_args!(
        "warning: client_certificate.proxies: holds a network, and every host in it can be any \
         client with a certificate ({needing}); list the addresses of the proxies"
    ))
}
