//! Slow password hashes of imported secrets: computed once, off the event loop, and without
//! revealing which clients are registered.

use std::thread;

use serde_json::{Value, json};

use crate::support::home::{hash_of, secret_of};
use crate::support::registry::{client_json, client_with_hash, registry_with};
use crate::support::{
    DEMO, ENCODINGS, Encoding, Home, Program, Request, Response, request_of, wait_until,
};

/// Hashes of [`SECRET`], made by argon2-cffi, passlib and Python's bcrypt.
const HASHES: [(&str, &str); 3] = [
    (
        "argon",
        "$argon2id$v=19$m=8192,t=2,p=1$2FurCrcnJyk+ioKBwUNDxA$gLx2Q2ama6t4N1B6Bi5xRVT7hLyfjqgLIkMFqQREh6s",
    ),
    (
        "pbkdf2",
        "$pbkdf2-sha256$29000$hxAi5Ly3thZC6H3vfW.tVQ$lQwrwgKvH0R5Wx4G/bqic1o.ITsPz8fm6TSUU9ZGlkM",
    ),
    ("bcrypt", "$2b$05$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m"),
];
const SECRET: &str = "imported-secret";

/// Returns a home with the usual clients and one client for each hash of [`HASHES`].
fn mixed_home() -> Home {
    let home = Home::new();
    home.write(
        "clients.json",
        &registry_with(&HASHES.map(|(id, hash)| client_with_hash(id, hash))),
    );
    home
}

/// Returns a home with one client for each of `hashes` and no other client.
fn slow_home(hashes: &[(&str, &str)]) -> Home {
    let home = Home::new();
    let clients: Vec<_> = hashes.iter().map(|(id, hash)| client_with_hash(id, hash)).collect();
    home.register(&clients);
    home
}

fn ask(server: &Program, encoding: Encoding, id: &str, secret: &str) -> Response {
    server.ask(&Request::token(encoding, &request_of(id, secret, &[])))
}

fn computed(server: &Program) -> u64 {
    server.metric("grantd_password_hashes_total ")
}

#[test]
fn a_right_secret_is_hashed_once_and_a_wrong_one_each_time() {
    let server = Program::start(mixed_home(), &[]);
    for (done, (id, _)) in (0..).zip(HASHES) {
        let before = 3 * done;
        assert_eq!(computed(&server), before, "{id}");
        for encoding in ENCODINGS {
            for _ in 0..3 {
                let answer = ask(&server, encoding, id, SECRET);
                assert_eq!(answer.status, 200, "{id}: {}", answer.text());
                assert_eq!(computed(&server), before + 1, "{id}");
            }
        }
        for wrong in ["imported-secreT", "x"] {
            ask(&server, ENCODINGS[0], id, wrong).assert_refused(400, "invalid_client");
        }
        assert_eq!(computed(&server), before + 3, "{id}");
        // The wrong secrets have not removed the right secret from the cache.
        assert_eq!(ask(&server, ENCODINGS[0], id, SECRET).status, 200);
    }
    assert_eq!(computed(&server), 9);
    // For a client with a fast hash, the server computes no slow hash, whether the secret is right
    // or wrong.
    let demo = server.ask(&Request::token(ENCODINGS[0], &DEMO));
    assert_eq!(demo.status, 200);
    ask(&server, ENCODINGS[0], "one-audience", "wrong").assert_refused(400, "invalid_client");
    assert_eq!(computed(&server), 9);
}

#[test]
fn the_verdict_on_a_hash_is_cached_for_each_client() {
    let (_, hash) = HASHES[2];
    let server = Program::start(slow_home(&[("one", hash), ("two", hash)]), &[]);
    for (id, hashes) in [("one", 1), ("two", 2), ("one", 2), ("two", 2)] {
        assert_eq!(ask(&server, ENCODINGS[0], id, SECRET).status, 200);
        assert_eq!(computed(&server), hashes, "{id}");
    }
}

#[test]
fn an_unknown_client_costs_what_a_known_one_costs() {
    for kind in HASHES {
        let server = Program::start(slow_home(&[kind]), &[]);
        let wrong = ask(&server, ENCODINGS[0], kind.0, "x");
        assert_eq!(computed(&server), 1);
        let unknown = ask(&server, ENCODINGS[0], "unknown", SECRET);
        assert_eq!(computed(&server), 2);
        wrong.assert_refused(400, "invalid_client");
        assert_eq!(wrong.without_id_and_date(), unknown.without_id_and_date());
        // For a long secret, the server computes one hash, as for a short secret.
        let long = "x".repeat(10_000);
        for (id, hashes) in [(kind.0, 3), ("unknown", 4)] {
            ask(&server, ENCODINGS[0], id, &long).assert_refused(400, "invalid_client");
            assert_eq!(computed(&server), hashes, "{id}");
        }
    }
}

#[test]
fn unknown_ids_have_fixed_costs_in_the_proportions_of_the_registry() {
    let home = mixed_home();
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(home.clients()).unwrap()).unwrap();
    let clients = document["clients"].as_array().unwrap().len();
    let server = Program::start(home, &[]);
    let mut slow = 0;
    let ids: Vec<_> = (0..300).map(|index| format!("unknown-{index}")).collect();
    for id in &ids {
        let before = computed(&server);
        ask(&server, ENCODINGS[0], id, SECRET).assert_refused(400, "invalid_client");
        let cost = computed(&server) - before;
        assert!(cost <= 1, "{id}");
        ask(&server, ENCODINGS[1], id, "other").assert_refused(400, "invalid_client");
        assert_eq!(computed(&server), before + 2 * cost, "{id} costs the same again");
        slow += cost;
    }
    // 3 of 19 clients have a slow hash, so about 47 of the 300 ids should cost a slow hash. The
    // standard deviation is 6.3 ids. The bounds are 6 standard deviations below and above 47.
    assert_eq!(clients, 19, "the expectation is made for these");
    assert!((9..=85).contains(&slow), "{slow}");
}

/// Returns for each id whether the server computes a slow hash for a request with this id.
fn slow_ids(server: &Program, ids: &[String]) -> Vec<bool> {
    let costs = |id| {
        let before = computed(server);
        ask(server, ENCODINGS[0], id, "x").assert_refused(400, "invalid_client");
        computed(server) > before
    };
    ids.iter().map(|id| costs(id)).collect()
}

#[test]
fn an_unknown_id_keeps_its_cost_across_restarts_and_registry_changes() {
    let ids: Vec<_> = (0..100).map(|index| format!("unknown-{index}")).collect();
    let server = Program::start(mixed_home(), &[]);
    let before = slow_ids(&server, &ids);
    let slow = before.iter().filter(|is_slow| **is_slow).count();
    assert!((1..=40).contains(&slow), "{slow}");

    // Each id costs the same after the server is killed and started again.
    let server = Program::start(server.into_home(), &[]);
    assert_eq!(slow_ids(&server, &ids), before);

    // One more client changes the share of slow ids from 3/19 to 3/20. The cost changes only for
    // about 3/19 − 3/20 of the ids, which is less than 1 of 100.
    let text = std::fs::read_to_string(server.home.clients()).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["clients"].as_array_mut().unwrap().push(client_json("more", &json!({})));
    server.home.write("clients.json", &document.to_string());
    server.hang_up();
    wait_until(|| server.metric("grantd_snapshot_generation ") == 2);
    let after = slow_ids(&server, &ids);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(moved <= 6, "{moved} of 100 cost something else");
}

#[test]
fn each_of_several_secrets_is_accepted_while_it_is_valid() {
    let home = Home::new();
    let past = 1;
    let fast = hash_of(&secret_of("several"));
    let secrets = json!([
        { "label": "old", "hash": HASHES[0].1, "expires_at": past },
        { "label": "new", "hash": fast },
        { "label": "imported", "hash": HASHES[2].1 },
    ]);
    let over = json!([{ "label": "old", "hash": HASHES[0].1, "expires_at": past }]);
    let clients = [("several", secrets), ("over", over)];
    let clients = clients.map(|(id, secrets)| client_json(id, &json!({ "secrets": secrets })));
    home.register(&clients);
    let server = Program::start(home, &[]);

    assert_eq!(ask(&server, ENCODINGS[0], "several", &secret_of("several")).status, 200);
    assert_eq!(computed(&server), 0, "a fast secret needs no slow hash");
    // The secret matches the first hash, which has expired, and the third. Both are slow hashes.
    assert_eq!(ask(&server, ENCODINGS[0], "several", SECRET).status, 200);
    assert_eq!(computed(&server), 2);
    ask(&server, ENCODINGS[0], "over", SECRET).assert_refused(400, "invalid_client");
    ask(&server, ENCODINGS[0], "over", "x").assert_refused(400, "invalid_client");
    let cause = |cause: &str| {
        server.metric(&format!(
            r#"grantd_requests_total{{cause="{cause}",outcome="refused",route="token"}}"#
        ))
    };
    assert_eq!((cause("secret_not_current"), cause("wrong_secret")), (1, 1));
}

#[test]
fn a_cached_secret_is_found_before_any_hash_is_computed() {
    let home = Home::new();
    let secrets = json!([
        { "label": "old", "hash": HASHES[1].1.replace("29000$hxAi", "29000$hxAj") },
        { "label": "new", "hash": HASHES[2].1 },
    ]);
    home.register(&[client_json("rotating", &json!({ "secrets": secrets }))]);
    let server = Program::start(home, &[]);
    for _ in 0..10 {
        assert_eq!(ask(&server, ENCODINGS[0], "rotating", SECRET).status, 200);
        assert_eq!(computed(&server), 2);
    }
}

/// A bcrypt hash that takes about half a second to compute, so that the test can observe the server
/// during that time.
const SLOW: &str = "$2b$13$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m";

/// Makes the server trust the client addresses that the test states in `X-Forwarded-For`. If all
/// clients had the same address, the server would refuse them because of the limit per address, and
/// the queue would never become full.
const FULL_POOL: &str = "trusted_proxies = [\"127.0.0.1\"]\n\
                         [limits]\npassword_threads = 1\npassword_queue = 2\n";

#[test]
fn a_full_pool_refuses_with_retry_after_and_delays_no_fast_hash() {
    let home = Home::new();
    let slow: Vec<_> = (0..8).map(|index| format!("slow-{index}")).collect();
    let clients: Vec<_> = slow.iter().map(|id| client_with_hash(id, SLOW)).collect();
    home.write("clients.json", &registry_with(&clients));
    home.write("grantd.toml", FULL_POOL);
    let server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);

    let answers = thread::scope(|scope| {
        let server = &server;
        let ask_from = |at: usize, id: &String| {
            let request = Request::token(ENCODINGS[0], &request_of(id, "x", &[]));
            server.ask(&request.header("X-Forwarded-For", format!("192.0.2.{at}")))
        };
        let asking: Vec<_> =
            slow.iter().enumerate().map(|(at, id)| scope.spawn(move || ask_from(at, id))).collect();
        // Waits until the pool has refused a request because it is full. A client with a fast hash
        // still gets a token.
        while !asking.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::yield_now();
        }
        assert_eq!(server.ask(&Request::token(ENCODINGS[0], &DEMO)).status, 200);
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    let (full, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 503);
    assert!(!full.is_empty() && refused.len() >= 2, "{} and {}", full.len(), refused.len());
    for answer in full {
        answer.assert_refused(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    for answer in &refused {
        answer.assert_refused(400, "invalid_client");
    }
    assert_eq!(computed(&server), refused.len() as u64);
    assert_eq!(server.metric("grantd_password_queue "), 0);
}

#[test]
fn a_client_is_limited_to_its_share_of_the_pool() {
    let home = slow_home(&[("slow", SLOW)]);
    home.write("grantd.toml", "[limits]\npassword_threads = 1\npassword_queue = 16\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let answers = thread::scope(|scope| {
        let server = &server;
        let ask = |index| move || ask(server, ENCODINGS[0], "slow", &format!("wrong-{index}"));
        let asking: Vec<_> = (0..8).map(|index| scope.spawn(ask(index))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    let (over, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 429);
    // The pool computes one hash, and two more hashes may wait: the queue has 16 places, and one
    // client may occupy at most an eighth of them. The upper bound is 5, because the first hashes
    // may end before the last request arrives.
    assert!((2..=5).contains(&refused.len()), "{} and {}", over.len(), refused.len());
    for answer in over {
        answer.assert_refused(429, "invalid_request");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

/// Clients that have authenticated before fill the queue with wrong secrets. A client that
/// authenticates for the first time still gets a place.
#[test]
fn known_clients_leave_a_place_for_a_new_one() {
    let home = Home::new();
    let known: Vec<_> = (0..7).map(|index| format!("known-{index}")).collect();
    let secrets = |id: &str| {
        let fast = hash_of(&secret_of(id));
        json!([{ "label": "fast", "hash": fast }, { "label": "slow", "hash": SLOW }])
    };
    let known_json = |id: &String| client_json(id, &json!({ "secrets": secrets(id) }));
    let mut clients: Vec<_> = known.iter().map(known_json).collect();
    clients.push(client_with_hash("new", HASHES[2].1));
    home.register(&clients);
    home.write("grantd.toml", "[limits]\npassword_threads = 1\npassword_queue = 4\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    for id in &known {
        assert_eq!(ask(&server, ENCODINGS[0], id, &secret_of(id)).status, 200);
    }
    thread::scope(|scope| {
        let server = &server;
        let asking: Vec<_> = known
            .iter()
            .map(|id| scope.spawn(move || ask(server, ENCODINGS[0], id, "wrong")))
            .collect();
        // Waits until the pool has refused a request because it is full.
        while !asking.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::yield_now();
        }
        assert_eq!(ask(server, ENCODINGS[0], "new", SECRET).status, 200);
    });
}

#[test]
fn a_cached_secret_survives_reloads_until_its_hash_or_client_is_removed() {
    let server = Program::start(slow_home(&HASHES), &[]);
    let reload = |hashes: &[(&str, &str)]| {
        let generation = server.metric("grantd_snapshot_generation ");
        let clients: Vec<_> = hashes.iter().map(|(id, hash)| client_with_hash(id, hash)).collect();
        server.home.register(&clients);
        server.hang_up();
        wait_until(|| server.metric("grantd_snapshot_generation ") > generation);
    };
    let argon = HASHES[0];
    let right = |hashes| {
        assert_eq!(ask(&server, ENCODINGS[0], argon.0, SECRET).status, 200);
        assert_eq!(computed(&server), hashes);
    };
    right(1);
    reload(&[argon, HASHES[2]]);
    right(1);
    // The client is removed and added again.
    reload(&[HASHES[2]]);
    ask(&server, ENCODINGS[0], argon.0, SECRET).assert_refused(400, "invalid_client");
    assert_eq!(computed(&server), 2, "as much as the one client that is left costs");
    reload(&HASHES);
    right(3);
    // The hash is replaced and restored.
    reload(&[(argon.0, HASHES[1].1)]);
    right(4);
    reload(&[argon]);
    right(5);
}

#[test]
fn concurrent_requests_with_one_secret_share_one_hash() {
    let home = slow_home(&[("argon", HASHES[0].1)]);
    home.write("grantd.toml", "[limits]\npassword_threads = 1\npassword_queue = 1\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| ask(&server, ENCODINGS[0], "argon", SECRET).status))
            .collect();
        for asking in asking {
            assert_eq!(asking.join().unwrap(), 200);
        }
    });
    assert_eq!(computed(&server), 1);
}

#[test]
fn a_hash_with_excessive_cost_is_refused_at_the_start() {
    for (hash, expected) in [
        ("$2b$31$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m", "a cost from 04 to 15"),
        (
            "$argon2id$v=19$m=4194304,t=2,p=1$2FurCrcnJyk+ioKBwUNDxA$gLx2Q2ama6t4N1B6Bi5xRVT7hLyfjqgLIkMFqQREh6s",
            "m up to 262144 KiB",
        ),
        ("$pbkdf2-sha256$99999999$hxAi5Ly3thZC6H3vfW.tVQ$hunter2", "1000 to 5000000 rounds"),
        ("hunter2", "argon2id, pbkdf2-sha256 or bcrypt"),
    ] {
        let home = slow_home(&[("a", hash)]);
        let checked = crate::support::command::run(home.command(&["check"]));
        let place = "clients.json:1:61: clients[0].secrets: holds a hash that is not $";
        checked.assert_error(1, &[place, expected]);
        assert!(!checked.stderr.contains(&hash[hash.len() - 7..]), "{}", checked.stderr);
    }
}
