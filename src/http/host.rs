//! Whether the host that a request names is this machine for certain.
//!
//! The check stops DNS rebinding. In this attack, a web page makes a browser on this machine send
//! requests to a host name that belongs to the attacker. The attacker's DNS server resolves this name
//! to the address of this machine. The attack needs such a name, so a request whose `Host` is an IP
//! address or `localhost` cannot be part of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::Uri;
use hyper::header::{HOST, HeaderMap};

use crate::http::header::single;
use crate::oauth::header_field::HeaderField;

/// Whether the host of the request is absent, an IP address or `localhost`. A target in absolute
/// form overrides the `Host` field (RFC 9112, section 3.2.2).
pub(super) fn is_absent_ip_or_localhost(uri: &Uri, headers: &HeaderMap) -> bool {
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
    // A port consists of digits, possibly none (RFC 3986, section 3.2.3).
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    is_own && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
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
}
