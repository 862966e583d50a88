//! Checks what depends on several files: the settings together with the clients.

use crate::config::{Config, IssuerUrl, ListenAddr};
use crate::registry::clients::Registry;
use crate::server::start_error::StartError;
use crate::snapshot::{certificate_clients, demo_clients};

/// Checks that `config` is valid together with `clients`, and returns the issuer.
///
/// # Errors
///
/// Every reason why the server must not start, or the reload must be refused.
pub(crate) fn judge(config: &Config, clients: &Registry) -> Result<IssuerUrl, Vec<StartError>> {
    let issuer = issuer_of(config);
    let mut problems: Vec<_> =
        issuer.is_none().then_some(StartError::NoIssuer).into_iter().collect();
    problems.extend(config.live.route_problems().map(StartError::Route));
    let demo = demo_clients(clients);
    if !demo.is_empty() && !config.allows_demo_secrets() {
        let clients = demo.into_iter().map(str::to_owned).collect();
        problems.push(StartError::DemoClients { clients });
    }
    // Some network is trusted to forward addresses, but not certificates, and the proxy of these
    // clients may be in this network. Earlier versions accepted certificates from every trusted
    // network. Without this check, a configuration for an earlier version would lock out these
    // clients without any message.
    let needing = certificate_clients(clients);
    if config.live.leaves_out_a_network() && !needing.is_empty() {
        problems.push(StartError::CertificateProxies { clients: needing });
    }
    issuer.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Returns the configured issuer, or `http://` followed by the first TCP address.
fn issuer_of(config: &Config) -> Option<IssuerUrl> {
    if let Some(issuer) = &config.live.issuer {
        return Some(issuer.clone());
    }
    let first = config.startup.listen.iter().find_map(|address| match address {
        ListenAddr::Tcp(address) => Some(address),
        ListenAddr::Unix(_) => None,
    });
    format!("http://{}", first?).parse().ok()
}
