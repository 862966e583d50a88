//! The error of a server that does not start.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::fault::Fault;
use crate::random::NoEntropy;
use crate::signing::backends::NoBatches;

/// The error of a server that does not start, or of a reload that is refused. The text says what to
/// do and calls settings by their names in the configuration file.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Some clients need a certificate, but a network in `trusted_proxies` is not trusted to
    /// forward certificates.
    #[non_exhaustive]
    CertificateProxies {
        /// The ids of the clients that need a certificate.
        clients: Vec<String>,
    },
    /// Other machines could use the demo clients, whose secrets are public.
    #[non_exhaustive]
    DemoClients {
        /// The ids of the demo clients.
        clients: Vec<String>,
    },
    /// Some files of the server have these faults. The list is not empty.
    Files(Vec<Fault>),
    /// The batch signer is configured, but the processor or a key does not support it.
    NoBatches,
    /// A reload found no key in this directory. Only the first start creates a key.
    NoKeys(PathBuf),
    /// No issuer is configured, and the issuer's URL cannot be derived, because no TCP address is
    /// configured.
    NoIssuer,
    /// A configured route has a path that is not allowed.
    Route(String),
    /// Several of these errors.
    Several(Vec<Self>),
    /// An error of the operating system.
    System(io::Error),
}

impl StartError {
    /// Returns the name of the setting to change, as a path in the configuration file. Returns
    /// `None` if the fault is not in a setting.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::CertificateProxies { .. } => Some("client_certificate.proxies"),
            Self::DemoClients { .. } => Some("allow_demo_clients"),
            Self::NoBatches => Some("signer"),
            Self::NoIssuer => Some("issuer"),
            _ => None,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateProxies { clients } => write!(
                f,
                "client_certificate.proxies is not set, but some clients need a certificate ({}). \
                 Certificates are not accepted from the networks in trusted_proxies, where any \
                 host could pose as any client. Set client_certificate.proxies to the addresses of \
                 the proxies that verify certificates, or to \"unix\"",
                clients.join(", ")
            ),
            Self::DemoClients { clients } => write!(
                f,
                "the demo clients ({}) have secrets that everyone knows, and other machines could \
                 use them: listen or the host of issuer is not limited to this machine, or \
                 trusted_proxies or client_certificate.proxies is set. Remove them (`grantd client \
                 remove`), or set allow_demo_clients",
                clients.join(", ")
            ),
            Self::Files(faults) => write_lines(f, faults),
            Self::Several(errors) => write_lines(f, errors),
            Self::NoBatches => f.write_str(
                "signer = batch is not possible: this processor has no AVX-512 IFMA, or a key does \
                 not consist of two primes of 1024, 1536 or 2048 bits; set signer to auto",
            ),
            Self::NoKeys(directory) => {
                let directory = directory.display();
                write!(
                    f,
                    "{directory}: holds no signing key; create one with `grantd key generate`"
                )
            }
            Self::NoIssuer => f.write_str(
                "the issuer's URL is not set, and there is no TCP address to derive it from: set \
                 issuer to the URL that clients use",
            ),
            Self::Route(problem) => f.write_str(problem),
            Self::System(error) => error.fmt(f),
        }
    }
}

fn write_lines(f: &mut fmt::Formatter<'_>, lines: &[impl fmt::Display]) -> fmt::Result {
    for (index, line) in lines.iter().enumerate() {
        write!(f, "{}{line}", if index == 0 { "" } else { "\n" })?;
    }
    Ok(())
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Files(faults) => faults.first().map(|fault| fault as _),
            Self::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Vec<Self>> for StartError {
    fn from(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::Several(errors) }
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Files(vec![fault])
    }
}

impl From<NoEntropy> for StartError {
    fn from(_: NoEntropy) -> Self {
        Self::System(io::Error::other("the operating system provides no random bytes"))
    }
}

impl From<NoBatches> for StartError {
    fn from(_: NoBatches) -> Self {
        Self::NoBatches
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
