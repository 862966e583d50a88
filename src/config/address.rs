//! The addresses that a server listens on, and its issuer URL.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::scalar::{Scalar, scalar};

/// The error for a setting that is not valid. Its text says what the setting must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl<T: Into<String>> From<T> for ConfigError {
    fn from(problem: T) -> Self {
        Self(problem.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The address of a listener: `host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddr {
    /// A host name or address, and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Whether only this machine can reach the listener: its address is a Unix socket, `localhost`
    /// or a loopback address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => {
                is_local_host(address.rsplit_once(':').map_or("", |(host, _)| host))
            }
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = ConfigError;

    fn from_str(address: &str) -> Result<Self, Self::Err> {
        if let Some(path) = address.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("a Unix socket is written unix:/path".into());
            }
            return Ok(Self::Unix(path.into()));
        }
        let (host, port) = address.rsplit_once(':').ok_or(NOT_AN_ADDRESS)?;
        let is_port = port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit());
        let in_brackets = |address: &str, port: &str| {
            let is_ipv6 = address.parse::<Ipv6Addr>().is_ok();
            is_ipv6.then(|| format!("an IPv6 address stands in brackets: [{address}]:{port}"))
        };
        let meant = in_brackets(host, port).filter(|_| is_port);
        if let Some(problem) = meant.or_else(|| in_brackets(address, "8080")) {
            return Err(problem.into());
        }
        let is_host = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic() && !b"/:[]@\"".contains(&b));
        if is_port && (is_host || address.parse::<SocketAddr>().is_ok()) {
            Ok(Self::Tcp(address.to_owned()))
        } else {
            Err(NOT_AN_ADDRESS.into())
        }
    }
}

const NOT_AN_ADDRESS: &str = "an address is written host:port, [::1]:port or unix:/path";

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The permissions of a Unix socket: the mode of its file, as `chmod` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    fn of(bits: u32) -> Option<Self> {
        // The socket's owner, the user of the server, needs read and write permission to connect.
        let is_of_a_socket = bits & !0o777 == 0 && bits & 0o600 == 0o600;
        is_of_a_socket.then_some(Self(bits))
    }
}

/// The default is 0660: the owner and the group of the socket may connect.
impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl FromStr for SocketMode {
    type Err = ConfigError;

    fn from_str(mode: &str) -> Result<Self, Self::Err> {
        let digits = mode.strip_prefix("0o").unwrap_or(mode);
        let is_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let bits = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
        bits.and_then(Self::of).ok_or_else(|| NO_SOCKET_MODE.into())
    }
}

impl Serialize for SocketMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

/// Accepts a string of octal digits, or an octal number of TOML, as in `0o660`.
impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, NO_SOCKET_MODE, |value| {
            let mode = match value {
                Scalar::Text(mode) => mode.parse().ok(),
                // Refuse a number with execute bits: most decimal numbers that were meant as octal
                // have such bits. For example, decimal 440 is 0o670.
                Scalar::Number(bits) if bits & 0o111 == 0 => {
                    bits.try_into().ok().and_then(Self::of)
                }
                Scalar::Number(_) | Scalar::Switch(_) => None,
            };
            mode.ok_or(NO_SOCKET_MODE)
        })
    }
}

const NO_SOCKET_MODE: &str =
    "must be a file mode in octal with read and write for its owner, as in \"0660\" or 0o660";

/// An issuer identifier: an `http` or `https` URL without query or fragment (RFC 8414, section 2;
/// plain `http` is for local use).
///
/// Verifiers compare the issuer byte by byte, so the URL is kept and shown exactly as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl {
    url: String,
    path_start: usize,
}

impl IssuerUrl {
    /// Returns the URL as given.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns the path of the URL without a trailing slash. The path of most issuers is empty.
    pub fn path(&self) -> &str {
        self.url[self.path_start..].trim_end_matches('/')
    }

    /// Returns the issuer's URL followed by `path`. `path` must begin with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }

    /// Whether the URL's host is `localhost` or a loopback address.
    pub fn is_local(&self) -> bool {
        is_local_host(self.host())
    }

    /// Whether the URL's host is `0.0.0.0` or `[::]`. A listener can have this address, but a
    /// client cannot connect to it.
    pub fn is_unspecified(&self) -> bool {
        without_brackets(self.host()).parse::<IpAddr>().is_ok_and(|host| host.is_unspecified())
    }

    fn host(&self) -> &str {
        let authority = self.url[..self.path_start].split_once("//").map_or("", |(_, rest)| rest);
        let port = authority.rfind(':').filter(|&colon| !authority[colon..].contains(']'));
        &authority[..port.unwrap_or(authority.len())]
    }
}

impl FromStr for IssuerUrl {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .ok_or("an issuer begins with http:// or https://, in lower case")?;
        let allowed = |b: u8| b.is_ascii_graphic() && !b"\"#<>?@\\^`{|}".contains(&b);
        if rest.contains(['?', '#', '@', ' ']) {
            return Err("an issuer has no query, fragment, user or space".into());
        }
        if !rest.bytes().all(allowed) {
            return Err(NOT_OF_A_URL.into());
        }
        let authority = rest.find('/').unwrap_or(rest.len());
        if authority == 0 {
            return Err("an issuer names a host".into());
        }
        let read = Self { path_start: url.len() - rest.len() + authority, url: url.to_owned() };
        // Refuse 127.0.0.1:80.evil.example, which looks local but is the name of another host.
        let port = rest[..authority].strip_prefix(read.host()).unwrap_or_default();
        if read.host().is_empty() || !port.bytes().skip(1).all(|byte| byte.is_ascii_digit()) {
            return Err("an issuer's host may be followed by a port number alone".into());
        }
        Ok(read)
    }
}

const NOT_OF_A_URL: &str = "an issuer has a character that no URL has, such as ü or {: write it \
                            percent-encoded in the path, and a host name in Punycode";

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Serializes a type as the text of its `Display`, and deserializes it with its `FromStr`.
macro_rules! as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(ListenAddr);
as_text!(IssuerUrl);
pub(super) use as_text;

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_local_host(host: &str) -> bool {
    let host = without_brackets(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_mode_is_octal() {
        let of = |toml: &str| {
            toml::from_str::<toml::Table>(toml).unwrap()["m"].clone().try_into::<SocketMode>().ok()
        };
        for (toml, bits) in [
            ("m = \"0660\"", 0o660),
            ("m = \"600\"", 0o600),
            ("m = \"0o666\"", 0o666),
            ("m = \"0777\"", 0o777),
            ("m = 0o660", 0o660),
        ] {
            assert_eq!(of(toml).map(SocketMode::bits), Some(bits), "{toml}");
        }
        for toml in [
            "m = 660",
            "m = 600",
            "m = 440",
            "m = \"0440\"",
            "m = \"1660\"",
            "m = \"+660\"",
            "m = \"888\"",
            "m = \"\"",
            "m = -1",
            "m = true",
        ] {
            assert_eq!(of(toml), None, "{toml}");
        }
    }

    #[test]
    fn tells_what_is_local() {
        for local in ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/a", "127.9.9.9:1"] {
            assert!(local.parse::<ListenAddr>().unwrap().is_local(), "{local}");
        }
        for public in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1"] {
            assert!(!public.parse::<ListenAddr>().unwrap().is_local(), "{public}");
        }
        for local in
            ["http://127.0.0.1:8080", "http://localhost/a", "http://[::1]", "http://[::1]:1/"]
        {
            assert!(local.parse::<IssuerUrl>().unwrap().is_local(), "{local}");
        }
        for public in ["https://auth.example.com", "https://localhost.example.com:80"] {
            assert!(!public.parse::<IssuerUrl>().unwrap().is_local(), "{public}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["[::1]:8080", "[::]:0", "127.0.0.1:80", "localhost:80", "a-b.example:1"] {
            assert_eq!(good.parse::<ListenAddr>().unwrap().to_string(), good);
        }
        for bad in [":80", "a", "a:+80", "[::1]", "[a]:80", "http://a:80", "a b:80", "a:65536"] {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_is_kept_as_given() {
        let issuer: IssuerUrl = "https://a.example/tenant/".parse().unwrap();
        assert_eq!(issuer.as_str(), "https://a.example/tenant/");
        assert_eq!(issuer.path(), "/tenant");
        assert_eq!(issuer.join("/connect/token"), "https://a.example/tenant/connect/token");
        assert_eq!("https://a.example".parse::<IssuerUrl>().unwrap().path(), "");
        for bad in ["a.example", "ftp://a", "https://", "https:///x", "https://a?b", "https://a#b"]
        {
            assert!(bad.parse::<IssuerUrl>().is_err(), "{bad}");
        }
        for strange in [
            "http://127.0.0.1:80.evil.example",
            "http://localhost:80-evil.example",
            "http://[::1]:80.evil.example",
            "http://[::1].evil.example",
            "http://127.0.0.1:80:81",
            "http://:80",
        ] {
            let is_local = strange.parse::<IssuerUrl>().is_ok_and(|issuer| issuer.is_local());
            assert!(!is_local, "{strange}");
        }
    }
}
