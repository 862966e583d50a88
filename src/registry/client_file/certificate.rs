//! Reads the certificate subject of a client: the one name that identifies the client's
//! certificates (RFC 8705, section 2.1.2).

use std::net::IpAddr;

use super::entry::{Field, Reader};
use crate::oauth::client::Client;
use crate::oauth::client_certificate::CertificateSubject;

impl<'t> Reader<'t> {
    pub(super) fn subject(
        &mut self,
        field: Field<'t>,
        client: &mut Client,
        of_text: fn(Box<str>) -> CertificateSubject,
    ) {
        if client.certificate_subject.is_some() {
            self.fault(field, "is one subject too many: a certificate is known by one name");
        }
        let text: Box<str> = self.value(field, "a string").unwrap_or_default();
        if text.is_empty() {
            self.fault(field, "must not be empty");
        }
        client.certificate_subject = Some(of_text(text).into());
    }

    /// Reads a certificate subject that is an IP address.
    pub(super) fn address(&mut self, field: Field<'t>, client: &mut Client) {
        self.subject(field, client, CertificateSubject::Uri);
        let Some(CertificateSubject::Uri(text)) = client.certificate_subject.as_deref() else {
            return;
        };
        let octets = match text.parse() {
            Ok(IpAddr::V4(address)) => address.octets().into(),
            Ok(IpAddr::V6(address)) => address.octets().into(),
            Err(_) => {
                self.fault(field, "must be an IP address");
                Box::default()
            }
        };
        client.certificate_subject = Some(CertificateSubject::Ip(octets).into());
    }
}
