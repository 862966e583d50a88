//! `grantd check`: would `serve` start, and is it meant so?

mod files;
mod registry;
mod routes;
#[cfg(unix)]
mod service_user;

use std::path::Path;

use crate::cli::{CliError, ServeArgs, addresses, print};
use crate::config::{AssertionAudience, Config, IssuerUrl, ListenAddr};
use crate::oauth::client::{AuthMethod, Registry};
use crate::server::judge;
use crate::store::decoy_key;
use crate::store::revocations::Revocations;
use crate::store::snapshot::{Contents, Sources, certificate_clients, demo_clients};

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let config_file = args.config.clone();
    let config = args.resolve()?;
    #[cfg(feature = "opentelemetry")]
    crate::cli::collector::configured()?;
    let (Contents { clients, keys, .. }, issuer) = load(&config, config_file.as_deref())?;

    let file = config.live.clients.display();
    let demo = demo_clients(&clients);
    if !demo.is_empty() {
        print(format_args!(
            "warning: {file}: the demo clients ({}) have secrets that everyone knows; remove them \
             before others can reach the server",
            demo.join(", ")
        ))?;
    }
    warn_of_certificate_proxies(&config, &clients)?;
    if issuer.is_unspecified() {
        print(format_args!(
            "warning: issuer: {issuer}: no client can ask by this name: {}",
            addresses::ISSUER_ADVICE
        ))?;
    }
    for warning in addresses::warnings(&config) {
        print(format_args!("warning: {warning}"))?;
    }
    for warning in routes::warnings(&config.live.routes, issuer.path()) {
        print(format_args!("warning: {warning}"))?;
    }
    for warning in registry::warnings(&config.live.clients, &clients)? {
        print(format_args!("warning: {warning}"))?;
    }
    for note in registry::notes(&config.live.clients)? {
        print(format_args!("note: {file}: {note}"))?;
    }
    if clients.is_empty() {
        print(format_args!("warning: {file}: no client is registered; see `grantd client add`"))?;
    }
    if !config.startup.admin_listen.is_local() && config.live.admin_token_file.is_none() {
        print(format_args!(
            "warning: admin_listen: {}: other machines, e.g. Prometheus, get 401 from everything but \
             /livez and /readyz; set admin_token_file, or listen on 127.0.0.1",
            config.startup.admin_listen
        ))?;
    }
    if let Some(note) = about_assertions(&clients, config.live.assertion_audience) {
        print(format_args!("note: {note}"))?;
    }
    if keys.is_empty() {
        let directory = config.live.keys.display();
        print(format_args!("note: {directory}: holds no key; `serve` will make one"))?;
    }
    for warning in about_upgrades(&config, &clients) {
        print(warning)?;
    }
    print(format_args!("ok: clients: {}, keys: {}", clients.len(), keys.len()))
}

/// The contents of the files and the issuer, if `serve` would start with them.
fn load(config: &Config, config_file: Option<&Path>) -> Result<(Contents, IssuerUrl), CliError> {
    let mut problems = addresses::check(config);
    let loaded = Sources::of(config).load();
    let judged = loaded.as_ref().ok().map(|loaded| judge(config, &loaded.clients));
    let state =
        [Revocations::check(&config.startup.state), decoy_key::check(&config.startup.state)];
    problems.extend(state.into_iter().filter_map(Result::err).map(|fault| fault.to_string()));
    if let Some(Err(error)) = &judged {
        problems.push(error.to_string());
    }
    let has_no_key = loaded.as_ref().is_ok_and(|loaded| loaded.keys.is_empty());
    let faults = loaded.as_ref().err().cloned().unwrap_or_default();
    problems.extend(faults.iter().map(ToString::to_string));
    problems.extend(files::unwritable(config, has_no_key).iter().map(ToString::to_string));
    #[cfg(unix)]
    problems.extend(service_user::barred(config, config_file).iter().map(ToString::to_string));
    match (loaded, judged) {
        (Ok(contents), Some(Ok(issuer))) if problems.is_empty() => Ok((contents, issuer)),
        _ => Err(CliError(problems.join("\n"))),
    }
}

/// Which clients `assertion_audience` concerns, and what it asks of them. `None` if no client signs
/// assertions.
fn about_assertions(clients: &Registry, audience: AssertionAudience) -> Option<String> {
    let by_assertion = AuthMethod::PrivateKeyJwt;
    let signs = clients.iter().filter(|client| client.auth_methods.contains(by_assertion));
    let mut ids: Vec<_> = signs.map(|client| &*client.id).collect();
    if ids.is_empty() {
        return None;
    }
    ids.sort_unstable();
    let ids = ids.join(", ");
    Some(match audience {
        AssertionAudience::Issuer => format!(
            "assertion_audience = \"issuer\" refuses an assertion whose aud is an endpoint's URL or \
             an array; it concerns these clients of private_key_jwt: {ids}"
        ),
        AssertionAudience::Endpoint => format!(
            "assertion_audience = \"issuer\" is not set, as RFC 7523bis and FAPI 2.0 ask; with it, \
             these clients of private_key_jwt need the issuer as aud, as a string: {ids}; \
             grantd_assertion_audiences_total counts what they send"
        ),
    })
}

/// Who states certificates, beside clients that need one: no proxy, or too many hosts.
fn warn_of_certificate_proxies(config: &Config, clients: &Registry) -> Result<(), CliError> {
    let needing = certificate_clients(clients);
    if needing.is_empty() {
        return Ok(());
    }
    let needing = needing.join(", ");
    let mut proxies = config.live.certificate_proxies().peekable();
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

/// Warnings about settings whose meaning an upgrade changes.
fn about_upgrades(config: &Config, clients: &Registry) -> Vec<&'static str> {
    let is_behind_a_proxy = config.live.trusted_proxies.is_empty()
        && config.startup.listen.iter().all(ListenAddr::is_local)
        && config.live.issuer.as_ref().is_some_and(|issuer| !issuer.is_local());
    let has_remapped_proofs =
        !config.live.routes.is_empty() && clients.iter().any(|client| client.has_dpop_bound_tokens);
    let behind_a_proxy = "warning: trusted_proxies: is empty, and the issuer is not on this \
                          machine: failed attempts of all its clients count for the proxy's \
                          address; name it";
    let remapped_proofs = "note: route: a DPoP proof that is sent to a [[route]] names its URL as \
                           htu, not that of /connect/token";
    let all = [(is_behind_a_proxy, behind_a_proxy), (has_remapped_proofs, remapped_proofs)];
    all.into_iter().filter_map(|(applies, text)| applies.then_some(text)).collect()
}
