//! The operator's own routes: which of them are never asked.

use crate::config::RouteSetting;

/// Routes that another one hides, or the issuer's own path.
pub(super) fn warnings(routes: &[RouteSetting], issuer_path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let path = &route.path;
        if let Some(first) = routes[..index].iter().find(|first| first.takes(path)) {
            warnings.push(format!(
                "route: {path}: is never asked: the firstvision route {} before it takes all that is \
                 below its path; put this one first",
                first.path
            ));
        }
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        if !issuer_path.is_empty() && path.strip_prefix(issuer_path).is_some_and(is_below) {
            warnings.push(format!(
                "route: {path}: begins with the path of the issuer, which is taken off a request \
                 first: leave {issuer_path} out of the route's path"
            ));
        }
    }
    warnings
}
