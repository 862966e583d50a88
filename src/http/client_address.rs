//! Who is at the far end: the peer itself, or whom a trusted proxy says that it speaks for.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;

use crate::config::TrustedProxy;
use crate::http::listener::Peer;
use crate::oauth::source::Source;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientAddress {
    /// The client's own address, where a trusted proxy stands before it and has stated one.
    pub(crate) forwarded: Option<IpAddr>,
    /// Against what its failures count.
    pub(crate) source: Source,
}

impl ClientAddress {
    /// Reads `X-Forwarded-For` from behind: each entry was written by the hop that the one after it
    /// names, so that what stands in front of the first stranger is only what that stranger says.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        let peer = peer.address().map(|address| address.ip());
        let is_trusted = |address| proxies.iter().any(|proxy| proxy.is(address));
        if !is_trusted(peer) {
            let source = peer.map_or(Source::UNKNOWN, source_of);
            // Whoever says that it forwards for others may be a proxy that nobody has told us of.
            let is_shared =
                source.is_known() && FORWARDING.iter().any(|name| headers.contains_key(*name));
            let source = if is_shared { source.shared() } else { source };
            return Self { forwarded: None, source };
        }
        let fields = headers.get_all(FORWARDED_FOR).iter().rev();
        let entries = fields.flat_map(|field| field.to_str().unwrap_or_default().rsplit(','));
        for entry in entries {
            // What cannot be read was not written by a proxy that we know how to believe.
            let Some(address) = read(entry.trim()) else { break };
            if !is_trusted(Some(address)) {
                return Self { forwarded: Some(address), source: source_of(address) };
            }
        }
        Self::default()
    }
}

/// An address, perhaps with a port.
fn read(entry: &str) -> Option<IpAddr> {
    let address = entry.parse().or_else(|_| entry.parse().map(|socket: SocketAddr| socket.ip()));
    Some(address.ok()?.to_canonical())
}

/// This machine's own address is everybody's who comes through something that runs here.
fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        own if own.is_loopback() => Source::UNKNOWN,
        IpAddr::V4(address) => Source::of_v4(address.into()),
        IpAddr::V6(address) => Source::of_v6(address.into()),
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDING: [&str; 3] = [FORWARDED_FOR, "forwarded", "x-real-ip"];

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn of(peer: &str, fields: &[&'static str]) -> ClientAddress {
        let proxies = ["10.0.0.0/8", "unix"].map(|proxy| proxy.parse().unwrap());
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(field));
        }
        let peer = peer.parse().map_or(Peer::Unix, |ip| Peer::Tcp(SocketAddr::new(ip, 1)));
        ClientAddress::of(peer, &headers, &proxies)
    }

    #[test]
    fn the_last_address_that_no_proxy_has_is_the_clients() {
        for (peer, fields, client) in [
            ("10.0.0.1", &["192.0.2.1"][..], Some("192.0.2.1")),
            ("unix", &["192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1, 10.1.1.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.1:4711", "10.1.1.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["[2001:db8::1]:80"], Some("2001:db8::1")),
            ("10.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["192.0.2.1, nobody"], None),
            ("10.0.0.1", &["10.0.0.2"], None),
            ("10.0.0.1", &[], None),
            // Only a proxy is believed.
            ("192.0.2.7", &["203.0.113.9"], None),
        ] {
            let read = of(peer, fields).forwarded;
            assert_eq!(read, client.map(|ip| ip.parse().unwrap()), "{peer} {fields:?}");
        }
    }

    #[test]
    fn only_an_address_of_ones_own_is_a_source() {
        assert!(of("192.0.2.7", &[]).source.is_known());
        assert_eq!(of("192.0.2.7", &[]).source, of("10.0.0.1", &["192.0.2.7"]).source);
        assert_ne!(of("192.0.2.7", &[]).source, of("192.0.2.8", &[]).source);
        assert_eq!(of("2001:db8::1", &[]).source, of("2001:db8::2", &[]).source);
        assert_ne!(of("2001:db8::1", &[]).source, of("2001:db8:0:1::1", &[]).source);
        for (peer, fields) in [
            ("127.0.0.1", &[][..]),
            ("::1", &[]),
            ("unix", &[]),
            ("10.0.0.1", &[]),
            ("10.0.0.1", &["127.0.0.1"]),
        ] {
            assert!(!of(peer, fields).source.is_known(), "{peer} {fields:?}");
        }
        // A field makes nobody unknown.
        let proxy = of("192.0.2.7", &["203.0.113.9"]).source;
        assert!(proxy.is_known() && proxy.is_shared());
        assert_ne!(proxy, of("192.0.2.7", &[]).source);
    }
}
