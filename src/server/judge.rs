//! Checks what depends on several files: the settings together with the clients.

use std::path::Path;
use std::{fs, iter};

use crate::config::{ClientCertificates, Config, IssuerUrl, ListenAddr};
use crate::fs::whole_file;
use crate::oauth::client::Client;
use crate::registry::clients::Registry;
use crate::registry::derived::{CertificateClients, has_demo_secret, needs_proxy};
use crate::server::start_error::StartError;

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
    let bars = Bars::of(config);
    let demo = if bars.demo { clients.demo_clients() } else { Vec::new() };
    let needing = if bars.certificates { clients.certificate_clients() } else { Vec::new() };
    problems.extend(problems_of(demo.into_iter().map(str::to_owned).collect(), needing));
    issuer.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Which clients the settings bar.
#[derive(Clone, Copy)]
pub(super) struct Bars {
    /// Clients with a public demo secret, because other machines could use them.
    demo: bool,
    /// Clients that need a certificate. Some network is trusted to forward addresses, but not
    /// certificates, and the proxy of these clients may be in this network. Earlier versions
    /// accepted certificates from every trusted network. Without this bar, a configuration for an
    /// earlier version would lock out these clients without any message.
    certificates: bool,
}

impl Bars {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            demo: !config.allows_demo_secrets(),
            certificates: config.live.leaves_out_a_network(),
        }
    }

    /// Whether `client` must not be served.
    pub(super) fn bars(self, client: &Client) -> bool {
        self.demo && has_demo_secret(client) || self.certificates && needs_proxy(client)
    }

    /// Says why the barred clients `clients`, which are sorted by id, are not served.
    pub(super) fn problems<'c>(
        self,
        clients: impl Iterator<Item = &'c Client> + Clone,
    ) -> Vec<StartError> {
        let demo = clients.clone().filter(|client| self.demo && has_demo_secret(client));
        let mut needing = CertificateClients::default();
        let needs = clients.filter(|client| self.certificates && needs_proxy(client));
        needs.for_each(|client| needing.add(&client.id));
        let demo = demo.map(|client| client.id.to_string());
        problems_of(demo.collect(), needing.names()).collect()
    }
}

/// Returns the error about the demo clients `demo`, and the one about the clients `needing` a
/// certificate, if there are such clients.
fn problems_of(demo: Vec<String>, needing: Vec<String>) -> impl Iterator<Item = StartError> {
    let demo = (!demo.is_empty()).then_some(StartError::DemoClients { clients: demo });
    let needing =
        (!needing.is_empty()).then_some(StartError::CertificateProxies { clients: needing });
    demo.into_iter().chain(needing)
}

/// Returns a warning if clients need a certificate, but no proxy may forward certificates, a proxy
/// may although the operator has not said so, or every host of a network may.
pub(crate) fn about_certificate_proxies(config: &Config, clients: &Registry) -> Option<String> {
    let needing = clients.certificate_clients().join(", ");
    let proxies: Vec<_> = config.live.certificate_proxies().collect();
    if needing.is_empty() {
        None
    } else if proxies.is_empty() {
        Some(format!(
            "no proxy may forward certificates, which some clients need ({needing}); list its \
             address there or in trusted_proxies"
        ))
    } else if config.live.client_certificate.proxies.is_none() {
        let ClientCertificates { verify_header, certificate_header, .. } =
            &config.live.client_certificate;
        let proxies: Vec<_> = proxies.iter().map(|proxy| format!("\"{proxy}\"")).collect();
        let proxies = proxies.join(", ");
        Some(format!(
            "is not set, so all of trusted_proxies may forward certificates: one that passes on \
             the {verify_header} and {certificate_header} of its callers lets each of them pass as \
             any client with a certificate ({needing}); set it to [{proxies}] if these proxies set \
             or remove both fields in every request, else to those that do"
        ))
    } else if proxies.iter().any(|proxy| !proxy.is_single()) {
        Some(format!(
            "holds a network, and every host in it can pass as any client with a certificate \
             ({needing}); list the addresses of the proxies"
        ))
    } else {
        None
    }
}

/// Returns a warning if users other than the owner and group can write the state directory or a file
/// in it.
pub(crate) fn about_state_directory(state: &Path) -> Option<String> {
    let inside = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths = iter::once(state.to_owned()).chain(inside);
    let open = paths.find(|path| {
        fs::metadata(path).is_ok_and(|found| whole_file::is_world_writable(&found.permissions()))
    })?;
    Some(format!(
        "{}: can be written by everyone on this machine, who can make revoked tokens valid again \
         and keep assertions and revocations from being recorded: run chmod o-w on it",
        open.display()
    ))
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
