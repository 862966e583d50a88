//! `POST /connect/revocation` (RFC 7009): an acknowledged revocation survives a crash and affects
//! no other token.

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::status::{
    INTROSPECT, ISSUER, REVOKE, SAME_ISSUER, about, assert_revoked, home, introspect, is_active,
    revoke, revoked_rows, token_of, validate, validate_token, vision_token_of,
};
use crate::support::token::sign;
use crate::support::{
    Connection, ENCODINGS, Encoding, Library, Program, Request, Response, wait_until,
};

const NOW: u64 = 1_750_384_800;

fn start() -> Library {
    Library::start(home(), ISSUER, NOW)
}

#[test]
fn a_revoked_token_is_refused_at_once_everywhere() {
    let library = start();
    for (step, encoding) in (0..).zip(ENCODINGS) {
        // Sets the clock forward for each encoding: two tokens without an id would be
        // byte-identical if they were issued in the same second.
        library.clock.set(NOW + step);
        for take in [token_of, vision_token_of] {
            let token = take(library.address, "timed");
            // After these requests, the token is in the server's cache of verified tokens. The
            // revocation must take effect although the token is cached.
            assert!(is_active(library.address, "timed", &token));
            assert_eq!(validate(library.address, &token).status, 204);
            assert_eq!(validate_token(library.address, "timed", &token), true);

            let request = about(REVOKE, encoding, "timed", &[("token", &token)]);
            let response = request.send(library.address);
            assert_revoked(&response);
            assert_eq!(response.header("cache-control"), Some("no-store"));

            assert!(!is_active(library.address, "timed", &token));
            assert!(!is_active(library.address, "resource-issuer", &token));
            assert_eq!(validate_token(library.address, "timed", &token), false);
            let response = validate(library.address, &token);
            assert_eq!(response.status, 401);
            let challenge = "Bearer realm=\"grantd\", error=\"invalid_token\"";
            assert_eq!(response.header("www-authenticate"), Some(challenge));
            // A second revocation changes nothing.
            assert_revoked(&request.send(library.address));
        }
    }
    // A revocation does not affect later tokens of the same client.
    library.clock.set(NOW + 2);
    for take in [token_of, vision_token_of] {
        assert!(is_active(library.address, "timed", &take(library.address, "timed")));
    }
    let rows = revoked_rows(&library.home);
    assert_eq!(rows.len(), 4, "{rows:?}");
    let begins = |begin: &str| rows.iter().filter(|row| row.starts_with(begin)).count();
    assert_eq!(begins(&format!("{} jti:", NOW + 3600)), 1);
    assert_eq!(begins(&format!("{} sha256:", NOW + 3601)), 1);
}

#[test]
fn an_invalid_token_is_acknowledged_without_a_record() {
    let library = start();
    let good = token_of(library.address, "timed");
    let expired = sign(&json!({
        "iss": ISSUER, "exp": NOW, "client_id": "timed", "iat": NOW - 60, "scope": "read",
    }));
    let of_other = sign(&json!({
        "iss": ISSUER, "exp": NOW, "client_id": "reuser", "iat": NOW - 60, "scope": "read",
    }));
    for encoding in ENCODINGS {
        for token in ["x", "a.b.c", &*format!("{good}A"), &*expired, &*of_other] {
            let request = about(REVOKE, encoding, "timed", &[("token", token)]);
            assert_revoked(&request.send(library.address));
        }
    }
    assert!(is_active(library.address, "timed", &good));
    assert_eq!(revoked_rows(&library.home), [] as [&str; 0]);
}

#[test]
fn a_token_that_is_not_yet_valid_can_be_revoked() {
    let library = start();
    let token = sign(&json!({
        "iss": ISSUER, "exp": NOW + 60, "nbf": NOW + 10, "client_id": "timed", "iat": NOW,
        "scope": "read",
    }));
    assert_revoked(&revoke(library.address, "timed", &token));
    library.clock.set(NOW + 10);
    assert!(!is_active(library.address, "timed", &token));
}

#[test]
fn another_clients_token_is_refused_and_stays_valid() {
    let library = start();
    for take in [token_of, vision_token_of] {
        let token = take(library.address, "timed");
        for encoding in ENCODINGS {
            // A client that may introspect the token may not revoke it.
            for client in ["reuser", "resource-issuer"] {
                let request = about(REVOKE, encoding, client, &[("token", &token)]);
                request.send(library.address).assert_refused(400, "unauthorized_client");
            }
        }
        assert!(is_active(library.address, "timed", &token));
    }
}

#[test]
fn a_token_type_hint_does_not_limit_a_revocation() {
    let library = start();
    for encoding in ENCODINGS {
        for hint in ["access_token", "refresh_token", "unknown", ""] {
            let token = token_of(library.address, "timed");
            let parameters = [("token_type_hint", hint), ("token", &token)];
            assert_revoked(&about(REVOKE, encoding, "timed", &parameters).send(library.address));
            assert!(!is_active(library.address, "timed", &token), "{hint}");
        }
    }
}

#[test]
fn a_revoked_token_is_not_reused() {
    let library = start();
    for take in [token_of, vision_token_of] {
        let mut seen = HashSet::new();
        // The clock stands still, and tokens of the profile `vision` have no id. To make a new
        // token differ from the revoked one, the server must give the new token another lifetime.
        for _ in 0..4 {
            let token = take(library.address, "reuser");
            assert!(seen.insert(token.clone()));
            assert_eq!(take(library.address, "reuser"), token);
            assert!(is_active(library.address, "reuser", &token));
            assert_revoked(&revoke(library.address, "reuser", &token));
            assert!(!is_active(library.address, "reuser", &token));
        }
    }
    // The client `timed` is not registered for token reuse. It does not get a revoked token again:
    // the server shortens the lifetime by up to 15 s, until the token differs from each revoked
    // token.
    for lived_less in 0..16 {
        let token = vision_token_of(library.address, "timed");
        let told = introspect(library.address, "timed", &token).json();
        assert_eq!(told["exp"], json!(NOW + 3600 - lived_less));
        assert_revoked(&revoke(library.address, "timed", &token));
    }
    let pair = format!("timed:{}", secret_of("timed"));
    let request =
        Request::get("/v1/getAccessToken/read").header("Content-Type", "application/json");
    let refused = request.basic(&pair).send(library.address);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    library.clock.set(NOW + 1);
    assert!(is_active(library.address, "timed", &vision_token_of(library.address, "timed")));
}

#[test]
fn a_revocation_is_dropped_an_hour_after_its_tokens_expiry() {
    let library = start();
    let token = token_of(library.address, "timed");
    assert_revoked(&revoke(library.address, "timed", &token));
    // Sets the clock to one second before the record may be dropped, makes a second revocation, and
    // sets the clock back. The first token is still revoked, so its record was not dropped.
    library.clock.set(NOW + 3600 + 3599);
    assert_revoked(&revoke(library.address, "timed", &token_of(library.address, "timed")));
    library.clock.set(NOW);
    assert!(!is_active(library.address, "timed", &token));
}

#[test]
fn a_revocation_survives_kill_9_and_a_restart() {
    let mut server = Program::start(home(), &SAME_ISSUER);
    let tokens: Vec<_> = (0..4).map(|_| token_of(server.address, "timed")).collect();
    let vision = vision_token_of(server.address, "one-audience");
    assert_revoked(&revoke(server.address, "timed", &tokens[0]));
    assert_revoked(&revoke(server.address, "one-audience", &vision));

    let check = |server: &Program, revoked: usize| {
        for (index, token) in tokens.iter().enumerate() {
            assert_eq!(is_active(server.address, "timed", token), index >= revoked, "{index}");
        }
        assert!(!is_active(server.address, "one-audience", &vision));
    };
    check(&server, 1);
    server = Program::start(server.into_home(), &SAME_ISSUER);
    check(&server, 1);
    assert_revoked(&revoke(server.address, "timed", &tokens[1]));
    server.terminate();
    assert!(server.wait().success());
    server = Program::start(server.into_home(), &SAME_ISSUER);
    check(&server, 2);
    assert_revoked(&revoke(server.address, "timed", &tokens[2]));
    check(&server, 3);
    assert_eq!(revoked_rows(&server.home).len(), 4);
}

#[test]
fn a_revocation_acknowledged_before_a_kill_is_on_disk() {
    let server = Program::start(home(), &SAME_ISSUER);
    let tokens: Vec<_> = (0..200).map(|_| token_of(server.address, "timed")).collect();
    let acknowledged = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for part in tokens.chunks(25) {
            let (server, acknowledged) = (&server, &acknowledged);
            scope.spawn(move || {
                let mut connection = Connection::open(server.address);
                for token in part {
                    let request = about(REVOKE, Encoding::Urlencoded, "timed", &[("token", token)]);
                    connection.send_if_open(&request.to_bytes());
                    let Some(answer) = connection.read_if_answered() else { return };
                    assert_revoked(&answer);
                    let mut acknowledged = acknowledged.lock().unwrap();
                    acknowledged.insert(token.clone());
                    if acknowledged.len() == 60 {
                        server.kill();
                    }
                }
            });
        }
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!((60..200).contains(&acknowledged.len()), "{}", acknowledged.len());
    let server = Program::start(server.into_home(), &SAME_ISSUER);
    let left = tokens.iter().filter(|token| is_active(server.address, "timed", token));
    let left: Vec<_> = left.collect();
    assert!(left.iter().all(|token| !acknowledged.contains(*token)));
    assert!(!left.is_empty(), "it was killed too late to tell");
}

#[test]
fn a_torn_last_line_is_dropped_with_a_warning() {
    let server = Program::start(home(), &SAME_ISSUER);
    let tokens: Vec<_> = (0..3).map(|_| token_of(server.address, "timed")).collect();
    assert_revoked(&revoke(server.address, "timed", &tokens[0]));
    let home = server.into_home();
    let whole = fs::read_to_string(home.path("state/revocations")).unwrap();
    // Each of these last lines is torn: its revocation was not acknowledged. The third line lacks
    // only the line break.
    for torn in ["1", "1790000000 jti:kGGv6zF", "1790000000 jti:kGGv6zFBu5FLUEcBWPGsQw"] {
        home.write("state/revocations", &format!("{whole}{torn}"));
        let checked = run(home.command(&["check"]));
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
    let server = Program::start(home, &SAME_ISSUER);
    let line = server.log.wait_for(|line| line["level"] == "WARN" && line["file"].is_string());
    // The file begins with its version and the owner of the first row.
    assert_eq!(line["line"], 4);
    assert!(!is_active(server.address, "timed", &tokens[0]));
    assert!(is_active(server.address, "timed", &tokens[1]));
    assert_revoked(&revoke(server.address, "timed", &tokens[1]));
    assert_eq!(revoked_rows(&server.home).len(), 2);
    let server = Program::start(server.into_home(), &SAME_ISSUER);
    assert!(!is_active(server.address, "timed", &tokens[0]));
    assert!(!is_active(server.address, "timed", &tokens[1]));
    assert!(is_active(server.address, "timed", &tokens[2]));
}

#[test]
fn any_other_corruption_is_an_error_with_file_and_line() {
    let home = home();
    fs::create_dir(home.path("state")).unwrap();
    let good = "1790000000 jti:kGGv6zFBu5FLUEcBWPGsQw\n";
    for bad in [
        "",
        "1790000000",
        "1790000000 jti:kGGv6zFBu5FLUEcBWPGsQ",
        "1790000000 jti:kGGv6zFBu5FLUEcBWPGsQw ",
        "1790000000 sha256:kGGv6zFBu5FLUEcBWPGsQw",
        "1790000000 other:kGGv6zFBu5FLUEcBWPGsQw",
        "x jti:kGGv6zFBu5FLUEcBWPGsQw",
        "\0\0\0\0",
    ] {
        home.write("state/revocations", &format!("{good}{bad}\n{good}"));
        for command in ["serve", "check"] {
            let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
            let ended = run(home.command(&[command]).args(local));
            assert_eq!(ended.code, Some(1), "{bad}");
            let says = "state/revocations:2: is not a valid revocation record; restore the file";
            assert!(ended.stderr.contains(says), "{}", ended.stderr);
        }
    }
}

#[track_caller]
fn assert_unavailable(response: &Response, seconds: &str) {
    response.assert_refused(503, "temporarily_unavailable");
    assert_eq!(response.header("retry-after"), Some(seconds));
}

#[test]
fn a_revocation_that_cannot_be_written_is_not_acknowledged() {
    // Not even root can create a directory in `/proc`.
    let arguments = [&SAME_ISSUER[..], &["--state", "/proc/grantd-state"]].concat();
    let server = Program::start(home(), &arguments);
    let warning = server.log.wait_for(|line| line["level"] == "WARN" && line["error"].is_string());
    assert_eq!(warning["directory"], "/proc/grantd-state");
    let token = token_of(server.address, "timed");
    let request = about(REVOKE, Encoding::Urlencoded, "timed", &[("token", &token)]);
    assert_unavailable(&server.ask(&request.header("X-Request-Id", "one")), "5");
    assert_eq!(server.log.of_request("one")["cause"], "revocation_not_written");
    assert!(is_active(server.address, "timed", &token));
    // The revocation of an invalid token needs no record and is acknowledged.
    assert_revoked(&revoke(server.address, "timed", "x"));
}

#[test]
fn a_directory_that_becomes_writable_is_used_from_then_on() {
    let home = home();
    fs::create_dir(home.path("state")).unwrap();
    let server = Program::start(home, &SAME_ISSUER);
    let [one, two] = [(); 2].map(|()| token_of(server.address, "timed"));
    assert_revoked(&revoke(server.address, "timed", &one));
    // The test removes the file of the revocations together with the directory. The next successful
    // revocation writes the whole file again, with both records.
    fs::remove_dir_all(server.home.path("state")).unwrap();
    server.home.write("state", "in the way");
    assert_unavailable(&revoke(server.address, "timed", &two), "5");
    assert!(!is_active(server.address, "timed", &one));
    assert!(is_active(server.address, "timed", &two));
    fs::remove_file(server.home.path("state")).unwrap();
    assert_revoked(&revoke(server.address, "timed", &two));
    assert_eq!(revoked_rows(&server.home).len(), 2);
}

#[test]
fn a_full_disk_loses_no_acknowledged_revocation() {
    let server = Program::start_without_room(home(), &SAME_ISSUER);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let token = token_of(server.address, "timed");
        let response = revoke(server.address, "timed", &token);
        if response.status == 503 {
            assert_unavailable(&response, "5");
            break token;
        }
        assert_revoked(&response);
        acknowledged.push(token);
        assert!(acknowledged.len() < 100, "the disk was never full");
    };
    assert!(!acknowledged.is_empty());
    // What the failed write has left of its last line was cut off. The next write fails too.
    assert_unavailable(&revoke(server.address, "timed", &refused), "5");
    let check = |server: &Program| {
        for token in &acknowledged {
            assert!(!is_active(server.address, "timed", token));
        }
        assert!(is_active(server.address, "timed", &refused));
    };
    check(&server);
    let server = Program::start(server.into_home(), &SAME_ISSUER);
    check(&server);
    assert_revoked(&revoke(server.address, "timed", &refused));
    assert_eq!(revoked_rows(&server.home).len(), acknowledged.len() + 1);
}

#[test]
fn at_the_limit_a_new_revocation_is_refused_and_none_is_dropped() {
    let home = home();
    home.write("grantd.toml", "[limits]\nrevocations = 2\n");
    let arguments = [&SAME_ISSUER[..], &["--config", "grantd.toml"]].concat();
    let server = Program::start(home, &arguments);
    let clients = ["timed", "one-audience", "reuser"];
    let tokens = clients.map(|client| token_of(server.address, client));
    for (client, token) in clients.iter().zip(&tokens).take(2) {
        assert_revoked(&revoke(server.address, client, token));
    }
    let request = about(REVOKE, Encoding::Urlencoded, "reuser", &[("token", &tokens[2])]);
    assert_unavailable(&server.ask(&request.header("X-Request-Id", "three")), "60");
    assert_eq!(server.log.of_request("three")["cause"], "revocations_full");
    // A token that is already revoked needs no second record.
    assert_revoked(&revoke(server.address, "one-audience", &tokens[1]));
    for ((client, token), is_good) in clients.iter().zip(&tokens).zip([false, false, true]) {
        assert_eq!(is_active(server.address, client, token), is_good);
    }
    let told: Value = introspect(server.address, "reuser", &tokens[2]).json();
    assert_eq!(told["active"], true, "{INTROSPECT}");
}

#[test]
fn a_client_that_holds_its_share_revokes_all_its_tokens_up_to_an_expiry() {
    let home = home();
    let registry = fs::read_to_string(home.clients()).unwrap();
    home.write("grantd.toml", "audit = \"audit.jsonl\"\n[limits]\nrevocations = 4\n");
    let arguments = [&SAME_ISSUER[..], &["--config", "grantd.toml"]].concat();
    let mut server = Program::start(home, &arguments);
    let other = token_of(server.address, "one-audience");
    let tokens: Vec<_> = (0..4).map(|_| token_of(server.address, "timed")).collect();
    let vision = vision_token_of(server.address, "timed");
    for token in &tokens[..3] {
        assert_revoked(&revoke(server.address, "timed", token));
    }
    let told = server.log.wait_for(|line| line["until"].is_u64());
    assert_eq!((&told["client"], &told["level"]), (&json!("timed"), &json!("WARN")));
    assert_eq!(server.metric("grantd_revocation_cut_offs_total"), 1);
    let until = told["until"].as_u64().unwrap();
    let check = |server: &Program| {
        for token in tokens.iter().chain([&vision]) {
            let expires_at = claims_of(token)["exp"].as_u64().unwrap();
            let revoked = tokens[..3].contains(token);
            assert_eq!(is_active(server.address, "timed", token), !revoked && expires_at > until);
            let status = validate(server.address, token).status;
            assert_eq!(status == 204, !revoked && expires_at > until);
        }
        assert!(is_active(server.address, "one-audience", &other));
    };
    check(&server);
    // A new token that would be revoked is not issued. One of the next second is, and is valid.
    let secret = secret_of("timed");
    let request =
        Request::token(Encoding::Urlencoded, &crate::support::request_of("timed", &secret, &[]));
    let mut answer = server.ask(&request);
    while answer.status == 503 {
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(Clock::system().unix_seconds() <= until - 3600 + 1);
        answer = server.ask(&request);
    }
    let fresh = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert!(is_active(server.address, "timed", &fresh));
    server.terminate();
    assert!(server.wait().success());
    let audit = fs::read_to_string(server.home.path("audit.jsonl")).unwrap();
    let line = audit.lines().find(|line| line.contains("\"cut_off\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["client"], &line["until"]), (&json!("timed"), &json!(until)));
    assert_eq!(fs::read_to_string(server.home.clients()).unwrap(), registry);
    let server = Program::start(server.into_home(), &arguments);
    check(&server);
    assert!(is_active(server.address, "timed", &fresh));
    // With a shorter lifetime, a new token would end before the cut-off for a long time.
    let mut registry: Value = serde_json::from_str(&registry).unwrap();
    let mut clients = registry["clients"].as_array_mut().unwrap().iter_mut();
    clients.find(|client| client["client_id"] == "timed").unwrap()["token_lifetime"] = json!(600);
    server.home.write("clients.json", &registry.to_string());
    server.hang_up();
    wait_until(|| server.ask(&request).status == 503);
    let before = Clock::system().unix_seconds();
    let answer = server.ask(&request.header("X-Request-Id", "short"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    let now = until + 1 - 600 - wait;
    assert!((before..=Clock::system().unix_seconds()).contains(&now), "{wait}");
    assert_eq!(server.log.of_request("short")["cause"], "cut_off");
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
