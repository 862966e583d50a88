//! Decides which requests may see more than the health of the server: those with the admin token,
//! and those that come from this machine and whose `Host` is an IP address or `localhost`.
//!
//! The check of `Host` stops DNS rebinding. In this attack, a web page makes a browser on this
//! machine send requests to a host name that belongs to the attacker. The attacker's DNS server
//! resolves this name to the address of this machine. The attack needs such a name, so a request
//! whose `Host` is an IP address or `localhost` cannot be part of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::{Request, Uri};
use subtle::ConstantTimeEq;

use crate::http::listener::Peer;
use crate::http::service::single;
use crate::oauth::client_secret::FastHash;
use crate::oauth::header_field::HeaderField;

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The request comes from another machine and lacks the admin token.
    Token,
    /// The request comes from this machine, but its `Host` is neither an IP address nor
    /// `localhost`.
    Host,
}

/// Admits a request that has the token, or that comes from this machine and whose `Host` is an IP
/// address or `localhost`.
pub(super) fn admit<B>(
    request: &Request<B>,
    peer: Peer,
    token: Option<&FastHash>,
) -> Result<(), Denied> {
    let (uri, headers) = (request.uri(), request.headers());
    if token.is_some_and(|token| presents(headers, token)) {
        Ok(())
    } else if !is_local(peer) {
        Err(Denied::Token)
    } else if host_is_ip_or_localhost(uri, headers) {
        Ok(())
    } else {
        Err(Denied::Host)
    }
}

/// Whether the request has exactly one `Authorization` header and this header consists of the
/// scheme `Bearer` and `token`.
fn presents(headers: &HeaderMap, token: &FastHash) -> bool {
    let value = single(headers, AUTHORIZATION).value().unwrap_or_default();
    let (scheme, presented) = value.split_at_checked(BEARER.len()).unwrap_or_default();
    let presented = std::str::from_utf8(presented).unwrap_or_default();
    // Compares hashes, so that the time depends neither on the token nor on its length.
    let is_it = FastHash::of(presented.trim_matches(' ')).ct_eq(token);
    scheme.eq_ignore_ascii_case(BEARER) && bool::from(is_it)
}

/// Whether the peer is on this machine.
fn is_local(peer: Peer) -> bool {
    peer.address().is_none_or(|address| address.ip().to_canonical().is_loopback())
}

/// Whether the host of the request is absent, an IP address or `localhost`. A target in absolute
/// form overrides the `Host` field (RFC 9112, section 3.2.2).
fn host_is_ip_or_localhost(uri: &Uri, headers: &HeaderMap) -> bool {
    let field = match single(headers, HOST) {
        HeaderField::Repeated => return false,
        once => once.value(),
    };
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    authority.or(field).is_none_or(|named| std::str::from_utf8(named).is_ok_and(is_ip_or_localhost))
}

/// Whether `authority` is an IP address or `localhost`, with or without a port.
fn is_ip_or_localhost(authority: &str) -> bool {
    let (is_own, rest) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok(), rest)
        }
    };
    is_own && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// Whether `port` is a port by RFC 3986, section 3.2.3: only digits, possibly none.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn names_of_this_machine() {
        for own in [
            "localhost",
            "LocalHost:8081",
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.1.2.3:1",
            "[::1]",
            "[::1]:8081",
            "[2001:db8::1]",
            "localhost:",
        ] {
            assert!(is_ip_or_localhost(own), "{own}");
        }
        for other in [
            "",
            ":80",
            "localhost.",
            "localhost.example",
            "a.localhost",
            "127.0.0.1.example",
            "127.1",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[localhost]",
            "[127.0.0.1]",
            "localhost:80:80",
            "localhost:8a",
            "localhost@evil.example",
            "localhost:80@evil.example",
            "evil.example@localhost",
            "127.0.0.1 ",
            "evil.example",
        ] {
            assert!(!is_ip_or_localhost(other), "{other}");
        }
    }

    #[test]
    fn a_loopback_or_unix_peer_is_local() {
        let is_local = |address: &str| is_local(Peer::Tcp(format!("{address}:1").parse().unwrap()));
        for here in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_local(here), "{here}");
        }
        for elsewhere in ["192.0.2.1", "10.0.0.1", "[::ffff:192.0.2.1]", "[fe80::1]", "0.0.0.0"] {
            assert!(!is_local(elsewhere), "{elsewhere}");
        }
        assert!(super::is_local(Peer::Unix));
    }

    #[test]
    fn another_machine_is_admitted_only_with_the_token() {
        let token = "0123456789abcdef0123456789abcdef";
        let hash = FastHash::of(token);
        let [here, elsewhere] =
            ["127.0.0.1:1", "192.0.2.1:1"].map(|at| Peer::Tcp(at.parse().unwrap()));
        let ask = |peer, host: &str, presented: Option<&str>, token| {
            let mut request = Request::builder().uri("/metrics").header(HOST, host);
            if let Some(presented) = presented {
                request = request.header(AUTHORIZATION, format!("Bearer {presented}"));
            }
            admit(&request.body(()).unwrap(), peer, token)
        };
        for host in ["192.0.2.9:8081", "localhost", "admin.example"] {
            assert_eq!(ask(elsewhere, host, None, None), Err(Denied::Token), "{host}");
            assert_eq!(ask(elsewhere, host, None, Some(&hash)), Err(Denied::Token), "{host}");
            assert_eq!(ask(elsewhere, host, Some("wrong"), Some(&hash)), Err(Denied::Token));
            assert_eq!(ask(elsewhere, host, Some(token), None), Err(Denied::Token), "{host}");
            assert_eq!(ask(elsewhere, host, Some(token), Some(&hash)), Ok(()), "{host}");
            assert_eq!(ask(here, host, Some(token), Some(&hash)), Ok(()), "{host}");
        }
        for peer in [here, Peer::Unix] {
            assert_eq!(ask(peer, "localhost", None, Some(&hash)), Ok(()));
            assert_eq!(ask(peer, "admin.example", None, Some(&hash)), Err(Denied::Host));
        }
    }

    #[test]
    fn the_token_is_one_complete_field() {
        let token = "0123456789abcdef0123456789abcdef";
        let are_right = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
            }
            presents(&headers, &FastHash::of(token))
        };
        let right = format!("Bearer {token}");
        for field in [right.clone(), format!("bearer  {token}"), format!("BEARER {token} ")] {
            assert!(are_right(&[&field]), "{field}");
        }
        for field in [token.to_owned(), format!("Basic {token}"), right[..right.len() - 1].into()] {
            assert!(!are_right(&[&field]), "{field}");
        }
        for fields in [&[][..], &[""], &["Bearer"], &["Bearer "], &[&right, &right]] {
            assert!(!are_right(fields), "{fields:?}");
        }
        assert!(!are_right(&[&format!("{right}x")]));
    }
}
