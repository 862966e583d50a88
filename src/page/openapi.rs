//! The OpenAPI document (OpenAPI Specification 3.1) of all public routes. It is made from the tables
//! that the program itself uses: the paths from the router's table, the errors from what the dialects
//! answer to each cause, the limits from the settings. So it cannot differ from them.

mod causes;
mod connect;
mod documents;
mod firstvision;
mod operation;
mod refusals;
mod vision;

use serde_json::{Map, Value, json};

#[cfg(feature = "internal")]
pub use crate::page::openapi::causes::is_known;

use crate::config::{Dialect, PageDocument};
use crate::dialect::route::{DOCUMENTED, Route};
use crate::page::openapi::operation::Operation;
use crate::page::openapi::refusals::Refusals;
use crate::snapshot::Snapshot;

/// Returns the document for the settings of `snapshot`.
pub fn document(snapshot: &Snapshot) -> Value {
    let mut refusals = Refusals::default();
    let mut names = Names::default();
    let mut paths = Map::new();
    for (path, route) in all_paths(snapshot) {
        let operation = operation_of(route, snapshot);
        let name = names.unique(route.label());
        let responses = refusals.responses(&path, route, &operation, snapshot);
        let method = route.methods().split(", ").next().unwrap_or("GET").to_ascii_lowercase();
        let described = operation.describe(&name, route, responses);
        paths.insert(path, Value::Object(Map::from_iter([(method, described)])));
    }
    for dialect in Dialect::ALL {
        refusals.add_unknown_path(dialect, snapshot);
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "grantd",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "An OAuth 2.0 token server for the client credentials grant",
            "description": INTRODUCTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": snapshot.issuer.join("") }],
        "tags": [
            { "name": "Tokens", "description": "Get an access token." },
            { "name": "Use of tokens", "description": "Check or revoke an access token." },
            { "name": "Documents", "description": "What programs read about this server." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": operation::security_schemes(snapshot),
            "headers": operation::headers(),
            "parameters": operation::parameters(),
            "responses": refusals.responses,
            "examples": refusals.examples,
        },
        "x-refusals": refusals.by_dialect,
    })
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

fn operation_of(route: Route<'_>, snapshot: &Snapshot) -> Operation {
    match route {
        Route::ConnectToken => connect::token(snapshot),
        Route::Introspection => connect::introspection(snapshot),
        Route::Revocation => connect::revocation(snapshot),
        Route::Validate => connect::validate(),
        Route::VisionToken(version) => vision::token(version, snapshot),
        Route::VisionValidate => vision::validate_token(snapshot),
        Route::FirstvisionToken(in_path) => firstvision::token(in_path.is_some()),
        Route::ServerMetadata => documents::server_metadata(snapshot),
        Route::KeySet => documents::key_set(),
        Route::Page(_) | Route::Unknown(_) => documents::openapi(),
    }
}

/// The operation ids so far. An id that is there already gets a number.
#[derive(Default)]
struct Names(Vec<&'static str>);

impl Names {
    fn unique(&mut self, label: &'static str) -> String {
        self.0.push(label);
        match self.0.iter().filter(|name| **name == label).count() {
            1 => label.to_owned(),
            count => format!("{label}_{count}"),
        }
    }
}

const INTRODUCTION: &str = "Send the id and the secret that you were given, and get an access token. \
    The services differ in their paths, encodings and errors, but not in their decisions: choose the \
    one that your client was written for; for a new client, that is /connect/token.\n\n\
    Every answer has the header X-Request-Id. Quote it when you ask the operator about a refusal: \
    the operator can see the cause, which the answer may not tell.\n\n\
    Wherever GET is allowed, HEAD is allowed too, except at the paths that issue tokens.\n\n\
    Two answers have neither a body nor the header X-Request-Id: the answer to bytes that are not an \
    HTTP/1.1 request, and the answer to a request whose headers do not arrive in time.";
