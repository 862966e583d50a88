//! Replayed assertions: the server accepts each assertion only once.

use serde_json::{Value, json};

use super::{
    ISSUER, JWT_BEARER, NOW, START, ask, claims, header, home_of, library, now, program, request,
};
use crate::support::registry::changed;
use crate::support::{ENCODINGS, Encoding, Library, Program, Request, Signer};

#[test]
fn of_concurrent_uses_of_an_assertion_one_is_accepted() {
    let signer = Signer::es256();
    let server = program(&signer, "");
    for _ in 0..5 {
        let assertion = signer.sign(&header(&signer), &claims("c", &server.issuer, now()));
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|number| {
                    let request = request(ENCODINGS[number % 2], &assertion, &[]);
                    let server = &server;
                    scope.spawn(move || {
                        let answer = server.ask(&request);
                        if answer.status != 200 {
                            answer.assert_refused(400, "invalid_client");
                        }
                        usize::from(answer.status == 200)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 1);
    }
    let refused =
        r#"grantd_requests_total{cause="assertion_replayed",outcome="refused",route="token"}"#;
    assert_eq!(server.metric(refused), 5 * 15);
}

#[test]
fn assertion_ids_are_separate_for_each_client() {
    let signer = Signer::es256();
    let clients = ["a", "b"].map(|id| (id, json!({ "jwks": signer.jwks() })));
    let library = Library::start(home_of(&clients), ISSUER, START);
    library.clock.set(NOW);
    let ask_as = |client: &str| {
        let claims = changed(claims(client, ISSUER, NOW), &json!({ "jti": "same" }));
        ask(library.address, &signer.sign(&header(&signer), &claims)).status
    };
    assert_eq!([ask_as("a"), ask_as("b"), ask_as("a"), ask_as("b")], [200, 200, 400, 400]);
}

#[test]
fn a_clock_step_allows_no_replay() {
    let signer = Signer::es256();
    let library = library(&signer);
    let used = signer.sign(&header(&signer), &claims("c", ISSUER, NOW));
    assert_eq!(ask(library.address, &used).status, 200);
    let mut time = vec![NOW - 3600, NOW - 5, NOW, NOW + 59, NOW + 3600, NOW, NOW + 59];
    time.extend((0..20).map(|step| NOW + step * 3));
    for at in time {
        library.clock.set(at);
        ask(library.address, &used).assert_refused(400, "invalid_client");
        if at == NOW + 3600 {
            // A new entry makes the replay guard drop expired entries, such as that of `used`.
            let later = signer.sign(&header(&signer), &claims("c", ISSUER, at));
            assert_eq!(ask(library.address, &later).status, 200);
        }
    }
    // A new assertion is still accepted.
    library.clock.set(NOW + 100);
    let fresh = signer.sign(&header(&signer), &claims("c", ISSUER, NOW + 100));
    assert_eq!(ask(library.address, &fresh).status, 200);
}

/// The clock is set back further than uses are kept: a fresh assertion may be one that was used.
#[test]
fn after_the_clock_was_set_back_far_a_fresh_assertion_gets_503() {
    let signer = Signer::es256();
    let library = library(&signer);
    let sign = |at: u64| {
        let assertion = signer.sign(&header(&signer), &claims("c", ISSUER, at));
        ask(library.address, &assertion)
    };
    assert_eq!(sign(NOW).status, 200);
    library.clock.set(NOW + 60 + 3600);
    assert_eq!(sign(NOW + 60 + 3600).status, 200);
    library.clock.set(NOW);
    for _ in 0..50 {
        let answer = sign(NOW);
        answer.assert_refused(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    library.clock.set(NOW + 1);
    assert_eq!(sign(NOW + 1).status, 200);
}

#[test]
fn assertions_from_before_the_record_of_uses_are_refused() {
    let signer = Signer::es256();
    let home = home_of(&[("c", json!({ "jwks": signer.jwks() }))]);
    let mut library = Library::start(home, ISSUER, START);
    // The second start finds the record of the first, and refuses nothing more.
    for _ in 0..2 {
        library.clock.set(START + 15);
        let answer = |changes: &Value| {
            let claims = changed(claims("c", ISSUER, START + 11), changes);
            ask(library.address, &signer.sign(&header(&signer), &claims)).status
        };
        // Without `iat`, the assertion may have been signed 300 s before its `exp`.
        assert_eq!(answer(&json!({ "iat": START - 1 })), 400);
        assert_eq!(answer(&json!({ "iat": START + 10 })), 400);
        assert_eq!(answer(&json!({ "iat": null, "exp": START + 310 })), 400);
        assert_eq!(answer(&json!({})), 200);
        assert_eq!(answer(&json!({ "iat": null, "exp": START + 311 })), 200);
        library = library.restart(ISSUER, START + 16);
    }
}

#[test]
fn a_used_assertion_dated_ahead_is_refused_after_a_restart() {
    let signer = Signer::es256();
    let home = home_of(&[("c", json!({ "jwks": signer.jwks() }))]);
    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    let [used, fresh] =
        [(); 2].map(|()| signer.sign(&header(&signer), &claims("c", ISSUER, NOW + 8)));
    assert_eq!(ask(library.address, &used).status, 200);
    // A second use is refused, and is not recorded on disk again.
    ask(library.address, &used).assert_refused(400, "invalid_client");

    let library = library.restart(ISSUER, NOW + 1);
    library.clock.set(NOW + 2);
    ask(library.address, &used).assert_refused(400, "invalid_client");
    assert_eq!(ask(library.address, &fresh).status, 200);
}

#[test]
fn a_client_that_holds_its_share_is_refused_and_others_are_not() {
    let [one, two] = [Signer::es256(), Signer::es256()];
    let home = home_of(&[
        ("c", json!({ "jwks": one.jwks(), "scopes": ["read"] })),
        ("d", json!({ "jwks": two.jwks(), "scopes": ["read"] })),
    ]);
    home.write(
        "grantd.toml",
        "[limits]\nreplay_entries = 4\n[failures]\nclient_failures = 9\nshared_factor = 1\n",
    );
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let sign = |id: &str| {
        let signer = if id == "c" { &one } else { &two };
        signer.sign(&header(signer), &claims(id, &server.issuer, now()))
    };
    let first = sign("c");
    assert_eq!(ask(server.address, &first).status, 200);
    assert_eq!(ask(server.address, &sign("c")).status, 200);
    for encoding in ENCODINGS {
        let request = request(encoding, &sign("c"), &[]).header("X-Request-Id", "share");
        let answer = server.ask(&request);
        answer.assert_refused(429, "invalid_request");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(server.log.of_request("share")["cause"], "replay_guard_share");
    assert_eq!(ask(server.address, &sign("d")).status, 200);
    ask(server.address, &sign("d")).assert_refused(429, "invalid_request");
    ask(server.address, &first).assert_refused(400, "invalid_client");
    // The assertions are valid, so the refusals are not counted as authentication failures.
    for _ in 0..50 {
        ask(server.address, &sign("c")).assert_refused(429, "invalid_request");
    }
    assert_eq!(server.metric(r#"grantd_throttled_total{budget="client"}"#), 0);
    // Authentication by secret needs no entry in the replay guard. The wrong secret therefore gets
    // 401 and not 429.
    let known = Request::token(Encoding::Urlencoded, &[("grant_type", "client_credentials")]);
    server.ask(&known.basic("c:x")).assert_refused(401, "invalid_client");
}

#[test]
fn a_full_replay_guard_refuses_new_assertions_and_keeps_its_entries() {
    let signers: Vec<_> = (0..3).map(|_| Signer::es256()).collect();
    let ids = ["a", "b", "c"];
    let clients: Vec<_> = std::iter::zip(ids, &signers)
        .map(|(id, signer)| (id, json!({ "jwks": signer.jwks() })))
        .collect();
    let home = home_of(&clients);
    home.write("grantd.toml", "[limits]\nreplay_entries = 2\n");
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let sign = |index: usize| {
        let signer: &Signer = &signers[index];
        signer.sign(&header(signer), &claims(ids[index], &server.issuer, now()))
    };
    let first = sign(0);
    assert_eq!(ask(server.address, &first).status, 200);
    assert_eq!(ask(server.address, &sign(1)).status, 200);
    for encoding in ENCODINGS {
        let answer = server.ask(&request(encoding, &sign(2), &[]));
        answer.assert_refused(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    ask(server.address, &first).assert_refused(400, "invalid_client");
}

#[test]
fn the_rate_limit_and_the_use_of_an_assertion_do_not_cost_each_other() {
    let signer = Signer::es256();
    let limit = json!({ "requests": 2, "seconds": 86_400 });
    let home = home_of(&[("c", json!({ "jwks": signer.jwks(), "rate_limit": limit }))]);
    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    let [used, last, limited] =
        [(); 3].map(|()| signer.sign(&header(&signer), &claims("c", ISSUER, NOW)));
    assert_eq!(ask(library.address, &used).status, 200);
    // A copy of a used assertion does not exhaust the rate limit of its client.
    for _ in 0..5 {
        ask(library.address, &used).assert_refused(400, "invalid_client");
    }
    assert_eq!(ask(library.address, &last).status, 200);
    // An assertion that is refused for the rate limit is not used up.
    let refused = ask(library.address, &limited);
    refused.assert_refused(429, "invalid_request");
    assert!(refused.header("retry-after").is_some());
    // The rate limit is for token requests alone, so the client can still revoke. This uses up the
    // assertion.
    let revoke = |assertion: &str| {
        let body = [
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
            ("token", "x"),
        ];
        Request::new("POST", "/connect/revocation")
            .form(Encoding::Urlencoded, &body)
            .send(library.address)
    };
    assert_eq!(revoke(&limited).status, 200);
    revoke(&limited).assert_refused(400, "invalid_client");
    revoke(&used).assert_refused(400, "invalid_client");
}
