//! Shared by the tests of the sibling services `vision` and `firstvision`.

use serde_json::{Value, json};

use crate::support::home::hash_of;
use crate::support::registry::{changed, client_json, registry_with, secrets_json};
use crate::support::{Connection, Home, Library, Program, Request, Response};

/// The id and the secret of the documented client.
pub(crate) const USER: (&str, &str) = ("vision-api-user", "abcdefghizklmnopponommnshfghzxxs");

/// The secret of the clients that [`home`] adds.
pub(crate) const SECRET: &str = "a-secret-of-the-sibling-services-tests";

/// Returns a home with three more clients: `profile`, whose tokens follow RFC 9068 in every
/// service; `octet`, which sends octet streams; and `limited`, which may make two requests per day.
pub(crate) fn home() -> Home {
    let client = |id: &str, changes: Value| {
        let members = json!({
            "secrets": secrets_json(&hash_of(SECRET)),
            "scopes": ["all"],
            "default_scopes": null,
            "token_lifetime": 7200,
        });
        client_json(id, &changed(members, &changes))
    };
    let clients = [
        client("profile", json!({ "token_profile": "at+jwt" })),
        client("octet", json!({ "content_type": "application/octet-stream" })),
        client("limited", json!({ "rate_limit": { "requests": 2, "seconds": 86_400 } })),
    ];
    let home = Home::new();
    home.write("clients.json", &registry_with(&clients));
    home
}

/// Returns the answer with which a server refuses `request` because its signing queue is full.
pub(crate) fn overloaded(request: &Request) -> Response {
    let home = home();
    home.write("grantd.toml", "[limits]\nsigning_queue = 1\n");
    let arguments = ["--config", "grantd.toml", "--signer", "ring", "--workers", "1"];
    let server = Program::start(home, &arguments);
    let ask = |()| {
        let mut connection = Connection::open(server.address);
        connection.send(&request.to_bytes());
        connection
    };
    let asked: Vec<_> = [(); 64].map(ask).into();
    let mut answers = asked.into_iter().map(|mut asked| asked.read_answer());
    answers.find(|answer| answer.status != 200).expect("a refusal")
}

/// Starts a server whose random bytes run out right after the start.
pub(crate) fn exhausted() -> Library {
    Library::start_with(
        home(),
        "https://auth.example",
        1_750_384_800,
        grantd::random::Random::limited(3),
    )
}
