//! What a client registers of its certificates: the one name by which they are known.

use serde_json::value::RawValue;

use super::entry::{Place, Reader};
use crate::oauth::client_certificate::CertificateSubject;

/// The fields of RFC 8705, section 2.1.2, in the order of [`FIELDS`].
pub(super) type SubjectFields<'t> = [Option<&'t RawValue>; 5];

impl<'t> Reader<'t> {
    /// The one subject among `fields`.
    pub(super) fn certificate_subject(
        &mut self,
        fields: SubjectFields<'t>,
        index: Option<usize>,
    ) -> Option<CertificateSubject> {
        let mut subject = None;
        for (raw, field) in fields.into_iter().zip(FIELDS) {
            let Some(raw) = raw else { continue };
            let at = Place { index, field };
            if subject.is_some() {
                self.fault(raw, at, "is one subject too many: a certificate is known by one name");
            }
            let text: String = self.value(Some(raw), at, "a string").unwrap_or_default();
            if text.is_empty() {
                self.fault(raw, at, "must not be empty");
            }
            subject = Some(match field {
                SAN_DNS => CertificateSubject::Dns(text.into()),
                SAN_URI => CertificateSubject::Uri(text.into()),
                SAN_EMAIL => CertificateSubject::Email(text.into()),
                SAN_IP => CertificateSubject::Ip(self.octets(&text, raw, at).into()),
                _ => CertificateSubject::Dn(text.into()),
            });
        }
        subject
    }

    fn octets(&mut self, text: &str, raw: &RawValue, at: Place) -> Vec<u8> {
        match text.parse() {
            Ok(std::net::IpAddr::V4(address)) => address.octets().to_vec(),
            Ok(std::net::IpAddr::V6(address)) => address.octets().to_vec(),
            Err(_) => {
                self.fault(raw, at, "must be an IP address");
                Vec::new()
            }
        }
    }
}

const SAN_DNS: &str = "tls_client_auth_san_dns";
const SAN_URI: &str = "tls_client_auth_san_uri";
const SAN_IP: &str = "tls_client_auth_san_ip";
const SAN_EMAIL: &str = "tls_client_auth_san_email";
const FIELDS: [&str; 5] = ["tls_client_auth_subject_dn", SAN_DNS, SAN_URI, SAN_IP, SAN_EMAIL];
