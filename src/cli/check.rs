//! `grantd check`: reports every fault that would keep `serve` from starting, and warns of settings
//! that are probably mistakes.

mod files;
mod loaded;
mod registry;
mod rotation;
mod routes;
#[cfg(unix)]
mod service_user;
mod stop;
#[cfg(feature = "postgres")]
mod store;

use std::path::Path;

use crate::cli::addresses;
use crate::cli::check::loaded::Loaded;
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::settings::ServeArgs;
use crate::clock::Clock;
use crate::config::{AssertionAudience, Config, ListenAddr};
use crate::guard::decoy_key;
use crate::oauth::client::AuthMethod;
use crate::registry::client_file::{self, edit};
use crate::registry::clients::{Draft, Registry};
use crate::registry::registered::Registered;
use crate::server::{about_certificate_proxies, about_state_directory, judge};
use crate::snapshot::files::{Contents, Files};
use crate::snapshot::lifetimes::Recorded;
use crate::snapshot::loss::{Loss, trace_of_use};
use crate::snapshot::retention;
use crate::state::revocations::Revocations;
use crate::state::uses::Uses;

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    check(&args).map_err(|error| args.with_places(&error))
}

fn check(args: &ServeArgs) -> Result<(), CliError> {
    let config_file = args.config.clone();
    let config = args.clone().resolve()?;
    #[cfg(feature = "opentelemetry")]
    crate::cli::collector::configured()?;
    let Loaded { name, text, clients, keys, issuer } = load(&config, config_file.as_deref())?;

    #[cfg(feature = "postgres")]
    if let Some(line) = store::about_snapshot(&config) {
        print(line)?;
    }
    let file = name.display();
    let demo = clients.demo_clients();
    if !demo.is_empty() {
        print(format_args!(
            "warning: {file}: the demo clients ({}) have public secrets; remove them before other \
             machines can reach the server",
            demo.join(", ")
        ))?;
    }
    let of_proxies = about_certificate_proxies(&config, &clients)
        .map(|warning| format!("client_certificate.proxies: {warning}"));
    let of_issuer = issuer.is_unspecified().then(|| {
        let advice = addresses::ISSUER_ADVICE;
        format!("issuer: {issuer}: clients cannot connect to this address: {advice}")
    });
    let warnings = of_proxies
        .into_iter()
        .chain(args.without_effect(&config))
        .chain(about_state_directory(&config.startup.state))
        .chain(of_issuer)
        .chain(addresses::warnings(&config))
        .chain(routes::warnings(&config.live.routes, issuer.path()))
        .chain(registry::warnings(&name, &text, &clients)?);
    for warning in warnings {
        print(format_args!("warning: {warning}"))?;
    }
    for note in registry::notes(&name, &text)? {
        print(format_args!("note: {file}: {note}"))?;
    }
    if clients.is_empty() {
        print(format_args!("warning: {file}: no client is registered; see `grantd client add`"))?;
    }
    if !config.startup.admin_listen.is_local() && config.live.admin_token_file.is_none() {
        print(format_args!(
            "warning: admin_listen: {}: other machines, such as Prometheus, get 401 except from \
             /livez and /readyz; set admin_token_file, or listen on 127.0.0.1",
            config.startup.admin_listen
        ))?;
    }
    for warning in [rotation::warning(&config), stop::warning(&config)].into_iter().flatten() {
        print(format_args!("warning: {warning}"))?;
    }
    if let Some(note) = about_assertions(&clients, config.live.assertion_audience) {
        print(format_args!("note: {note}"))?;
    }
    if keys == 0 {
        let place = if is_in_store(&config) { &*name } else { &*config.live.keys };
        let place = place.display();
        print(format_args!("note: {place}: holds no key; `serve` will generate one"))?;
    }
    let is_behind_a_proxy = config.live.trusted_proxies.is_empty()
        && config.startup.listen.iter().all(ListenAddr::is_local)
        && config.live.issuer.as_ref().is_some_and(|issuer| !issuer.is_local());
    if is_behind_a_proxy {
        print(
            "warning: trusted_proxies: is empty, although the issuer is not on this machine: \
             failed attempts of all clients count for the proxy's address; list it",
        )?;
    }
    if !config.live.routes.is_empty() && clients.iter().any(|client| client.has_dpop_bound_tokens) {
        print(
            "note: route: the htu of a DPoP proof that is sent to a [[route]] must be the URL of \
             that route, not that of /connect/token",
        )?;
    }
    print(format_args!("ok: clients: {}, keys: {}", clients.len(), keys))
}

/// Whether clients and keys are in a database.
fn is_in_store(config: &Config) -> bool {
    config.startup.store.url.is_some()
}

fn load(config: &Config, config_file: Option<&Path>) -> Result<Loaded, CliError> {
    #[cfg(feature = "postgres")]
    if is_in_store(config) {
        return store::load(config);
    }
    load_files(config, config_file)
}

/// Reads the files and determines the issuer's URL. The error lists every fault that would keep
/// `serve` from starting.
fn load_files(config: &Config, config_file: Option<&Path>) -> Result<Loaded, CliError> {
    let mut problems = addresses::check(config);
    let trace = trace_of_use(&config.startup.state);
    let loaded = Files::load(&config.live);
    let lifetimes = Recorded::read(&config.startup.state);
    let lost = loaded.as_ref().ok().map(|Contents { clients, keys, .. }| {
        let now = Clock::system().now();
        let lifetimes = lifetimes.as_ref().ok().cloned().unwrap_or_default();
        let clients = &clients.registry;
        let lifetimes = lifetimes.followed_by(clients, now);
        let retention = retention(config, clients, &lifetimes);
        problems.extend(rotation::fault(config, &retention));
        Loss::find(config, trace, keys, retention.token_lifetime, now)
    });
    let lost = lost.transpose().map(Option::flatten);
    let judged = match &loaded {
        Ok(loaded) => judge(config, &loaded.clients.registry),
        Err(_) => judge(config, &readable_clients(&config.live.clients)),
    };
    let state = [
        Revocations::check(&config.startup.state),
        Uses::check(&config.startup.state),
        decoy_key::check(&config.startup.state),
        lifetimes.map(drop),
        Recorded::check_lock(&config.startup.state),
        lost.as_ref().map(drop).map_err(Clone::clone),
    ];
    problems.extend(state.into_iter().filter_map(Result::err).map(|fault| fault.to_string()));
    let judged = judged.map_err(|errors| {
        problems.extend(errors.into_iter().map(|error| CliError::from(error).0));
    });
    let has_no_key = loaded.as_ref().is_ok_and(|loaded| loaded.keys.is_empty());
    let faults = loaded.as_ref().err().cloned().unwrap_or_default();
    problems.extend(faults.iter().map(ToString::to_string));
    problems.extend(files::unwritable(config, has_no_key).iter().map(ToString::to_string));
    #[cfg(unix)]
    problems.extend(service_user::barred(config, config_file).iter().map(ToString::to_string));
    match (loaded, judged) {
        (Ok(contents), Ok(issuer)) if problems.is_empty() => {
            if let Ok(Some(loss)) = lost {
                print(format_args!("warning: {}", loss.text))?;
            }
            let (name, keys) = (config.live.clients.clone(), contents.keys.len());
            let text = client_file::read(&name)?;
            Ok(Loaded { name, text, clients: contents.clients.registry, keys, issuer })
        }
        _ => Err(CliError(problems.join("\n"))),
    }
}

/// Reads the clients of `file` whose entries are valid. `check` needs them to find faults of the
/// configuration even if other entries have faults.
fn readable_clients(file: &Path) -> Registry {
    let Ok(text) = client_file::read(file) else { return Registry::default() };
    let mut clients = Draft::new(0, None);
    for entry in edit::entries(&text).into_iter().flatten() {
        if let Ok(client) = client_file::check_entry(file, 1, entry) {
            clients.insert(Registered::new(client));
        }
    }
    clients.finish()
}

/// Returns a note that explains `assertion_audience` and lists the clients that use assertions
/// (`private_key_jwt`). `None` if no client uses assertions.
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
            "assertion_audience = \"issuer\" refuses an assertion whose aud is an endpoint's URL \
             or an array; it applies to these private_key_jwt clients: {ids}"
        ),
        AssertionAudience::Endpoint => format!(
            "assertion_audience = \"issuer\" is not set, which RFC 7523bis and FAPI 2.0 require; \
             with it, these private_key_jwt clients must send the issuer as aud, as a string: \
             {ids}; grantd_assertion_audiences_total counts the forms that clients send"
        ),
    })
}
