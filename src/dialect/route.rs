//! Maps a request's path to its route, and holds what a route implies: its dialect, its methods,
//! its label in logs and metrics.

use crate::config::{Dialect, PageDocument, RouteSetting};
use crate::dialect::vision::Version;
use crate::endpoint::metadata::{INTROSPECTION_PATH, JWKS_PATH, REVOCATION_PATH, TOKEN_PATH};
use crate::snapshot::Snapshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'r> {
    /// `POST /connect/token`
    ConnectToken,
    /// `POST /v1/api/oauth/token` and `POST /v2/api/oauth/token`
    VisionToken(Version),
    /// `POST /v1/api/oauth/validateToken`
    VisionValidate,
    /// `GET /v1/getAccessToken`, optionally with a scope as the last path segment
    FirstvisionToken(Option<&'r str>),
    /// `GET /connect/validate`
    Validate,
    /// `POST /connect/introspect`
    Introspection,
    /// `POST /connect/revocation`
    Revocation,
    /// The metadata of RFC 8414 and of OpenID Connect Discovery
    ServerMetadata,
    /// The key set
    KeySet,
    /// The page, or a document beside it
    Page(PageDocument),
    /// A path without a route. The request is refused in the dialect of the path's prefix.
    Unknown(Dialect),
}

impl<'r> Route<'r> {
    /// Finds the route of `path`. `issuer_path` is the path of the issuer's URL, usually empty.
    /// Every route also exists below `issuer_path`, for proxies that do not strip it. `settings`
    /// are the routes that the operator has configured.
    pub(crate) fn of(path: &'r str, issuer_path: &str, settings: &[RouteSetting]) -> Self {
        // RFC 8414, section 3.1 puts the well-known path in front of the issuer's path.
        if path.strip_prefix(OAUTH_METADATA_PATH).is_some_and(|rest| rest == issuer_path) {
            return Self::ServerMetadata;
        }
        let path = below_issuer(path, issuer_path);
        let own = settings.iter().find_map(|route| match route.dialect {
            Dialect::Firstvision => Self::firstvision(path, &route.path),
            dialect => (path == route.path).then_some(Self::of_dialect(dialect)),
        });
        if let Some(own) = own {
            return own;
        }
        if let Some((_, route)) = DOCUMENTED.iter().find(|(known, _)| *known == path) {
            return *route;
        }
        if is_below(path, "/v1/api") || is_below(path, "/v2/api") {
            return Self::Unknown(Dialect::Vision);
        }
        Self::firstvision(path, FIRSTVISION_PATH).unwrap_or(Self::Unknown(Dialect::Connect))
    }

    /// The token service of `dialect`, as a configured route has it.
    pub(crate) fn of_dialect(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Connect => Self::ConnectToken,
            Dialect::Vision => Self::VisionToken(Version::V1),
            Dialect::Firstvision => Self::FirstvisionToken(None),
        }
    }

    /// Finds the route of a request under the settings of `snapshot`. `offers_page` says whether
    /// [`PageSwitch::Auto`](crate::config::PageSwitch::Auto) shows the page to this request. The page
    /// comes last, so that it costs a token request nothing.
    pub(crate) fn in_snapshot(
        path: &'r str,
        snapshot: &Snapshot,
        offers_page: impl FnOnce() -> bool,
    ) -> Self {
        let issuer_path = snapshot.issuer.path();
        match Self::of(path, issuer_path, &snapshot.config.live.routes) {
            Self::Unknown(Dialect::Connect) => {
                let switch = snapshot.config.live.page.enabled;
                PageDocument::at(below_issuer(path, issuer_path), switch, offers_page)
                    .map_or(Self::Unknown(Dialect::Connect), Self::Page)
            }
            route => route,
        }
    }

    /// Matches `path` against the `firstvision` service at `base`. The path may continue with one
    /// more segment, which is the scope.
    fn firstvision(path: &'r str, base: &str) -> Option<Self> {
        let rest = path.strip_prefix(base)?;
        if rest.is_empty() {
            return Some(Self::FirstvisionToken(None));
        }
        let segment = rest.strip_prefix('/')?;
        Some(if segment.is_empty() || segment.contains('/') {
            Self::Unknown(Dialect::Firstvision)
        } else {
            Self::FirstvisionToken(Some(segment))
        })
    }

    /// The dialect that refusals are written in.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::ConnectToken
            | Self::Validate
            | Self::Introspection
            | Self::Revocation
            | Self::ServerMetadata
            | Self::KeySet
            | Self::Page(_) => Dialect::Connect,
            Self::VisionToken(_) | Self::VisionValidate => Dialect::Vision,
            Self::FirstvisionToken(_) => Dialect::Firstvision,
            Self::Unknown(dialect) => dialect,
        }
    }

    /// The label in logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        self.row().0
    }

    /// The label of the outcome of a request that was not refused.
    pub(crate) fn success(self) -> &'static str {
        self.row().1
    }

    /// The value of the `Allow` header. No route that issues tokens allows `HEAD`, because the
    /// answer would lack the token.
    pub(crate) fn methods(self) -> &'static str {
        self.row().2
    }

    /// The table of all routes: the label, the label of a success, and the methods.
    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ConnectToken => ("token", "issued", "POST"),
            Self::VisionToken(Version::V1) => ("vision_token", "issued", "POST"),
            Self::VisionToken(Version::V2) => ("vision_v2_token", "issued", "POST"),
            Self::VisionValidate => ("vision_validate_token", "served", "POST"),
            Self::FirstvisionToken(_) => ("firstvision_token", "issued", "GET"),
            Self::Validate => ("validate", "served", "GET, HEAD"),
            Self::Introspection => ("introspect", "introspected", "POST"),
            Self::Revocation => ("revocation", "revoked", "POST"),
            Self::ServerMetadata => ("metadata", "served", "GET, HEAD"),
            Self::KeySet => ("jwks", "served", "GET, HEAD"),
            Self::Page(document) => (document.label(), "served", "GET, HEAD"),
            Self::Unknown(_) => ("unknown", "served", "GET, HEAD"),
        }
    }

    /// Whether the route requires client authentication.
    pub(crate) fn authenticates(self) -> bool {
        !matches!(
            self,
            Self::KeySet | Self::Page(_) | Self::ServerMetadata | Self::Unknown(_) | Self::Validate
        )
    }

    /// Whether requests are written to the audit. Requests for public documents or unknown paths
    /// are not written.
    pub(crate) fn is_audited(self) -> bool {
        !matches!(self, Self::ServerMetadata | Self::KeySet | Self::Page(_) | Self::Unknown(_))
    }

    pub(crate) fn allows(self, method: &str) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method)
    }
}

/// Every documented path, relative to the issuer, and its route. The path of most requests is first.
pub(crate) const DOCUMENTED: [(&str, Route<'static>); 12] = [
    (TOKEN_PATH, Route::ConnectToken),
    ("/v1/api/oauth/token", Route::VisionToken(Version::V1)),
    ("/v2/api/oauth/token", Route::VisionToken(Version::V2)),
    (FIRSTVISION_PATH, Route::FirstvisionToken(None)),
    ("/v1/api/oauth/validateToken", Route::VisionValidate),
    ("/connect/validate", Route::Validate),
    (INTROSPECTION_PATH, Route::Introspection),
    (REVOCATION_PATH, Route::Revocation),
    (JWKS_PATH, Route::KeySet),
    ("/.well-known/jwks.json", Route::KeySet),
    ("/.well-known/openid-configuration", Route::ServerMetadata),
    (OAUTH_METADATA_PATH, Route::ServerMetadata),
];

/// Removes the path of the issuer's URL from the beginning of `path`, if a proxy has not removed
/// it. The URL that the client called is the issuer's URL followed by the result.
pub(crate) fn below_issuer<'r>(path: &'r str, issuer_path: &str) -> &'r str {
    path.strip_prefix(issuer_path).unwrap_or(path)
}

/// Whether `path` is `parent` or below it.
pub(crate) fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

const OAUTH_METADATA_PATH: &str = "/.well-known/oauth-authorization-server";
const FIRSTVISION_PATH: &str = "/v1/getAccessToken";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_path_is_taken() {
        use crate::config::TAKEN_PATHS;
        let mut paths = DOCUMENTED.map(|(path, _)| path);
        paths.sort_unstable();
        assert_eq!(paths, TAKEN_PATHS);
        for (path, route) in DOCUMENTED {
            assert_eq!(Route::of(path, "", &[]), route, "{path}");
        }
    }

    #[test]
    fn finds_routes_below_the_issuer_and_the_operators_own() {
        let own = |path: &str, dialect| RouteSetting { path: path.to_owned(), dialect };
        let settings =
            [own("/api/connect/token", Dialect::Connect), own("/get", Dialect::Firstvision)];
        let of = |path| Route::of(path, "/tenant", &settings);

        assert_eq!(of("/connect/token"), Route::ConnectToken);
        assert_eq!(of("/tenant/connect/token"), Route::ConnectToken);
        assert_eq!(of("/tenant/api/connect/token"), Route::ConnectToken);
        assert_eq!(of("/get/a"), Route::FirstvisionToken(Some("a")));
        assert_eq!(of("/get/a/b"), Route::Unknown(Dialect::Firstvision));
        assert_eq!(of("/getting"), Route::Unknown(Dialect::Connect));
        assert_eq!(of("/v1/getAccessToken/"), Route::Unknown(Dialect::Firstvision));
        assert_eq!(of("/v1/getAccessTokens"), Route::Unknown(Dialect::Connect));
        assert_eq!(of("/v2/api"), Route::Unknown(Dialect::Vision));
        assert_eq!(of("/v1/apis"), Route::Unknown(Dialect::Connect));
        let metadata = "/.well-known/oauth-authorization-server/tenant";
        assert_eq!(of(metadata), Route::ServerMetadata);
        assert_eq!(of("/tenant/.well-known/openid-configuration"), Route::ServerMetadata);
    }
}
