//! TLS to the database. The certificate must be issued by a known authority for the name of the
//! host in the URL.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{StoreHost, StoreSettings};
use crate::fault::{Fault, text};
use crate::store::postgres::failure::{About, Failure, clean};

/// Reads the certificate authorities.
///
/// # Errors
///
/// A [`Fault`] if there are none.
pub(super) fn connector(settings: &StoreSettings) -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(file) => {
            let text = text::read(file)?;
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate =
                    certificate.map_err(|_| Fault::new(file, "holds PEM that cannot be read"))?;
                roots.add(certificate).map_err(|_| {
                    Fault::new(file, "holds a certificate that is none of an authority")
                })?;
            }
            if roots.is_empty() {
                let problem = "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)";
                return Err(Fault::new(file, problem));
            }
        }
        // The errors concern single files; those of the other files are of use.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Path::new("store.ca_file"), error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks the server for TLS, and makes the handshake.
pub(super) async fn encrypt<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connector: &TlsConnector,
    host: &StoreHost,
    about: &About<'_>,
) -> Result<TlsStream<S>, Failure> {
    let name = ServerName::try_from(host.name.clone())
        .map_err(|_| about.refused("the name of the host cannot be that of a certificate"))?;
    let of_io = |error: io::Error| Failure::of_io(&error, about);
    stream.write_all(&REQUEST).await.map_err(of_io)?;
    match stream.read_u8().await.map_err(of_io)? {
        b'S' => {}
        b'N' => {
            return Err(about.refused(
                "offers no TLS, which is demanded of a database on another machine: set ssl = on \
                 in its postgresql.conf; or, if every machine between is trusted with the \
                 password, add sslmode=disable to the URL",
            ));
        }
        other => return Err(about.malformed(&format!("byte {other} in reply to a TLS request"))),
    }
    connector.connect(name, stream).await.map_err(|error| of_handshake(&error, host, about))
}

fn of_handshake(error: &io::Error, host: &StoreHost, about: &About<'_>) -> Failure {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let name = &host.name;
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => about.refused(&match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "has a certificate for another name than {name}: write the name of the \
                     certificate into the URL, or give the database a certificate for {name}"
                )
            }
            CertificateError::UnknownIssuer => "has a certificate of an unknown authority: set \
                                                store.ca_file to the certificate of the authority \
                                                that issued it"
                .to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has a certificate that has expired: renew it".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "has a certificate that is not valid yet: check the clocks".to_owned()
            }
            other => {
                format!("has a certificate that cannot be accepted: {}", clean(&other.to_string()))
            }
        }),
        Some(other) => about.malformed(&clean(&format!("in the TLS handshake: {other}"))),
        None => Failure::of_io(error, about),
    }
}

/// The request for TLS: its length, and the number of the request.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
