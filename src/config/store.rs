//! The settings of the store: where clients, keys and revocations are.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::config::address::ConfigError;
use crate::config::number::{LONG, number};

/// The settings of the store. Without [`Self::url`], clients, keys and revocations are in files,
/// and the other settings of the store have no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StoreSettings {
    /// The URL of the PostgreSQL database. `None`: the store is in files.
    pub url: Option<StoreUrl>,
    /// The file of the master keys, which seal private keys in the database: 32 bytes in base64,
    /// one key a line. The first key seals, all of them open.
    pub master_key_file: Option<PathBuf>,
    /// The time between two polls of the database for changes, in milliseconds.
    #[serde(deserialize_with = "number::<_, _, 20, 60_000>")]
    pub poll_ms: u64,
    /// Whether a sealed copy of the store is kept in the state directory, so that the server can
    /// start while the database is away.
    pub cache: bool,
    /// The age of the last successful poll, in seconds, above which the server is not ready. 0: the
    /// server is ready at any age.
    #[serde(deserialize_with = "number::<_, _, 0, LONG>")]
    pub max_staleness: u64,
    /// The file of the certificate authorities, in PEM, that may have issued the certificate of the
    /// database. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

impl StoreSettings {
    /// Returns the name of a setting that contradicts another one, and what is wrong with it.
    pub fn contradiction(&self) -> Option<(&'static str, String)> {
        let Self { poll_ms, max_staleness, .. } = self;
        (*max_staleness > 0 && max_staleness.saturating_mul(1000) <= *poll_ms).then(|| {
            let problem = format!(
                "{max_staleness} s is not longer than store.poll_ms ({poll_ms} ms), so no poll could \
                 make the server ready: raise it, or poll more often"
            );
            ("store.max_staleness", problem)
        })
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: None,
            master_key_file: None,
            poll_ms: 200,
            cache: true,
            max_staleness: 0,
            ca_file: None,
        }
    }
}

/// The URL of a PostgreSQL database:
/// `postgres://user:password@host:port,host:port/database?name=value&…`.
///
/// The password is in no text that is made of this value.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// The URL without the password.
    shown: String,
    hosts: Vec<StoreHost>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    database: Option<String>,
    is_encrypted: Option<bool>,
    may_be_read_only: bool,
    connect_seconds: u64,
    application: Option<String>,
    password_file: Option<PathBuf>,
}

/// A host on which the database may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreHost {
    /// A name, an IP address, or the directory of a Unix socket.
    pub name: String,
    /// The port, which is also part of the name of a Unix socket.
    pub port: u16,
}

impl StoreHost {
    /// Whether the host is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.name.starts_with('/')
    }

    /// Whether nothing that is sent to the host leaves this machine.
    pub fn is_local(&self) -> bool {
        let is_loopback = self.name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        self.is_unix() || is_loopback || self.name.eq_ignore_ascii_case("localhost")
    }
}

impl fmt::Display for StoreHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if self.is_unix() {
            write!(f, "{name}/.s.PGSQL.{port}")
        } else if name.contains(':') {
            write!(f, "[{name}]:{port}")
        } else {
            write!(f, "{name}:{port}")
        }
    }
}

impl StoreUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that says what the URL must be. It quotes no part of the URL but the name
    /// of a parameter, because any other part may be the password.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or("must begin with postgres://")?;
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("must not contain spaces or control characters".into());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        let mut url = Self {
            shown: String::new(),
            hosts: Vec::new(),
            user: given(user)?,
            password: given(password)?.map(Zeroizing::new),
            database: given(database)?,
            is_encrypted: None,
            may_be_read_only: false,
            connect_seconds: DEFAULT_CONNECT_SECONDS,
            application: None,
            password_file: None,
        };
        let (mut hosts, mut port) = (list(authority), None);
        let mut shown = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) =
                parameter.split_once('=').ok_or("has a parameter without `=` after the `?`")?;
            let value = decoded(value)?;
            match name {
                "host" => hosts = list(&value),
                "port" => port = Some(value),
                _ => url.set(name, value)?,
            }
            if name != "password" {
                shown.push(parameter);
            }
        }
        url.hosts =
            hosts.iter().map(|host| parse_host(host, port.as_deref())).collect::<Result<_, _>>()?;
        if url.hosts.is_empty() {
            let problem = "names no host; for a Unix socket, add its directory, as in \
                           ?host=/var/run/postgresql";
            return Err(problem.into());
        }
        url.shown = shown_as(user, authority, database, &shown);
        Ok(url)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        match (name, &*value) {
            ("user", _) => self.user = Some(value),
            ("password", _) => self.password = Some(Zeroizing::new(value)),
            ("dbname", _) => self.database = Some(value),
            ("application_name", _) => self.application = Some(value),
            ("passfile", _) => self.password_file = Some(value.into()),
            ("sslmode", "disable") => self.is_encrypted = Some(false),
            ("sslmode", "require" | "verify-full") => self.is_encrypted = Some(true),
            ("sslmode", _) => return Err(OTHER_SSLMODE.into()),
            ("target_session_attrs", "read-write" | "primary") => self.may_be_read_only = false,
            ("target_session_attrs", "any") => self.may_be_read_only = true,
            ("target_session_attrs", _) => return Err(OTHER_SESSION.into()),
            ("connect_timeout", _) => {
                let seconds = value.parse().ok().filter(|seconds| (1..=60).contains(seconds));
                self.connect_seconds = seconds.ok_or("connect_timeout: must be 1 to 60 seconds")?;
            }
            ("sslrootcert", _) => return Err(SSLROOTCERT.into()),
            _ => return Err(format!("{UNKNOWN_PARAMETER} {}", PARAMETERS.join(", ")).into()),
        }
        Ok(())
    }

    /// The hosts, in the order in which they are tried. There is at least one.
    pub fn hosts(&self) -> &[StoreHost] {
        &self.hosts
    }

    /// The name of the role; `None`: that of the user of the process.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, if the URL has one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.as_str())
    }

    /// The file with the password, in the format of `.pgpass`.
    pub fn password_file(&self) -> Option<&PathBuf> {
        self.password_file.as_ref()
    }

    /// The name of the database; `None`: that of the role.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Whether the connection to `host` is encrypted and the name of the host is verified. By
    /// default, it is if the host is another machine. A Unix socket is never encrypted.
    pub fn is_encrypted(&self, host: &StoreHost) -> bool {
        !host.is_unix() && self.is_encrypted.unwrap_or_else(|| !host.is_local())
    }

    /// Whether a server that accepts no writes, such as a standby, will do.
    pub fn may_be_read_only(&self) -> bool {
        self.may_be_read_only
    }

    /// The most seconds that connecting to one address may take.
    pub fn connect_seconds(&self) -> u64 {
        self.connect_seconds
    }

    /// The name of this program in the views and logs of the database.
    pub fn application(&self) -> &str {
        self.application.as_deref().unwrap_or("grantd")
    }
}

/// The URL without the password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        if !cfg!(feature = "postgres") {
            let problem = "cannot be used: this program was built without the feature postgres";
            return Err(D::Error::custom(problem));
        }
        Self::parse(&text).map_err(D::Error::custom)
    }
}

fn list(hosts: &str) -> Vec<String> {
    hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

fn decoded(text: &str) -> Result<String, ConfigError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.ok().filter(|text| !text.contains(char::is_control));
    Ok(decoded.ok_or("has a %-sequence that is no text in UTF-8")?.into_owned())
}

/// Decodes a part of the URL; `None` if it is empty.
fn given(text: &str) -> Result<Option<String>, ConfigError> {
    Ok(Some(decoded(text)?).filter(|text| !text.is_empty()))
}

fn parse_host(host: &str, port: Option<&str>) -> Result<StoreHost, ConfigError> {
    let (name, own_port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or("has a host with `[` but no `]`")?;
            (name, rest.strip_prefix(':'))
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = match own_port.or(port) {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(
            "has a port that is no number of 1 to 65535; if this is part of the password, write \
             its `/`, `?`, `@`, `:` and `%` as %2F, %3F, %40, %3A and %25",
        )?,
    };
    Ok(StoreHost { name: decoded(name)?, port })
}

/// Returns the URL without the password.
fn shown_as(user: &str, hosts: &str, database: &str, parameters: &[&str]) -> String {
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let database = if database.is_empty() { String::new() } else { format!("/{database}") };
    let slash = if hosts.is_empty() && database.is_empty() { "/" } else { "" };
    let query = if parameters.is_empty() { String::new() } else { "?".to_owned() };
    format!("postgres://{user}{hosts}{slash}{database}{query}{}", parameters.join("&"))
}

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_SECONDS: u64 = 2;
const OTHER_SSLMODE: &str = "sslmode: must be verify-full (or require, which means the same here) \
    or disable: every other mode sends the password to a server that only claims to be the database";
const OTHER_SESSION: &str = "target_session_attrs: must be read-write or any";
const SSLROOTCERT: &str = "sslrootcert: use the setting store.ca_file instead";
const UNKNOWN_PARAMETER: &str = "has an unknown parameter after the `?`; the known ones are";
const PARAMETERS: [&str; 10] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "passfile",
    "password",
    "port",
    "sslmode",
    "target_session_attrs",
    "user",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url_are_read() {
        let url = StoreUrl::parse(
            "postgres://us%40er:se%2Fcret@a,b:6432,[::1]:5433/data?sslmode=verify-full&\
             connect_timeout=7&target_session_attrs=any&application_name=x&passfile=/p",
        )
        .unwrap();
        let hosts: Vec<_> = url.hosts().iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["a:5432", "b:6432", "[::1]:5433"]);
        assert_eq!((url.user(), url.password()), (Some("us@er"), Some("se/cret")));
        assert_eq!((url.database(), url.connect_seconds()), (Some("data"), 7));
        assert_eq!((url.may_be_read_only(), url.application()), (true, "x"));
        assert_eq!(url.password_file(), Some(&PathBuf::from("/p")));
        assert!(url.hosts().iter().all(|host| url.is_encrypted(host)));

        let url = StoreUrl::parse("postgresql:///d?host=/run/pg&port=7&user=u&password=hunter2");
        let url = url.unwrap();
        assert_eq!(url.hosts()[0].to_string(), "/run/pg/.s.PGSQL.7");
        assert_eq!((url.user(), url.password()), (Some("u"), Some("hunter2")));
    }

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        for (url, is_encrypted) in [
            ("postgres://localhost/d", false),
            ("postgres://127.0.0.1/d", false),
            ("postgres://[::1]/d", false),
            ("postgres://%2Frun%2Fpg/d?sslmode=require", false),
            ("postgres://localhost/d?sslmode=require", true),
            ("postgres://db.example/d", true),
            ("postgres://10.0.0.1/d", true),
            ("postgres://db.example/d?sslmode=disable", false),
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert_eq!(parsed.is_encrypted(&parsed.hosts()[0]), is_encrypted, "{url}");
        }
    }

    #[test]
    fn no_text_has_the_password() {
        for (url, shown) in [
            ("postgres://u:hunter2@h/d", "postgres://u@h/d"),
            ("postgresql://:hunter2@h:1,i", "postgres://h:1,i"),
            (
                "postgres://u:hun@ter2@h/d?password=hunter2&sslmode=require",
                "postgres://u@h/d?sslmode=require",
            ),
            ("postgres:///?host=/p&password=hunter2&user=u", "postgres:///?host=/p&user=u"),
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_value(&parsed).unwrap(), shown);
        }
    }

    #[test]
    fn a_faulty_url_is_refused_without_a_quote() {
        for (url, says) in [
            ("mysql://hunter2@h/d", "must begin with postgres://"),
            ("postgres://u:hunter2@/d", "names no host"),
            ("postgres://u:hun/ter2@h/d", "write its `/`"),
            ("postgres://u:hunter2@h:0/d", "1 to 65535"),
            ("postgres://u:hunter2@[::1/d", "no `]`"),
            ("postgres://u:hunter2%ff@h/d", "UTF-8"),
            ("postgres://u:hunter2@h/d?sslmode=prefer", "sslmode: must be verify-full"),
            ("postgres://u:hunter2@h/d?sslrootcert=f", "store.ca_file"),
            ("postgres://u:hunter2@h/d?hunter2=1", "the known ones are application_name"),
            ("postgres://u:hunter2@h/d?connect_timeout=0", "1 to 60"),
            ("postgres://u:hunter2@h/d?x", "without `=`"),
            ("postgres://u:hunter2@h/d e", "spaces"),
        ] {
            let said = StoreUrl::parse(url).unwrap_err().to_string();
            assert!(said.contains(says) && !said.contains("ter2"), "{url}: {said}");
        }
    }
}
