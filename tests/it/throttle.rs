//! Guessing is slowed down, and no client is locked out by others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::registry::{client_with_hash, registry_of, registry_with, secrets_json};
use crate::support::{
    Connection, ENCODINGS, Encoding, Home, Program, Request, Response, StopOnDrop, request_of,
    wait_until,
};

/// Makes the server trust the client addresses that a proxy on 127.0.0.1 states. The failure
/// budgets are small.
const TOML: &str = "trusted_proxies = [\"127.0.0.1\"]\n\
                    [failures]\nclient_failures = 3\nsource_failures = 5\nseconds = 3600\n";

fn start() -> Program {
    let home = Home::new();
    home.write("grantd.toml", TOML);
    Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"])
}

fn ask(server: &Program, address: &str, client: &str, secret: &str) -> Response {
    let request = Request::token(Encoding::Urlencoded, &request_of(client, secret, &[]));
    server.ask(&request.header("X-Forwarded-For", address))
}

fn is_right(server: &Program, address: &str, client: &str) -> u16 {
    ask(server, address, client, &secret_of(client)).status
}

fn throttled(server: &Program, budget: &str) -> u64 {
    server.metric(&format!("grantd_throttled_total{{budget=\"{budget}\"}}"))
}

#[test]
fn failures_from_one_address_throttle_the_client_there_only() {
    let server = start();
    for _ in 0..3 {
        ask(&server, "192.0.2.1", "basic-only", "wrong").assert_refused(400, "invalid_client");
    }
    let refused = ask(&server, "192.0.2.1", "basic-only", "wrong");
    refused.assert_refused(429, "invalid_request");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1201).contains(&wait), "{wait}");
    // A request with the right secret gets the same answer, in every encoding and dialect.
    for encoding in ENCODINGS {
        let secret = secret_of("basic-only");
        let right = request_of("basic-only", &secret, &[]);
        let request = Request::token(encoding, &right).header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request).assert_refused(429, "invalid_request");
    }
    let firstvision = Request::get("/v1/getAccessToken")
        .header("Content-Type", "application/json")
        .header("X-Forwarded-For", "192.0.2.1")
        .basic(&format!("basic-only:{}", secret_of("basic-only")));
    let answer = server.ask(&firstvision);
    assert_eq!((answer.status, &answer.json()["errorCode"]), (429, &json!("AGT429TMR")));

    assert_eq!(is_right(&server, "192.0.2.1", "post-only"), 200);
    assert_eq!(is_right(&server, "192.0.2.2", "post-only"), 200);
    let elsewhere = Request::token(Encoding::Multipart, &[("grant_type", "client_credentials")])
        .basic(&format!("basic-only:{}", secret_of("basic-only")))
        .header("X-Forwarded-For", "192.0.2.2");
    assert_eq!(server.ask(&elsewhere).status, 200);
    assert_eq!((throttled(&server, "client"), throttled(&server, "address")), (4, 0));
}

#[test]
fn an_address_that_tries_many_clients_is_throttled_except_for_those_it_authenticated() {
    let server = start();
    assert_eq!(is_right(&server, "192.0.2.9", "post-only"), 200);
    // A failure counts the same for an unknown and for a registered client.
    for client in ["unknown-1", "one-audience", "unknown-2", "two-audiences", "unknown-3"] {
        ask(&server, "192.0.2.9", client, "wrong").assert_refused(400, "invalid_client");
    }
    for client in ["unknown-4", "timed"] {
        ask(&server, "192.0.2.9", client, "wrong").assert_refused(429, "invalid_request");
    }
    assert_eq!(is_right(&server, "192.0.2.9", "timed"), 429);
    assert_eq!(is_right(&server, "192.0.2.9", "post-only"), 200);
    assert_eq!(is_right(&server, "192.0.2.10", "timed"), 200);
    // All addresses of an IPv6 /64 network share one budget.
    for host in 1..=5 {
        let address = format!("2001:db8::{host}");
        ask(&server, &address, &format!("n{host}"), "x").assert_refused(400, "invalid_client");
    }
    ask(&server, "2001:db8::6", "n6", "x").assert_refused(429, "invalid_request");
    assert_eq!(is_right(&server, "2001:db8:0:1::1", "timed"), 200);
    assert_eq!((throttled(&server, "client"), throttled(&server, "address")), (0, 4));
}

/// The usual registry, and two clients whose secrets have a slow hash.
fn home_with_slow(toml: &str) -> Home {
    let home = Home::new();
    let slow = ["slow", "other-slow"].map(|id| client_with_hash(id, SLOW_HASH));
    home.write("clients.json", &registry_with(&slow));
    home.write("grantd.toml", toml);
    home
}

/// A bcrypt hash of [`SLOW_SECRET`], at the lowest cost.
const SLOW_HASH: &str = "$2b$04$TnE0l4bsgWyWTvjvvWPBke0IY9saIoaUKTCQv02BbpW.kmTM.H9Za";
const SLOW_SECRET: &str = "imported-secret";

/// The forwarding fields of a request to a server that trusts no proxy: none, or one field.
const UNDECLARED: [Option<(&str, &str)>; 5] = [
    None,
    Some(("X-Forwarded-For", "192.0.2.1")),
    Some(("Forwarded", "for=192.0.2.1")),
    Some(("X-Real-IP", "x")),
    Some(("X-Real-IP", "192.0.2.1")),
];

#[test]
fn behind_an_undeclared_proxy_budgets_are_wider_and_random_secrets_have_none() {
    let toml = "[failures]\nclient_failures = 2\nsource_failures = 3\nseconds = 3600\n\
                shared_factor = 2\n";
    for more in UNDECLARED {
        let server = Program::start(home_with_slow(toml), &["--config", "grantd.toml"]);
        let ask = |client: &str, secret: &str| {
            let form = request_of(client, secret, &[]);
            let request = Request::token(Encoding::Urlencoded, &form);
            let request = match more {
                Some((name, value)) => request.header(name, value),
                None => request,
            };
            server.ask(&request)
        };
        assert_eq!(ask("other-slow", SLOW_SECRET).status, 200, "{more:?}");
        for _ in 0..4 {
            ask("slow", "wrong").assert_refused(400, "invalid_client");
        }
        ask("slow", "wrong").assert_refused(429, "invalid_request");
        ask("slow", SLOW_SECRET).assert_refused(429, "invalid_request");
        // Two clients are not throttled. `other-slow` has authenticated from this address before,
        // and the secret of `post-only` is random and cannot be guessed.
        assert_eq!(ask("other-slow", SLOW_SECRET).status, 200, "{more:?}");
        for _ in 0..20 {
            ask("post-only", "wrong").assert_refused(400, "invalid_client");
        }
        let last = ask("post-only", &secret_of("post-only"));
        assert_eq!(last.status, 200);

        server.log.of_request(last.header("x-request-id").unwrap());
        let forwarded = u64::from(more.is_some());
        assert_eq!(server.metric("grantd_untrusted_forwarding_total "), 29 * forwarded);
        let warnings = server.log.count(|line| {
            line["message"].as_str().is_some_and(|text| text.contains("sends forwarding headers"))
        });
        assert_eq!(warnings as u64, forwarded, "{more:?}");
    }
}

#[test]
fn unknown_ids_have_the_budgets_of_their_decoys() {
    let home = Home::new();
    home.register(&[client_with_hash("slow", SLOW_HASH)]);
    home.write(
        "grantd.toml",
        "[failures]\nclient_failures = 1\nseconds = 3600\nshared_factor = 3\n",
    );
    let server = Program::start(home, &["--config", "grantd.toml"]);
    for id in ["slow", "unknown"] {
        let ask = || server.ask(&Request::token(ENCODINGS[0], &request_of(id, "wrong", &[])));
        for _ in 0..3 {
            ask().assert_refused(400, "invalid_client");
        }
        ask().assert_refused(429, "invalid_request");
    }
}

/// Returns one request of each kind that contains a client's id and secret.
pub(crate) fn questions(client: &str, secret: &str) -> Vec<Request> {
    let form = request_of(client, secret, &[]);
    let mut about = form.clone();
    about.push(("token", "a.b.c"));
    let basic = format!("{client}:{secret}");
    let mut questions = Vec::new();
    for encoding in ENCODINGS {
        let grant = [("grant_type", "client_credentials")];
        questions.extend([
            Request::token(encoding, &form),
            Request::token(encoding, &grant).basic(&basic),
            Request::new("POST", "/connect/introspect").form(encoding, &about),
            Request::new("POST", "/connect/revocation").form(encoding, &about),
        ]);
    }
    let json = |path: &str, more: Value| {
        let mut body = json!({ "client_id": client, "client_secret": secret });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Request::new("POST", path).typed_body("application/json", body.to_string())
    };
    let grant = json!({ "grant_type": "client_credentials", "scope": "read" });
    questions.extend([
        json("/v1/api/oauth/token", grant.clone()),
        json("/v2/api/oauth/token?appContext=aplus", grant),
        json("/v1/api/oauth/validateToken", json!({ "token": "a.b.c" })),
        Request::get("/v1/getAccessToken/read")
            .header("Content-Type", "application/json")
            .basic(&basic),
    ]);
    questions
}

/// The failure budget limits guesses even while the hash queue is full: if a request spends no unit
/// of the budget, the answer does not show whether the secret is right.
#[test]
fn a_full_hash_queue_reveals_nothing_about_a_secret() {
    let toml = "trusted_proxies = [\"127.0.0.1\"]\n\
                [failures]\nclient_failures = 30\nsource_failures = 100\nseconds = 3600\n\
                [limits]\npassword_threads = 1\npassword_queue = 1\n";
    let home = home_with_slow(toml);
    let text = std::fs::read_to_string(home.clients()).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    // A hash that takes about 0.1 s, for the clients that keep the queue full.
    let holder = |id: String| {
        let hash = SLOW_HASH.replace("$04$", "$11$");
        json!({ "client_id": id, "secrets": secrets_json(&hash) })
    };
    let holders = (0..HOLDERS).map(|index| holder(format!("holder-{index}")));
    document["clients"].as_array_mut().unwrap().extend(holders);
    home.write("clients.json", &document.to_string());
    let arguments = ["--config", "grantd.toml", "--allow-demo-clients"];
    let server = Program::start(home, &arguments);
    let from =
        |address: &str, request: Request| server.ask(&request.header("X-Forwarded-For", address));
    let right = || questions("slow", SLOW_SECRET);
    // This success makes the server cache the secret. The client is then known at 192.0.2.1.
    assert_eq!(from("192.0.2.1", right().remove(0)).status, 200);

    let is_over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        for index in 0..HOLDERS {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let id = format!("holder-{index}");
                // Each guess is from a new address. If all guesses were from one address, the
                // failure budget of this address would run out.
                for guess in 0..60_000 {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let address = format!("198.{index}.{}.{}", guess / 250, guess % 250);
                    let secret = format!("guess-{guess}");
                    let form = request_of(&id, &secret, &[]);
                    let request = Request::token(ENCODINGS[0], &form);
                    server.ask(&request.header("X-Forwarded-For", &*address));
                }
            });
        }
        let _stop = StopOnDrop(&is_over);
        wait_until(|| server.metric("grantd_password_queue ") == 1);
        let mut answers = Vec::new();
        // The client has authenticated from the second of these addresses, but not from the first.
        for address in ["192.0.2.7", "192.0.2.1"] {
            let guess = |at: usize| {
                let question = questions("slow", &format!("{address}-{at}")).swap_remove(at % 12);
                from(address, question)
            };
            answers.push((0..300).map(guess).collect::<Vec<_>>());
        }
        answers
    });
    for answers in &answers {
        let paid = answers.iter().filter(|answer| answer.status != 429).count();
        assert!(paid <= 30, "{paid} guesses were answered");
    }
    assert!(answers[0].iter().any(|answer| answer.status == 503), "the queue was never full");
    let before = throttled(&server, "client");
    for address in ["192.0.2.1", "192.0.2.7"] {
        for (wrong, right) in questions("slow", "wrong").into_iter().zip(right()) {
            let [earlier, right, later] =
                [&wrong, &right, &wrong].map(|request| from(address, request.clone()));
            assert_eq!(earlier.status, 429, "{}", earlier.text());
            // A second may pass between two requests.
            let wait = |answer: &Response| -> u32 {
                answer.header("retry-after").expect("a wait").parse().unwrap()
            };
            assert!((wait(&later)..=wait(&earlier)).contains(&wait(&right)));
            let [earlier, right] = [earlier, right].map(|answer| {
                let (status, mut headers, body) = answer.without_id_and_date();
                headers.retain(|(name, _)| name != "retry-after");
                (status, headers, body)
            });
            assert_eq!(earlier, right);
        }
    }
    assert_eq!(throttled(&server, "client"), before + 72);
    // The right secret is accepted from an address without failures.
    assert_eq!(from("192.0.2.2", right().remove(0)).status, 200);
}

/// The number of clients that keep the hash queue full.
const HOLDERS: usize = 4;

/// Another hash of [`SLOW_SECRET`]. To compute it takes eight times as long as to compute
/// [`SLOW_HASH`].
const SLOWER_HASH: &str = "$2b$07$TnE0l4bsgWyWTvjvvWPBkeMTOgZU.dN39icu1u2K.Dh0VS//lJ87a";
const LOGINS: usize = 40;

/// The clients whose secrets the flood guesses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guessed {
    /// Clients that authenticate for the first time during the flood.
    New,
    /// A client that authenticated, before the flood, from each address that the flood uses.
    Insider,
}

/// Keeps the hash queue full by a flood of guesses, from `addresses` addresses over 70 connections.
/// During the flood, [`LOGINS`] new clients and [`LOGINS`] known clients log in from addresses that
/// the flood does not use. Returns the numbers of successful logins: of new clients, then of known
/// clients. A known client has authenticated from its address before the flood, but its secret is
/// not cached.
fn logins_under_a_flood(addresses: usize, guessed: Guessed) -> [usize; 2] {
    let home = Home::new();
    let registry = |hash_of_known: &str| {
        let new = (0..LOGINS).map(|index| client_with_hash(&format!("new-{index}"), SLOWER_HASH));
        let known =
            (0..LOGINS).map(|index| client_with_hash(&format!("known-{index}"), hash_of_known));
        let insider = client_with_hash("insider", hash_of_known);
        let clients: Vec<_> = new.chain(known).chain([insider]).collect();
        registry_of(&clients)
    };
    home.write("clients.json", &registry(SLOW_HASH));
    home.write("grantd.toml", "trusted_proxies = [\"127.0.0.1\"]\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let log_in = |kind: &str, index: usize| {
        let id = format!("{kind}-{index}");
        let answer = ask(&server, &format!("203.0.113.{index}"), &id, SLOW_SECRET);
        usize::from(answer.status == 200)
    };
    assert_eq!((0..LOGINS).map(|index| log_in("known", index)).sum::<usize>(), LOGINS);
    if guessed == Guessed::Insider {
        for address in 0..addresses {
            let answer = ask(&server, &format!("198.51.{address}.1"), "insider", SLOW_SECRET);
            assert_eq!(answer.status, 200);
        }
    }
    // The secrets get new hashes, so that none is cached.
    server.home.write("clients.json", &registry(SLOWER_HASH));
    server.hang_up();
    wait_until(|| server.metric("grantd_snapshot_generation ") == 2);

    let is_over = AtomicBool::new(false);
    let guesses = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..70 {
            let (server, is_over, guesses) = (&server, &is_over, &guesses);
            scope.spawn(move || {
                let mut connection = Connection::open(server.address);
                while !is_over.load(Ordering::Relaxed) {
                    let guess = guesses.fetch_add(1, Ordering::Relaxed);
                    if guess > 200_000 {
                        return;
                    }
                    let id = match guessed {
                        Guessed::New => format!("new-{}", guess % LOGINS),
                        Guessed::Insider => "insider".to_owned(),
                    };
                    let secret = format!("{guess}");
                    let form = request_of(&id, &secret, &[]);
                    let address = format!("198.51.{}.1", guess % addresses);
                    let request = Request::token(ENCODINGS[0], &form);
                    connection.ask(&request.header("X-Forwarded-For", address));
                }
            });
        }
        let _stop = StopOnDrop(&is_over);
        wait_until(|| guesses.load(Ordering::Relaxed) > 140);
        ["new", "known"].map(|kind| {
            let log_in = &log_in;
            let logins: Vec<_> =
                (0..LOGINS).map(|index| scope.spawn(move || log_in(kind, index))).collect();
            logins.into_iter().map(|login| login.join().unwrap()).sum()
        })
    })
}

#[test]
fn a_flood_from_one_address_delays_no_login_from_elsewhere() {
    let [new, known] = logins_under_a_flood(1, Guessed::New);
    assert!(new >= 38 && known >= 38, "{new} and {known} of {LOGINS}");
}

#[test]
fn a_flood_from_many_addresses_delays_no_known_client() {
    let [_, known] = logins_under_a_flood(200, Guessed::New);
    assert!(known >= 38, "{known} of {LOGINS}");
}

/// The flood guesses the secret of one client. Before the flood, this client authenticated from
/// each address that the flood uses.
#[test]
fn guesses_at_a_client_known_everywhere_delay_no_other_known_client() {
    let [_, known] = logins_under_a_flood(60, Guessed::Insider);
    assert!(known >= 38, "{known} of {LOGINS}");
}

#[test]
fn errors_other_than_a_wrong_secret_cost_nothing() {
    let server = start();
    for _ in 0..10 {
        let secret = secret_of("post-only");
        let form = request_of("post-only", &secret, &[("scope", "other")]);
        let request = Request::token(Encoding::Urlencoded, &form);
        let request = request.header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request).assert_refused(400, "invalid_scope");
        let request = Request::token(Encoding::Urlencoded, &[("client_id", "post-only")]);
        let request = request.header("X-Forwarded-For", "192.0.2.1");
        assert_eq!(server.ask(&request).status, 400);
    }
    assert_eq!(is_right(&server, "192.0.2.1", "post-only"), 200);
}

#[test]
fn the_log_has_the_address_stated_by_a_trusted_proxy_only() {
    let trusting = start();
    let trusted = ask(&trusting, "203.0.113.9, 192.0.2.7", "unknown", "x");
    let id = trusted.header("x-request-id").unwrap();
    assert_eq!(trusting.log.of_request(id)["address"], "192.0.2.7");

    let server = Program::shared();
    let untrusted = ask(&server, "192.0.2.7", "unknown", "x");
    let line = server.log.of_request(untrusted.header("x-request-id").unwrap());
    assert_eq!(line.get("address"), None);
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}
