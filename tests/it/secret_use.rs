//! The last use of each secret, in the metrics and in `client show`.

use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::{hash_of, secret_of};
use crate::support::registry::client_json;
use crate::support::{ENCODINGS, Home, Program, Request, request_of};

fn home() -> Home {
    let home = Home::new();
    let secrets = json!([
        { "label": "old", "hash": hash_of(&secret_of("old")) },
        { "label": "new", "hash": hash_of(&secret_of("new")), "not_before": 1 },
    ]);
    home.register(&[client_json("a b/c", &json!({ "secrets": secrets }))]);
    home
}

fn shown(server: &Program) -> Value {
    let answer = Request::get("/clients/a%20b%2Fc").send(server.admin);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(!answer.text().contains("$sha256$"), "{}", answer.text());
    answer.json()
}

#[test]
fn each_successful_use_is_counted_by_label() {
    let server = Program::start(home(), &[]);
    assert!(!server.metrics().contains("grantd_secret_"), "nothing was used");
    assert_eq!(
        shown(&server),
        json!({ "client_id": "a b/c", "enabled": true, "secrets": [
            { "label": "old", "not_before": null, "expires_at": null, "uses": 0, "last_used": null },
            { "label": "new", "not_before": 1, "expires_at": null, "uses": 0, "last_used": null },
        ] })
    );
    let ask = |secret: &str, status: u16| {
        for encoding in ENCODINGS {
            let request = Request::token(encoding, &request_of("a b/c", secret, &[]));
            assert_eq!(server.ask(&request).status, status);
        }
    };
    ask(&secret_of("new"), 200);
    ask("wrong", 400);
    let uses = |label: &str| {
        server.metric(&format!(r#"grantd_secret_uses_total{{client="a b/c",label="{label}"}}"#))
    };
    assert_eq!((uses("old"), uses("new")), (0, 2));
    assert!(!server.metrics().contains(r#"label="old""#), "only what was used");
    ask(&secret_of("old"), 200);
    ask(&secret_of("old"), 200);
    assert_eq!((uses("old"), uses("new")), (4, 2));

    let secrets = &shown(&server)["secrets"];
    assert_eq!((&secrets[0]["uses"], &secrets[1]["uses"]), (&json!(4), &json!(2)));
    let last = secrets[0]["last_used"].as_u64().unwrap();
    let series = r#"grantd_secret_last_use_seconds{client="a b/c",label="old"}"#;
    assert_eq!(server.metric(series), last);
    // 1,760,000,000 is about the time at which this test was written. The old secret was used after
    // the new secret, or in the same second.
    assert!(last > 1_760_000_000 && last >= secrets[1]["last_used"].as_u64().unwrap());

    // `client show` prints the same uses as the admin listener.
    let admin = server.admin.to_string();
    let arguments = ["client", "show", "--id", "a b/c", "--admin", &admin];
    let mut show = run(server.home.command(&arguments)).json();
    // The times stand there as dates, too.
    let dates = [0, 1].map(|index| show["secrets"][index]["dates"].take());
    assert_eq!(dates[1]["not_before"], "1970-01-01T00:00:01Z");
    assert!(dates.iter().all(|dates| dates["last_used"].as_str().unwrap().starts_with("20")));
    for secret in show["secrets"].as_array_mut().unwrap() {
        secret.as_object_mut().unwrap().shift_remove("dates");
    }
    assert_eq!(
        show["secrets"],
        json!([
            { "label": "old", "state": "valid", "uses": 4, "last_used": last },
            {
                "label": "new", "not_before": 1, "state": "valid",
                "uses": 2, "last_used": secrets[1]["last_used"],
            },
        ])
    );
}

#[test]
fn the_labels_of_a_metric_are_escaped() {
    let home = Home::new();
    let secret = secret_of("odd");
    let secrets = json!([{ "label": "a\"b", "hash": hash_of(&secret) }]);
    home.register(&[client_json("c\\d", &json!({ "secrets": secrets }))]);
    let server = Program::start(home, &[]);
    let request = Request::token(ENCODINGS[0], &request_of("c\\d", &secret, &[]));
    assert_eq!(server.ask(&request).status, 200);
    let series = r#"grantd_secret_uses_total{client="c\\d",label="a\"b"}"#;
    assert_eq!(server.metric(series), 1);
}

#[test]
fn unknown_clients_and_the_public_listener_have_no_figures() {
    let server = Program::shared();
    for id in ["unknown", ""] {
        let answer = Request::get(&format!("/clients/{id}")).send(server.admin);
        assert_eq!((answer.status, answer.json()), (404, json!({ "error": "no such client" })));
    }
    server.ask(&Request::get("/clients/demo-client")).assert_refused(404, "invalid_request");
    let admin = server.address.to_string();
    let arguments = ["client", "show", "--id", "demo-client", "--admin", &admin];
    run(server.home.command(&arguments))
        .assert_error(1, &[&format!("grantd: {admin}: answered 404"), "admin listener"]);
}
