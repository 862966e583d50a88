//! Who may ask the admin listener for more than whether the server is up.
//!
//! A web page can have a browser on this machine ask for anything, by a name of its own that points
//! here (DNS rebinding), so a request without the token must name this machine by a name that no
//! stranger owns.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::{Request, Uri};
use subtle::ConstantTimeEq;

use crate::http::listener::Peer;
use crate::http::service::single;
use crate::oauth::client_secret::FastHash;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It came from another machine without the token.
    Token,
    /// It names another host.
    Host,
}

/// Lets a request in that has the token, or that a process of this machine has sent to this machine.
pub(super) fn admit<B>(
    request: &Request<B>,
    peer: Peer,
    token: Option<&FastHash>,
) -> Result<(), Closed> {
    let (uri, headers) = (request.uri(), request.headers());
    if token.is_some_and(|token| presents(headers, token)) {
        Ok(())
    } else if !is_here(peer) {
        Err(Closed::Token)
    } else if is_meant_for_here(uri, headers) {
        Ok(())
    } else {
        Err(Closed::Host)
    }
}

/// Whether there is one `Authorization: Bearer`, and it holds this token.
fn presents(headers: &HeaderMap, token: &FastHash) -> bool {
    let value = single(headers, AUTHORIZATION).ok().flatten().unwrap_or_default();
    let (scheme, presented) = value.split_at_checked(BEARER.len()).unwrap_or_default();
    let presented = std::str::from_utf8(presented).unwrap_or_default();
    // The hashes are compared, so that no time tells of the token or its length.
    let is_it = FastHash::of(presented.trim_matches(' ')).ct_eq(token);
    scheme.eq_ignore_ascii_case(BEARER) && bool::from(is_it)
}

/// Whether the other end is on this machine.
fn is_here(peer: Peer) -> bool {
    peer.address().is_none_or(|address| address.ip().to_canonical().is_loopback())
}

/// Whether the request names no host, an IP address or `localhost`. A target in absolute form counts
/// instead of the field (RFC 9112, section 3.2.2).
fn is_meant_for_here(uri: &Uri, headers: &HeaderMap) -> bool {
    let Ok(field) = single(headers, HOST) else { return false };
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    authority.or(field).is_none_or(|named| std::str::from_utf8(named).is_ok_and(is_own_name))
}

/// Whether this is an IP address or `localhost`, perhaps with a port.
fn is_own_name(authority: &str) -> bool {
    let (is_own, rest) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok(), rest)
        }
    };
    is_own && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// RFC 3986, section 3.2.3: any number of digits.
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
            assert!(is_own_name(own), "{own}");
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
            assert!(!is_own_name(other), "{other}");
        }
    }

    #[test]
    fn where_a_request_comes_from() {
        let is_here = |address: &str| is_here(Peer::Tcp(format!("{address}:1").parse().unwrap()));
        for here in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["192.0.2.1", "10.0.0.1", "[::ffff:192.0.2.1]", "[fe80::1]", "0.0.0.0"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
        assert!(super::is_here(Peer::Unix));
    }

    #[test]
    fn from_elsewhere_the_token_alone_opens() {
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
            assert_eq!(ask(elsewhere, host, None, None), Err(Closed::Token), "{host}");
            assert_eq!(ask(elsewhere, host, None, Some(&hash)), Err(Closed::Token), "{host}");
            assert_eq!(ask(elsewhere, host, Some("wrong"), Some(&hash)), Err(Closed::Token));
            assert_eq!(ask(elsewhere, host, Some(token), None), Err(Closed::Token), "{host}");
            assert_eq!(ask(elsewhere, host, Some(token), Some(&hash)), Ok(()), "{host}");
            assert_eq!(ask(here, host, Some(token), Some(&hash)), Ok(()), "{host}");
        }
        for peer in [here, Peer::Unix] {
            assert_eq!(ask(peer, "localhost", None, Some(&hash)), Ok(()));
            assert_eq!(ask(peer, "admin.example", None, Some(&hash)), Err(Closed::Host));
        }
    }

    #[test]
    fn the_token_is_one_whole_field() {
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
