//! Warnings about configured routes that never match.

use crate::config::RouteSetting;
use crate::dialect::route::is_below;

/// Returns a warning for each route that never matches. A route never matches if an earlier route
/// matches the same path. It also never matches if its path begins with the issuer's path, because
/// the server removes the issuer's path from each request before routing.
pub(super) fn warnings(routes: &[RouteSetting], issuer_path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let path = &route.path;
        if let Some(first) = routes[..index].iter().find(|first| first.takes(path)) {
            warnings.push(format!(
                "route: {path}: never matches: the earlier firstvision route {} matches all paths \
                 below it; put this one first",
                first.path
            ));
        }
        if !issuer_path.is_empty() && is_below(path, issuer_path) {
            warnings.push(format!(
                "route: {path}: begins with the issuer's path, which is removed from a request \
                 before routing: remove {issuer_path} from the route's path"
            ));
        }
    }
    warnings
}
