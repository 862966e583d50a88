//! Proxies that are trusted to forward a client's address and its certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::address::{ConfigError, as_text};

/// A trusted proxy in front of this server. An entry trusts one IP address, all addresses of a
/// network, or all peers of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustedProxy {
    /// Every IP address whose first bits are equal to the first bits of the given address. The
    /// second value is the number of these bits.
    Network(IpAddr, u8),
    /// Every peer of a Unix socket.
    Unix,
}

impl TrustedProxy {
    /// Whether this is a single IP address or the Unix sockets of this machine, and not a network
    /// of many hosts.
    pub fn is_single(self) -> bool {
        match self {
            Self::Network(address, bits) => bits == width(address),
            Self::Unix => true,
        }
    }

    /// Whether `peer` is this proxy or in this network. `None` is the peer of a Unix socket.
    pub fn is(self, peer: Option<IpAddr>) -> bool {
        match (self, peer.map(|peer| peer.to_canonical())) {
            (Self::Unix, None) => true,
            (Self::Network(network, bits), Some(peer)) if width(network) == width(peer) => {
                let differing = bits_of(network) ^ bits_of(peer);
                u32::from(bits) <= differing.leading_zeros()
            }
            _ => false,
        }
    }
}

/// Returns the number of bits of an address.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Returns the bits of an address. Its first bit is the most significant one.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

impl FromStr for TrustedProxy {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("unix") {
            return Ok(Self::Unix);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| NOT_A_PROXY)?;
        let most = width(address);
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(NOT_A_PROXY)?,
            None => most,
        };
        // Refuse an address that has bits set after the prefix: it is unclear which network was
        // meant.
        match bits_of(address).checked_shl(bits.into()) {
            None | Some(0) => Ok(Self::Network(address, bits)),
            Some(_) => Err(NOT_A_PROXY.into()),
        }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address, _) if self.is_single() => address.fmt(f),
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

as_text!(TrustedProxy);

const NOT_A_PROXY: &str = "a trusted proxy is an address, a network as in 10.0.0.0/8, or \"unix\"";

/// The proxies that forward client certificates, and the headers that they use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// The proxies that are trusted to forward client certificates. `None`: the proxies in
    /// [`Live::trusted_proxies`] that are a single address or `unix`. If this list contains a
    /// network, every host in the network can impersonate any client that authenticates with a
    /// certificate.
    ///
    /// [`Live::trusted_proxies`]: crate::config::Live::trusted_proxies
    pub proxies: Option<Vec<TrustedProxy>>,
    /// The header in which the proxy says whether it verified the certificate. Its value in nginx
    /// is `$ssl_client_verify`.
    #[serde(deserialize_with = "header_name")]
    pub verify_header: String,
    /// The header in which the proxy sends the certificate as URL-encoded PEM. Its value in nginx
    /// is `$ssl_client_escaped_cert`.
    #[serde(deserialize_with = "header_name")]
    pub certificate_header: String,
}

impl Default for ClientCertificates {
    fn default() -> Self {
        Self {
            proxies: None,
            verify_header: "X-Client-Cert-Verify".to_owned(),
            certificate_header: "X-Client-Cert".to_owned(),
        }
    }
}

/// Deserializes the name of a header field, which must be a token (RFC 9110, section 5.1).
fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.is_empty() && name.bytes().all(allowed) {
        Ok(name)
    } else {
        Err(D::Error::custom("must be the name of a header field"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_only() {
        let peer = |text: &str| Some(text.parse().unwrap());
        for (proxy, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.0/23", "::ffff:10.1.3.9", "10.1.4.0"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
        ] {
            let proxy: TrustedProxy = proxy.parse().unwrap();
            assert!(proxy.is(peer(inside)), "{inside}");
            assert!(!proxy.is(peer(outside)), "{outside}");
            assert!(!proxy.is(None));
        }
        for (proxy, is_single) in [
            ("unix", true),
            ("10.0.0.1", true),
            ("10.0.0.1/32", true),
            ("10.0.0.0/31", false),
            ("::1/128", true),
            ("fd00::/127", false),
        ] {
            assert_eq!(proxy.parse::<TrustedProxy>().unwrap().is_single(), is_single, "{proxy}");
        }
        assert!(TrustedProxy::Unix.is(None));
        assert!(!TrustedProxy::Unix.is(peer("127.0.0.1")));
        for bad in ["", "unix:/a", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "::/129", "a", "*"] {
            assert!(bad.parse::<TrustedProxy>().is_err(), "{bad}");
        }
    }
}
