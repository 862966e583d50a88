//! The OpenAPI document (OpenAPI Specification 3.1) of all public routes. What a request and its answer
//! have is described in `openapi/operations.json`. All else comes from what the program itself uses: the
//! paths from the router's table, the errors from what the dialects answer to each cause, the limits
//! from the settings. So it cannot differ from them.

mod causes;
mod refusals;
mod template;

use serde_json::{Map, Value, json};

use crate::config::{Dialect, PageDocument};
use crate::dialect::route::{DOCUMENTED, Route};
#[cfg(feature = "internal")]
pub use crate::page::openapi::causes::is_known;
use crate::page::openapi::refusals::{Refusals, echo_client_headers, reference};
use crate::page::openapi::template::Template;
use crate::snapshot::Snapshot;

/// Returns the document for the settings of `snapshot`.
pub fn document(snapshot: &Snapshot) -> Value {
    let Template { mut document, operations } = Template::of(snapshot);
    let mut refusals = Refusals::default();
    let mut labels = Vec::new();
    for (path, route) in all_paths(snapshot) {
        labels.push(route.label());
        let id = match labels.iter().filter(|label| **label == route.label()).count() {
            1 => route.label().to_owned(),
            count => format!("{}_{count}", route.label()),
        };
        let described = match route {
            Route::FirstvisionToken(Some(_)) => &operations["firstvision_token_in_path"],
            _ => &operations[route.label()],
        };
        let refused = refusals.responses(&path, route, snapshot);
        let method = route.methods().split(", ").next().unwrap_or("GET").to_ascii_lowercase();
        document["paths"][path][method] = complete(described, &id, route, refused);
    }
    for dialect in Dialect::ALL {
        refusals.add_unknown_path(dialect, snapshot);
    }
    document["components"]["responses"] = refusals.responses.into();
    document["components"]["examples"] = refusals.examples.into();
    document["x-refusals"] = refusals.by_dialect.into();
    document
}

/// Returns every path with its route: the documented ones, those of the operator, and that of this
/// document. A `firstvision` service has two: with and without the scope.
fn all_paths(snapshot: &Snapshot) -> Vec<(String, Route<'static>)> {
    let documented = DOCUMENTED.iter().map(|(path, route)| ((*path).to_owned(), *route));
    let own = snapshot.config.live.routes.iter();
    let own = own.map(|own| (own.path.clone(), Route::of_dialect(own.dialect)));
    let this = PageDocument::Openapi;
    let this = (this.path().to_owned(), Route::Page(this));
    let mut paths = Vec::new();
    for (path, route) in documented.chain(own).chain([this]) {
        let below = format!("{path}/{{scope}}");
        paths.push((path, route));
        if route == Route::FirstvisionToken(None) {
            paths.push((below, Route::FirstvisionToken(Some(""))));
        }
    }
    paths
}

/// Returns the Operation Object `described` with what follows from its route.
fn complete(described: &Value, id: &str, route: Route<'_>, refused: Map<String, Value>) -> Value {
    let mut operation = described.clone();
    operation["operationId"] = id.into();
    operation["x-dialect"] = json!(route.dialect());
    operation["x-route"] = route.label().into();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.push(reference("parameters", "X-Request-Id"));
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        for response in responses.values_mut() {
            response["headers"]["X-Request-Id"] = reference("headers", "X-Request-Id");
            if route.dialect() == Dialect::Vision {
                echo_client_headers(&mut response["headers"]);
            }
        }
        responses.extend(refused);
    }
    operation
}
