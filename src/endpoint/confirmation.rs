//! Binds a token to the client's certificate (RFC 8705) or to the key of its DPoP proof (RFC 9449).

use crate::endpoint::Exchange;
use crate::endpoint::single_use::use_up;
use crate::oauth::client::{AuthMethod, Client};
use crate::oauth::client_certificate::{ClientCertificate, ShownCertificate, Verification};
use crate::oauth::confirmation::Confirmation;
use crate::oauth::dpop::{DpopError, Proof, Target};
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;
use crate::state::uses::{Owner, SingleUse};

/// Returns what the token of the authenticated `client` is bound to. Uses up the DPoP proof, if there
/// is one; it must name the HTTP `method` of the request.
///
/// # Errors
///
/// The [`Cause`], if a certificate or proof that the client needs is missing, or if the proof is
/// not valid.
pub async fn confirm(
    exchange: &Exchange<'_>,
    client: &Client,
    certificate: &ShownCertificate,
    dpop: HeaderField<'_>,
    method: &str,
) -> Result<Confirmation, Cause> {
    let certificate = if client.has_certificate_bound_tokens {
        let shown = certificate.get()?.filter(|shown| may_confirm(shown, client));
        Some(shown.ok_or(Cause::CertificateMissing)?.thumbprint)
    } else {
        None
    };
    let proof = match dpop {
        HeaderField::Absent if client.has_dpop_bound_tokens => {
            return Err(Cause::Dpop(DpopError::Missing));
        }
        HeaderField::Absent => return Ok(Confirmation { certificate, key: None }),
        HeaderField::Repeated => return Err(Cause::Dpop(DpopError::Malformed)),
        HeaderField::Present(proof) => proof,
    };

    let exchange = &exchange.at_present();
    let Exchange { context, snapshot, endpoint, now, .. } = *exchange;
    let url = snapshot.issuer.join(endpoint);
    let target = Target { method, url: &url };
    let proof = Proof::verify(proof, target, now, context.nonces(snapshot)).map_err(Cause::Dpop)?;
    let single_use = SingleUse {
        client_id: &client.id,
        owner: Owner::Key(&proof.thumbprint),
        token_id: &proof.token_id,
        signed_at: proof.issued_at,
        until: proof.until,
    };
    use_up(exchange, single_use).await?;
    Ok(Confirmation { certificate, key: Some(proof.thumbprint) })
}

/// Whether a token of `client` may be bound to `certificate`. A self-signed certificate counts only
/// if the client is registered with its key and with the method `self_signed_tls_client_auth`.
fn may_confirm(certificate: &ClientCertificate, client: &Client) -> bool {
    match certificate.verification {
        Verification::Trusted => true,
        Verification::SelfSigned => {
            client.auth_methods.contains(AuthMethod::SelfSignedTlsClientAuth)
                && certificate.has_key_of(&client.keys)
        }
    }
}
