//! Client certificates that a TLS proxy forwards in a header (RFC 8705).
//!
//! The proxy terminates TLS and reports whether it verified the certificate. This module parses the
//! certificate and compares its names and its public key with those registered for a client.

use std::borrow::Cow;
use std::fmt::Write as _;

use pkcs8::der::asn1::{ObjectIdentifier, UintRef};
use pkcs8::der::referenced::OwnedToRef;
use pkcs8::der::{Decode, Document, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::form::urlencoded;
use crate::jose::public_key::PublicKey;
use crate::jose::thumbprint::{Thumbprint, sha256};
use crate::oauth::error::Cause;

/// How a proxy verified a client certificate. For both variants, the TLS handshake has proven that
/// the client holds the private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// An authority that the proxy trusts issued the certificate. Both the names and the public key
    /// in the certificate may identify a client.
    Trusted,
    /// The certificate is self-signed. Its names prove nothing; its key identifies the client for
    /// which that key is registered.
    SelfSigned,
}

impl Verification {
    /// Reads the value of nginx's `$ssl_client_verify`. `None` for all values that are not in the
    /// `match` below; the request then counts as a request without a certificate.
    ///
    /// The whole value is compared, because a longer value may begin with an accepted value: for a
    /// forged certificate, nginx may send `FAILED:self-signed certificate in certificate chain`.
    pub fn read(header: &[u8]) -> Option<Self> {
        match header {
            b"SUCCESS" => Some(Self::Trusted),
            // OpenSSL 3 writes `self-signed`, OpenSSL 1.1 writes `self signed`.
            b"FAILED:self-signed certificate" | b"FAILED:self signed certificate" => {
                Some(Self::SelfSigned)
            }
            _ => None,
        }
    }
}

/// The client certificate of a request.
#[derive(Default)]
pub enum ShownCertificate {
    /// No trusted proxy has forwarded a verified certificate.
    #[default]
    Absent,
    /// A trusted proxy has forwarded a value that is not a certificate.
    Unreadable,
    /// A trusted proxy has forwarded this certificate.
    Present(Box<ClientCertificate>),
}

impl ShownCertificate {
    /// Reads a URL-encoded PEM certificate, as in nginx's `$ssl_client_escaped_cert`.
    pub fn read(header: &[u8], verification: Verification) -> Self {
        let read = ClientCertificate::read(header, verification);
        read.map_or(Self::Unreadable, |certificate| Self::Present(Box::new(certificate)))
    }

    /// Returns the certificate; `None` if the request has no certificate.
    ///
    /// # Errors
    ///
    /// [`Cause::CertificateUnreadable`].
    pub fn get(&self) -> Result<Option<&ClientCertificate>, Cause> {
        match self {
            Self::Absent => Ok(None),
            Self::Unreadable => Err(Cause::CertificateUnreadable),
            Self::Present(certificate) => Ok(Some(certificate)),
        }
    }
}

/// A client certificate. Every part that any client's authentication may need is parsed for every
/// request. So a request for an unregistered client takes as long as a request for a registered
/// client.
pub struct ClientCertificate {
    /// How the proxy verified the certificate.
    pub verification: Verification,
    /// The subject as formatted by [`distinguished_name`].
    subject: String,
    is_self_issued: bool,
    alternative_names: Vec<CertificateSubject>,
    /// The thumbprint of the public key; `None` if the type of the key is not supported.
    key: Option<Thumbprint>,
    /// The SHA-256 of the certificate in DER: `x5t#S256` (RFC 8705, section 3.1).
    pub thumbprint: Thumbprint,
}

impl ClientCertificate {
    fn read(header: &[u8], verification: Verification) -> Option<Self> {
        let pem = urlencoded::decode_path(std::str::from_utf8(header).ok()?)?;
        let (label, der) = Document::from_pem(pem.trim()).ok()?;
        if label != "CERTIFICATE" {
            return None;
        }
        let certificate = Certificate::from_der(der.as_bytes()).ok()?;
        let content = certificate.tbs_certificate();
        Some(Self {
            verification,
            subject: distinguished_name(content.subject()),
            is_self_issued: content.subject() == content.issuer(),
            alternative_names: alternative_names(content),
            key: public_key(content).map(|key| key.thumbprint),
            thumbprint: sha256(der.as_bytes()),
        })
    }

    /// Whether an authority that the proxy trusts issued the certificate, and `subject` is the
    /// subject or a subject alternative name of the certificate.
    pub fn is_for(&self, subject: &CertificateSubject) -> bool {
        self.verification == Verification::Trusted
            && match subject {
                CertificateSubject::Dn(registered) => self.subject == **registered,
                other => self.alternative_names.contains(other),
            }
    }

    /// Whether the certificate's public key is one of `keys`.
    pub fn has_key_of(&self, keys: &[PublicKey]) -> bool {
        self.key.is_some_and(|own| keys.iter().any(|key| key.thumbprint == own))
    }

    /// Returns the subject if this is a self-issued certificate that the proxy trusts as an
    /// authority. The holder of the authority's private key can issue certificates in the name of
    /// any client.
    pub fn authority(&self) -> Option<&str> {
        let is_authority = self.verification == Verification::Trusted && self.is_self_issued;
        is_authority.then_some(&*self.subject)
    }
}

/// Returns the subject alternative names of the types that a client can register. Empty if the
/// extension is absent, malformed or repeated.
fn alternative_names(content: &TbsCertificate) -> Vec<CertificateSubject> {
    let Ok(Some((_, SubjectAltName(names)))) = content.get_extension() else { return Vec::new() };
    let names = names.iter().filter_map(|name| {
        Some(match name {
            GeneralName::DnsName(name) => CertificateSubject::Dns(name.as_str().into()),
            GeneralName::Rfc822Name(name) => CertificateSubject::Email(name.as_str().into()),
            GeneralName::UniformResourceIdentifier(name) => {
                CertificateSubject::Uri(name.as_str().into())
            }
            GeneralName::IpAddress(name) => CertificateSubject::Ip(name.as_bytes().into()),
            _ => return None,
        })
    });
    names.collect()
}

/// Returns the public key; `None` if its type is not supported.
fn public_key(content: &TbsCertificate) -> Option<PublicKey> {
    let info = content.subject_public_key_info().owned_to_ref();
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA => {
            let numbers = SliceReader::new(key).ok()?.sequence(|numbers| {
                Ok::<_, pkcs8::der::Error>((UintRef::decode(numbers)?, UintRef::decode(numbers)?))
            });
            let (n, e) = numbers.ok()?;
            PublicKey::rsa(n.as_bytes(), e.as_bytes()).ok()
        }
        EC if info.algorithm.parameters_oid().ok()? == P256 => {
            let point = key.strip_prefix(&[4]).filter(|point| point.len() == 64)?;
            PublicKey::p256(&point[..32], &point[32..]).ok()
        }
        ED25519 => PublicKey::ed25519(key).ok(),
        _ => None,
    }
}

/// The subject that a client's certificates must have (RFC 8705, section 2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSubject {
    /// The distinguished name as text (RFC 4514), as in nginx's `$ssl_client_s_dn`.
    Dn(Box<str>),
    /// A DNS name.
    Dns(Box<str>),
    /// A URI.
    Uri(Box<str>),
    /// An IP address in 4 or 16 bytes.
    Ip(Box<[u8]>),
    /// An email address.
    Email(Box<str>),
}

/// Formats a name by RFC 4514 with OpenSSL's short names and unescaped UTF-8, as nginx and
/// `openssl x509 -subject -nameopt RFC2253,-esc_msb` do.
fn distinguished_name(name: &Name) -> String {
    // RFC 4514 writes the last entry first. OpenSSL also reverses the parts of a multi-valued
    // entry. So the loop goes backwards through the parts of all entries.
    let entries: Vec<_> = name.iter_rdn().flat_map(|set| set.iter().enumerate()).collect();
    let mut text = String::new();
    for (position, (index, entry)) in entries.iter().enumerate().rev() {
        write_entry(&mut text, entry);
        if position > 0 {
            text.push(if *index > 0 { '+' } else { ',' });
        }
    }
    text
}

fn write_entry(text: &mut String, entry: &AttributeTypeAndValue) {
    let oid = entry.oid.to_string();
    let known = SHORT_NAMES.iter().find(|(known, _)| *known == oid);
    let value = known.and_then(|(_, name)| Some((*name, string_of(entry)?)));
    if let Some((name, value)) = value {
        text.push_str(name);
        text.push('=');
        write_escaped(text, &value);
        return;
    }
    // The value of an unknown attribute, or a value without a text form, is written as the hex
    // digits of its DER encoding.
    text.push_str(known.map_or(&*oid, |(_, name)| name));
    text.push_str("=#");
    for byte in entry.value.to_der().unwrap_or_default() {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
}

fn string_of(entry: &AttributeTypeAndValue) -> Option<Cow<'_, str>> {
    let bytes = entry.value.value();
    match entry.value.tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        // The standard says that a TeletexString is T.61, but in practice it is Latin-1.
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks(2).map(|pair| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0xD800,
            });
            char::decode_utf16(units).collect::<Result<String, _>>().ok().map(Cow::Owned)
        }
        _ => None,
    }
}

fn write_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().wrapping_sub(1);
    for (index, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', c]),
            ' ' if index == 0 || index == last => text.extend(['\\', c]),
            '#' if index == 0 => text.extend(['\\', c]),
            '\0'..='\x1F' | '\x7F' => {
                // Writing to memory cannot fail.
                let _ = write!(text, "\\{:02X}", c as u32);
            }
            c => text.push(c),
        }
    }
}

/// OpenSSL's short names of the attributes that occur in certificates.
const SHORT_NAMES: [(&str, &str); 18] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
