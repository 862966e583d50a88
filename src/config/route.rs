//! Token routes in addition to the documented ones.

use std::str::FromStr;

use serde::de::{Error as _, IntoDeserializer, value};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::address::ConfigError;
use crate::config::page::PageDocument;

/// A kind of token service. The comment on each variant shows the method and the path of the
/// service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dialect {
    /// `POST /connect/token`
    Connect,
    /// `POST /v1/api/oauth/token`
    Vision,
    /// `GET /v1/getAccessToken`
    Firstvision,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Vision, Self::Firstvision];
}

impl FromStr for Dialect {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let read = Self::deserialize(name.into_deserializer());
        read.map_err(|_: value::Error| "a dialect is connect, vision or firstvision".into())
    }
}

/// A path at which a token service answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteSetting {
    /// The whole path, as in `/api/connect/token` or `/o/token/`.
    #[serde(deserialize_with = "route_path")]
    pub path: String,
    /// The token service that answers at this path.
    pub dialect: Dialect,
}

impl RouteSetting {
    /// Whether this route answers requests for `path`. A `firstvision` route also answers every
    /// path below its own path.
    pub fn takes(&self, path: &str) -> bool {
        let below = path.strip_prefix(&*self.path);
        below.is_some_and(|rest| {
            rest.is_empty() || self.dialect == Dialect::Firstvision && rest.starts_with('/')
        })
    }
}

fn route_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    if !path.starts_with('/') {
        Err(D::Error::custom("must begin with a slash"))
    } else if !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b)) {
        Err(D::Error::custom("must be a path as it is in a request: without query or fragment"))
    } else {
        Ok(path)
    }
}

/// The documented paths of the services. A configured route must not match one of them, nor one of
/// the paths of [`PageDocument`].
pub const TAKEN_PATHS: [&str; 12] = [
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/jwks",
    "/connect/introspect",
    "/connect/revocation",
    "/connect/token",
    "/connect/validate",
    "/v1/api/oauth/token",
    "/v1/api/oauth/validateToken",
    "/v1/getAccessToken",
    "/v2/api/oauth/token",
];

/// The documented path that ends with a scope, which is one more segment than the path before it.
const PATH_WITH_SCOPE: &str = "/v1/getAccessToken/{scope}";

/// Whether `path` is an instance of [`PATH_WITH_SCOPE`].
fn ends_with_scope(path: &str) -> bool {
    let base = PATH_WITH_SCOPE.trim_end_matches("{scope}");
    path.strip_prefix(base).is_some_and(|scope| !scope.is_empty() && !scope.contains('/'))
}

/// Returns the index of each route whose path is not allowed, and the reason.
pub(super) fn problems(routes: &[RouteSetting]) -> impl Iterator<Item = (usize, String)> {
    routes.iter().enumerate().filter_map(|(index, route)| {
        let path = &route.path;
        let mut taken = TAKEN_PATHS.into_iter().chain(PageDocument::ALL.map(PageDocument::path));
        let taken = taken.find(|taken| route.takes(taken));
        let with_scope = ends_with_scope(path).then_some(PATH_WITH_SCOPE);
        let problem = if let Some(taken) = taken.or(with_scope) {
            let is_it = taken == path || with_scope.is_some();
            let at = if is_it { "is a path" } else { "would take a path" };
            format!("{at} that is answered already ({taken}): choose another")
        } else if route.dialect == Dialect::Firstvision && path.ends_with('/') {
            "must not end with a slash, because a scope may follow it".to_owned()
        } else if routes[..index].iter().any(|before| before.path == *path) {
            "stands twice: a path has one dialect".to_owned()
        } else {
            return None;
        };
        Some((index, problem))
    })
}
