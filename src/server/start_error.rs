//! Why a server does not start.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::fault::Fault;

/// Why a server does not start, or does not take over what it has read again. The text says what to
/// do; settings have their names in the configuration file.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// These clients need certificates, which are not taken from the networks that are trusted.
    #[non_exhaustive]
    CertificateProxies {
        /// Their ids.
        clients: Vec<String>,
    },
    /// The demo clients, whose secrets are public, would be served to others.
    #[non_exhaustive]
    DemoClients {
        /// Their ids.
        clients: Vec<String>,
    },
    /// Faults in files; at least one.
    Files(Vec<Fault>),
    /// Batches were asked for, and this processor or a key does not allow them.
    NoBatches,
    /// The directory holds no key any more. A key is made at the first start only.
    NoKeys(PathBuf),
    /// There is no address to make the issuer's URL of.
    NoIssuer,
    /// One of the operator's own routes may not be where it is.
    Route(String),
    /// The operating system refused something.
    System(io::Error),
}

impl StartError {
    /// The setting to change, by its path in the configuration file; `None` if the fault is elsewhere.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::CertificateProxies { .. } => Some("client_certificate.proxies"),
            Self::DemoClients { .. } => Some("allow_demo_clients"),
            Self::NoBatches => Some("signer"),
            Self::NoIssuer => Some("issuer"),
            Self::Files(_) | Self::NoKeys(_) | Self::Route(_) | Self::System(_) => None,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateProxies { clients } => write!(
                f,
                "client_certificate.proxies is not set, and certificates are not taken from the \
                 networks in trusted_proxies, where every host could pose as any client: clients \
                 that need certificates ({}) would be cut off. Set client_certificate.proxies to \
                 the addresses of the proxies that verify certificates, or to \"unix\"",
                clients.join(", ")
            ),
            Self::DemoClients { clients } => write!(
                f,
                "the demo clients ({}) have secrets that everyone knows, and others could reach \
                 them: listen or the host of issuer is not of this machine alone, or trusted_proxies \
                 or client_certificate.proxies is set. Remove them from the client file, or set \
                 allow_demo_clients",
                clients.join(", ")
            ),
            Self::Files(faults) => {
                for (index, fault) in faults.iter().enumerate() {
                    write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
            Self::NoBatches => f.write_str(
                "signer = batch: this processor has no AVX-512 IFMA, or a key is not of two primes \
                 of 1024, 1536 or 2048 bits: set signer to auto",
            ),
            Self::NoKeys(directory) => {
                let directory = directory.display();
                write!(f, "{directory}: holds no signing key: `grantd key generate` makes one")
            }
            Self::NoIssuer => f.write_str(
                "there is no TCP address to make the issuer's URL of: set issuer to the URL that \
                 clients use",
            ),
            Self::Route(problem) => f.write_str(problem),
            Self::System(error) => error.fmt(f),
        }
    }
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

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
