//! Finds the IP address and the client network of the client that sent a request. If the peer is a
//! trusted proxy, both come from `X-Forwarded-For`. Otherwise, the peer itself is the client.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;

use crate::config::TrustedProxy;
use crate::http::listener::Peer;
use crate::oauth::client_network::ClientNetwork;

#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress {
    /// The client's address, if a trusted proxy forwards one.
    pub(crate) forwarded: Option<IpAddr>,
    /// The client network for which failed authentications are counted.
    pub(crate) network: ClientNetwork,
    /// Whether the peer sends forwarding headers although it is not trusted. Then the peer is a
    /// proxy that is missing from the configuration, or a client that poses as a proxy.
    pub(crate) has_untrusted_forwarding: bool,
}

impl ClientAddress {
    /// Reads `X-Forwarded-For` from the last entry to the first. Each proxy appends the address
    /// from which it received the request. So the peer wrote the last entry. If that entry names a
    /// trusted proxy, this proxy wrote the next entry to the left, and so on. In this order, the
    /// first address that does not belong to a trusted proxy is the client's address. The client
    /// may have made up the entries to the left of that address.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        let mut hop = peer.address().map(|address| address.ip().to_canonical());
        let is_trusted = |address| proxies.iter().any(|proxy| proxy.is(address));
        if !is_trusted(hop) {
            let has_untrusted_forwarding = headers.keys().any(|name| is_forwarding(name.as_str()));
            let is_local = hop.is_none_or(|address| address.is_loopback());
            let network = network_of(hop);
            let network =
                if has_untrusted_forwarding || is_local { network.shared() } else { network };
            return Self { forwarded: None, network, has_untrusted_forwarding };
        }
        let fields = headers.get_all(FORWARDED_FOR).iter().rev();
        // Each entry is decoded on its own, so that an invalid entry from the client does not
        // invalidate the entries of the proxies.
        let entries = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries {
            // A trusted proxy wrote an entry that is not an address. The search ends, because
            // nothing vouches for the entries to its left.
            let Some(address) = std::str::from_utf8(entry).ok().and_then(read) else { break };
            if !is_trusted(Some(address)) {
                let network = network_of(Some(address));
                return Self { forwarded: Some(address), network, has_untrusted_forwarding: false };
            }
            hop = Some(address);
        }
        let network = network_of(hop).shared();
        Self { forwarded: None, network, has_untrusted_forwarding: false }
    }
}

/// Reads an address with or without a port. An IPv6 address must be in brackets if a port follows;
/// otherwise the brackets are optional.
fn read(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => {
            let with_port = || entry.parse().ok().map(|socket: SocketAddr| socket.ip());
            entry.parse().ok().or_else(with_port)
        }
    };
    address.map(|address| address.to_canonical())
}

/// The client network of `address`. `None` stands for the peer of a Unix socket.
fn network_of(address: Option<IpAddr>) -> ClientNetwork {
    match address {
        None => ClientNetwork::UNIX,
        Some(IpAddr::V4(address)) => ClientNetwork::of_v4(address.into()),
        Some(IpAddr::V6(address)) => ClientNetwork::of_v6(address.into()),
    }
}

/// Whether `name` is the name of a header that normally only proxies send.
fn is_forwarding(name: &str) -> bool {
    matches!(name, FORWARDED_FOR | "forwarded" | "x-real-ip")
}

/// Whether a proxy says that it has forwarded the request.
pub(crate) fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        is_forwarding(name) || name == "via" || name.starts_with("x-forwarded-")
    })
}

const FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn of(peer: &str, fields: &[&str]) -> ClientAddress {
        let proxies = ["10.0.0.0/8", "unix"].map(|proxy| proxy.parse().unwrap());
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        let peer = peer.parse().map_or(Peer::Unix, |ip| Peer::Tcp(SocketAddr::new(ip, 1)));
        ClientAddress::of(peer, &headers, &proxies)
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        for (peer, fields, client) in [
            ("10.0.0.1", &["192.0.2.1"][..], Some("192.0.2.1")),
            ("unix", &["192.0.2.1"], Some("192.0.2.1")),
            ("unix", &["127.0.0.1"], Some("127.0.0.1")),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1, 10.1.1.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.1:4711", "10.1.1.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["[2001:db8::1]:80"], Some("2001:db8::1")),
            ("10.0.0.1", &["[2001:db8::1]"], Some("2001:db8::1")),
            ("10.0.0.1", &["[::ffff:192.0.2.1]"], Some("192.0.2.1")),
            ("10.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["[192.0.2.1]"], None),
            ("10.0.0.1", &["[2001:db8::1"], None),
            ("10.0.0.1", &["\u{e9}, 192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["\u{e9}", "192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["192.0.2.1, \u{e9}"], None),
            ("10.0.0.1", &["192.0.2.1, unknown"], None),
            ("10.0.0.1", &["10.0.0.2"], None),
            ("10.0.0.1", &[], None),
            // The header of a peer that is not trusted is ignored.
            ("192.0.2.7", &["203.0.113.9"], None),
        ] {
            let read = of(peer, fields).forwarded;
            assert_eq!(read, client.map(|ip| ip.parse().unwrap()), "{peer} {fields:?}");
        }
    }

    #[test]
    fn each_client_has_its_own_network_and_unknown_clients_share_that_of_the_nearest_hop() {
        let network = |peer, fields: &[&str]| of(peer, fields).network;
        assert!(!network("192.0.2.7", &[]).is_shared);
        assert_eq!(network("192.0.2.7", &[]), network("10.0.0.1", &["192.0.2.7"]));
        assert_ne!(network("192.0.2.7", &[]), network("192.0.2.8", &[]));
        assert_eq!(network("2001:db8::1", &[]), network("2001:db8::2", &[]));
        assert_ne!(network("2001:db8::1", &[]), network("2001:db8:0:1::1", &[]));
        assert!(!network("unix", &["127.0.0.1"]).is_shared);

        let hop = |address: &str| network_of(address.parse().ok()).shared();
        for (peer, fields, nearest) in [
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.1"], "127.0.0.1"),
            ("::1", &[], "::1"),
            ("unix", &[], "unix"),
            ("unix", &["unknown"], "unix"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("192.0.2.7", &["203.0.113.9"], "192.0.2.7"),
        ] {
            assert_eq!(network(peer, fields), hop(nearest), "{peer} {fields:?}");
        }
    }

    #[test]
    fn forwarding_headers_of_an_untrusted_peer_are_noticed() {
        for (peer, name, is_noticed) in [
            ("192.0.2.7", "x-forwarded-for", true),
            ("192.0.2.7", "forwarded", true),
            ("127.0.0.1", "x-real-ip", true),
            ("192.0.2.7", "x-forwarded-proto", false),
            ("10.0.0.1", "x-real-ip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            let peer = Peer::Tcp(SocketAddr::new(peer.parse().unwrap(), 1));
            let address = ClientAddress::of(peer, &headers, &["10.0.0.0/8".parse().unwrap()]);
            assert_eq!(address.has_untrusted_forwarding, is_noticed, "{name}");
        }
    }
}
