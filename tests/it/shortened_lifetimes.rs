//! `not_before` and tokens without an `iat` whose client's lifetime was shortened after their issue.

use std::fs;

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::registry::{client_json, registry_of};
use crate::support::status::{ISSUER, SAME_ISSUER, is_active, validate, vision_token_of};
use crate::support::{Home, Library, Program, wait_until};

const NOW: u64 = 1_790_000_000;

fn register(home: &Home, members: &Value) {
    let others = ["one", "two"].map(|id| client_json(id, &json!({ "token_lifetime": 600 })));
    let clients = [&others[..], &[client_json("vision", members)]].concat();
    let written = home.write("clients.json.new", &registry_of(&clients));
    fs::rename(written, home.clients()).unwrap();
}

fn home() -> Home {
    let home = Home::new();
    register(&home, &json!({ "token_lifetime": 7200 }));
    home
}

#[test]
fn a_reload_that_shortens_the_lifetime_does_not_make_old_tokens_seem_new() {
    let server = Program::start(home(), &SAME_ISSUER);
    let now = Clock::unix_micros() / 1_000_000;
    let token = vision_token_of(server.address, "vision");
    let reload = |members: Value| {
        let generation = server.metric("grantd_snapshot_generation");
        register(&server.home, &members);
        server.hang_up();
        wait_until(|| server.metric("grantd_snapshot_generation") > generation);
    };
    reload(json!({ "token_lifetime": 60, "not_before": now - 10 }));
    assert!(is_active(server.address, "vision", &token));
    reload(json!({ "token_lifetime": 60, "not_before": now + 100 }));
    assert!(!is_active(server.address, "vision", &token));
    assert_eq!(validate(server.address, &token).status, 401);
    // A restart does not forget it.
    let server = Program::start(server.into_home(), &SAME_ISSUER);
    assert!(!is_active(server.address, "vision", &token));
}

#[test]
fn a_lifetime_that_is_shortened_while_no_server_runs_counts_until_its_tokens_have_expired() {
    let library = Library::start(home(), ISSUER, NOW);
    let token = vision_token_of(library.address, "vision");
    // A token of the common lifetime, which the file of lifetimes does not name.
    let common = vision_token_of(library.address, "one");
    let clients = [
        client_json("vision", &json!({ "token_lifetime": 60, "not_before": NOW + 10 })),
        client_json("one", &json!({ "token_lifetime": 60, "not_before": NOW + 10 })),
        client_json("two", &json!({ "token_lifetime": 600 })),
        client_json("three", &json!({ "token_lifetime": 600 })),
    ];
    library.home.write("clients.json", &registry_of(&clients));
    let library = library.restart(ISSUER, NOW + 20);
    assert!(!is_active(library.address, "vision", &token));
    assert!(!is_active(library.address, "one", &common));
    // It counts after the next start, too, until an hour after the last token of the longer lifetime
    // has expired. Then tokens count with the lifetime in force.
    let library = library.restart(ISSUER, NOW + 100);
    assert!(!is_active(library.address, "vision", &token));
    library.clock.set(NOW + 20 + 7200 + 3600);
    let new = vision_token_of(library.address, "vision");
    assert!(is_active(library.address, "vision", &new));
}

#[test]
fn a_file_of_lifetimes_with_a_fault_is_a_start_error() {
    let home = home();
    fs::create_dir(home.path("state")).unwrap();
    home.write("state/lifetimes", "{");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for command in [&serve[..], &["check"]] {
        let says = ["state/lifetimes: does not hold token lifetimes; restore the file"];
        run(home.command(command)).assert_error(1, &says);
    }
}
