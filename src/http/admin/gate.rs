//! Decides which requests may see more than the health of the server: those with the admin token,
//! and those that come from this machine and whose `Host` is an IP address or `localhost`.
//!
//! The check of `Host` stops DNS rebinding; see [`crate::http::host`].

use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq;

use crate::http::header::single;
use crate::http::host::is_absent_ip_or_localhost;
use crate::http::listener::Peer;
use crate::oauth::client_secret::FastHash;

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
    } else if is_absent_ip_or_localhost(uri, headers) {
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

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use hyper::header::{HOST, HeaderValue};

    use super::*;

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
