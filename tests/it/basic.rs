//! HTTP Basic credentials. The server reads them in two ways: form-decoded (RFC 6749, section
//! 2.3.1), and raw, because most clients do not form-encode them.

use serde_json::{Value, json};

use crate::support::home::hash_of;
use crate::support::registry::{client_json, secrets_json};
use crate::support::{ENCODINGS, Encoding, Home, Program, Request, demo_without, request_of};

/// Pairs of id and secret that form-decoding changes or that are not valid form encoding.
const PAIRS: [(&str, &str); 6] = [
    ("plus", "q1+w2/e3=r4+t5/y6=u7+i8/o9=p0+a1="),
    ("triplet", "a-secret-that-holds-%41%42%43-in-the-middle"),
    ("percent", "a-secret-that-is-100%-made-of-characters"),
    ("line-feed", "a-secret-that-would-decode-to-a-%0A-line"),
    ("with+plus", "a-secret-of-a-client-whose-id-has-a+plus"),
    ("with%20triplet", "a-secret-of-a-client-whose-id-has-%2B-a+triplet"),
];

fn client(id: &str, hash: &str) -> Value {
    let introspects = ["https://api.example"];
    client_json(id, &json!({ "secrets": secrets_json(hash), "introspects": introspects }))
}

fn home() -> Home {
    let home = Home::new();
    let clients: Vec<_> = PAIRS.iter().map(|(id, secret)| client(id, &hash_of(secret))).collect();
    home.register(&clients);
    home
}

/// Form-encodes `text`, as RFC 6749 (section 2.3.1) requires for each half of a Basic pair.
fn form_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn basic(encoding: Encoding, pair: &str) -> Request {
    let form = demo_without(&["client_id", "client_secret"]);
    Request::token(encoding, &form).basic(pair)
}

fn firstvision(pair: &str) -> Request {
    Request::get("/v1/getAccessToken?scope=read")
        .header("Content-Type", "application/json")
        .basic(pair)
}

fn ask_about(path: &str, pair: &str) -> Request {
    Request::new("POST", path).form(Encoding::Urlencoded, &[("token", "x")]).basic(pair)
}

#[test]
fn both_readings_of_a_pair_are_accepted_at_every_endpoint() {
    let server = Program::start(home(), &[]);
    let raw = || server.metric("grantd_raw_basic_pairs_total ");
    for (id, secret) in PAIRS {
        let as_it_stands = format!("{id}:{secret}");
        let encoded = format!("{}:{}", form_encoded(id), form_encoded(secret));
        for (pair, is_raw) in [(&as_it_stands, true), (&encoded, false)] {
            let before = raw();
            let mut requests = Vec::from(ENCODINGS.map(|encoding| basic(encoding, pair)));
            requests.push(firstvision(pair));
            requests.push(ask_about("/connect/introspect", pair));
            requests.push(ask_about("/connect/revocation", pair));
            let asked = requests.len() as u64;
            for (index, request) in requests.into_iter().enumerate() {
                let request_id = format!("{id}-{is_raw}-{index}").replace(['+', '%'], "_");
                let answer = server.ask(&request.header("X-Request-Id", request_id.as_str()));
                assert_eq!(answer.status, 200, "{pair}: {}", answer.text());
                assert_eq!(server.log.of_request(&request_id)["client"], id);
            }
            assert_eq!(raw() - before, if is_raw { asked } else { 0 }, "{pair}");
        }
        // Form bodies are always form-encoded, so a secret in a body has only one reading.
        let form = request_of(id, secret, &[]);
        for encoding in ENCODINGS {
            assert_eq!(server.ask(&Request::token(encoding, &form)).status, 200, "{id}");
        }
        for wrong in [format!("{as_it_stands}x"), format!("{encoded}x"), format!("x{as_it_stands}")]
        {
            for request in ENCODINGS.map(|encoding| basic(encoding, &wrong)) {
                server.ask(&request).assert_refused(401, "invalid_client");
            }
        }
    }
}

#[test]
fn the_id_in_the_body_chooses_the_reading() {
    let home = Home::new();
    let (raw, decoded) =
        ("a-secret-of-the-raw-client-+-of-two", "a-secret-of-the-decoded-one-of-two");
    let clients = [client("a+b", &hash_of(raw)), client("a b", &hash_of(decoded))];
    home.register(&clients);
    let server = Program::start(home, &[]);
    let ask = |pair: &str, body_id: Option<&str>, request_id: &str| {
        let mut form = demo_without(&["client_id", "client_secret"]);
        form.extend(body_id.map(|id| ("client_id", id)));
        let request = Request::token(Encoding::Urlencoded, &form).basic(pair);
        server.ask(&request.header("X-Request-Id", request_id))
    };
    let (of_raw, of_decoded) = (format!("a+b:{raw}"), format!("a+b:{decoded}"));
    for (index, (pair, body_id, client)) in [
        (&of_raw, None, Some("a+b")),
        (&of_decoded, None, Some("a b")),
        (&of_raw, Some("a+b"), Some("a+b")),
        (&of_decoded, Some("a b"), Some("a b")),
        (&of_raw, Some("a b"), None),
        (&of_decoded, Some("a+b"), None),
    ]
    .into_iter()
    .enumerate()
    {
        let request_id = format!("reading-{index}");
        let answer = ask(pair, body_id, &request_id);
        match client {
            Some(client) => {
                assert_eq!(answer.status, 200, "{pair} {body_id:?}: {}", answer.text());
                assert_eq!(server.log.of_request(&request_id)["client"], client);
            }
            None => answer.assert_refused(401, "invalid_client"),
        }
    }
    ask(&of_raw, Some("other"), "other").assert_refused(400, "invalid_request");
}

/// One reading of a pair can be right for a client of the attacker, while the other reading guesses
/// the secret of a victim. The server charges the guess to the victim's budget, although the pair
/// authenticates the attacker's client. Without this charge, the attacker could test any number of
/// guesses.
#[test]
fn a_reading_that_names_another_client_costs_its_budget() {
    let home = Home::new();
    let toml = "trusted_proxies = [\"127.0.0.1\"]\n\
                [failures]\nclient_failures = 5\nsource_failures = 90\nseconds = 3600\n";
    home.write("grantd.toml", toml);
    let own = "a-secret-of-the-client-with-the-triplet-%41";
    let clients = [
        client("vict%69m", &hash_of(own)),
        client("victim", &hash_of("a-secret-of-the-client-that-is-named")),
        client("with+plus", &hash_of(PAIRS[4].1)),
    ];
    home.register(&clients);
    let server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);
    let ask = |pair: &str| {
        let request = basic(Encoding::Urlencoded, pair).header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request).status
    };
    for _ in 0..5 {
        assert_eq!(ask(&format!("vict%69m:{own}")), 200);
    }
    assert_eq!(ask("victim:wrong"), 429);
    // The client `vict%69m`, which the raw reading names, has budget left.
    assert_eq!(ask(&format!("vict%69m:{own}")), 200);
    // The raw reading of this pair is right. The form-decoded reading names no registered client,
    // so it costs no budget.
    for _ in 0..20 {
        assert_eq!(ask(&format!("{}:{}", PAIRS[4].0, PAIRS[4].1)), 200);
    }
}

/// A correct pair costs no budget. A wrong pair costs one unit of budget for each of its readings.
#[test]
fn each_wrong_reading_costs_one_unit_of_the_budget() {
    let home = home();
    home.write(
        "grantd.toml",
        "[failures]\nclient_failures = 4\nsource_failures = 40\nseconds = 3600\nshared_factor = 1\n\
         [limits]\npassword_threads = 1\n",
    );
    let slow =
        "$pbkdf2-sha256$29000$hxAi5Ly3thZC6H3vfW.tVQ$lQwrwgKvH0R5Wx4G/bqic1o.ITsPz8fm6TSUU9ZGlkM";
    let slow = client("slow", slow);
    let (id, secret) = PAIRS[0];
    let secrets = json!([{ "label": "b", "hash": hash_of(secret) }, slow["secrets"][0]]);
    let guessable = client_json(id, &json!({ "secrets": secrets }));
    home.register(&[guessable, slow]);
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let ask = |pair: &str| server.ask(&basic(Encoding::Urlencoded, pair));
    let hashes = || server.metric("grantd_password_hashes_total ");
    let (right, wrong) = (format!("{id}:{secret}"), format!("{id}:w+rong"));
    for _ in 0..20 {
        assert_eq!(ask(&right).status, 200);
    }
    // For a wrong pair with two readings, the server computes two hashes and charges two units. It
    // does so even if the client is unknown.
    let before = hashes();
    for pair in [&wrong, &format!("unknown-{id}:w+rong")] {
        let before = hashes();
        ask(pair).assert_refused(401, "invalid_client");
        assert_eq!(hashes() - before, 2, "{pair}");
    }
    ask(&wrong).assert_refused(401, "invalid_client");
    assert_eq!(hashes() - before, 6);
    for pair in [&wrong, &right] {
        assert_eq!(ask(pair).status, 429, "{pair}");
    }
    assert_eq!(hashes() - before, 6);
    // The pair `slow:wrong` has one reading and costs one unit. The client `slow` has a budget of
    // its own, with four units.
    for _ in 0..4 {
        ask("slow:wrong").assert_refused(401, "invalid_client");
    }
    assert_eq!(ask("slow:wrong").status, 429);
}

/// If a secret has two readings, the server computes a slow hash for each reading in the first
/// request. It caches that the right reading is right, so later requests compute no hash.
#[test]
fn the_verdict_on_a_right_reading_is_cached() {
    let home = Home::new();
    let text = "grantd-cli-made-secret+%41";
    home.write("clients.json", "{\"clients\":[]}");
    let mut add = home.command(&["client", "add", "--id", "slow", "--scope", "read"]);
    let added = crate::support::command::run_with_input(
        add.args(["--secret-stdin", "--hash", "argon2id"]),
        text,
    );
    added.assert_fine();
    let server = Program::start(home, &[]);
    for _ in 0..5 {
        let answer = server.ask(&basic(Encoding::Urlencoded, &format!("slow:{text}")));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(server.metric("grantd_password_hashes_total "), 2);
    }
}
