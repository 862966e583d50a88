//! The encodings of a token request.

use std::fmt::Write as _;

/// The encoding of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Urlencoded,
    Multipart,
}

pub(crate) const ENCODINGS: [Encoding; 2] = [Encoding::Urlencoded, Encoding::Multipart];

impl Encoding {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Urlencoded => "application/x-www-form-urlencoded",
            Self::Multipart => "multipart/form-data; boundary=----grantd-7MA4YWxkTrZu0gW",
        }
    }
}

const BOUNDARY: &[u8] = b"----grantd-7MA4YWxkTrZu0gW";

pub(crate) fn encode<N, V>(encoding: Encoding, parameters: &[(N, V)]) -> Vec<u8>
where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    match encoding {
        Encoding::Urlencoded => parameters
            .iter()
            .map(|(name, value)| {
                format!("{}={}", percent_encode(name.as_ref()), percent_encode(value.as_ref()))
            })
            .collect::<Vec<_>>()
            .join("&")
            .into_bytes(),
        Encoding::Multipart => {
            let mut body = Vec::new();
            for (name, value) in parameters {
                let name = quote(name.as_ref());
                body.extend([b"--", BOUNDARY, b"\r\n"].concat());
                body.extend(b"Content-Disposition: form-data; name=");
                body.extend([&name, b"\r\n\r\n".as_slice(), value.as_ref(), b"\r\n"].concat());
            }
            body.extend([b"--", BOUNDARY, b"--\r\n"].concat());
            body
        }
    }
}

/// Returns `name` as a quoted-string (RFC 9110, section 5.6.4).
fn quote(name: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for &byte in name {
        if b"\"\\".contains(&byte) {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

pub(crate) fn percent_encode(text: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in text {
        match byte {
            b' ' => encoded.push('+'),
            _ if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
    }
    encoded
}
