//! Two processes with one state directory: an old one that ends and a new one that begins, under
//! load. No assertion or proof is accepted twice, nothing fresh is refused, no acknowledged
//! revocation is lost, and no secret is refused.
//!
//! `GRANTD_TEST_ROUNDS` sets the number of rounds of each test.

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::registry::{changed, client_json};
use crate::support::status::{self, assert_revoked, is_active, revoke, token_of};
use crate::support::{
    Connection, Encoding, Home, Library, Program, Request, Response, Signer, request_of, wait_until,
};

const ISSUER: &str = "https://auth.example";
const URL: &str = "https://auth.example/connect/token";
const ARGUMENTS: [&str; 5] =
    ["--issuer", ISSUER, "--allow-demo-clients", "--config", "grantd.toml"];
/// Clients that authenticate by assertion. Each holds at most half of the record of uses.
const SIGNING: [&str; 3] = ["signs-0", "signs-1", "signs-2"];

fn rounds() -> usize {
    std::env::var("GRANTD_TEST_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"))
}

fn home(signer: &Signer) -> Home {
    let home = Home::new();
    let mut clients: Vec<_> = SIGNING
        .iter()
        .map(|id| {
            let more = json!({ "auth_methods": ["private_key_jwt"], "jwks": signer.jwks() });
            changed(client_json(id, &json!({})), &changed(more, &json!({ "secrets": null })))
        })
        .collect();
    clients.extend(["proves", "revokes", "asks"].map(|id| client_json(id, &json!({}))));
    home.register(&clients);
    home.write("grantd.toml", "[limits]\ndrain_seconds = 3\n");
    home.write_uses();
    home
}

fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn now() -> u64 {
    Clock::system().unix_seconds()
}

/// Returns a request with a fresh assertion or, for every fourth, a fresh proof.
fn single_use(signer: &Signer, number: usize, now: u64) -> Request {
    if number % 4 == 3 {
        let header = json!({ "typ": "dpop+jwt", "alg": signer.algorithm, "jwk": signer.jwk() });
        let claims = json!({ "jti": unique(), "htm": "POST", "htu": URL, "iat": now });
        let secret = secret_of("proves");
        let parameters = request_of("proves", &secret, &[]);
        let request = Request::token(Encoding::Urlencoded, &parameters);
        return request.header("DPoP", signer.sign(&header, &claims));
    }
    let client = SIGNING[number % SIGNING.len()];
    let claims = json!({
        "iss": client, "sub": client, "aud": ISSUER, "jti": unique(), "iat": now, "exp": now + 60,
    });
    let assertion = signer.sign(&json!({ "alg": signer.algorithm }), &claims);
    let parameters = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &*assertion),
    ];
    Request::token(Encoding::Urlencoded, &parameters)
}

fn by_secret() -> Request {
    Request::token(Encoding::Urlencoded, &request_of("asks", &secret_of("asks"), &[]))
}

/// Sends a request on a new connection, again for each 503. `None` if the server ended before it
/// answered.
fn ask(address: SocketAddr, request: &Request) -> Option<(u16, Value)> {
    let mut connection = Connection::open_if_listening(address)?;
    connection.send_if_open(&request.to_bytes());
    let answer = connection.read_if_answered()?;
    if answer.status == 503 {
        return ask(address, request);
    }
    let told = if answer.body.is_empty() { Value::Null } else { answer.json() };
    Some((answer.status, told))
}

/// Sends a request, again for each 503: a machine under load may not write in time.
fn send(address: SocketAddr, request: &Request) -> Response {
    (0..20)
        .map(|_| request.send(address))
        .find(|answer| answer.status != 503)
        .expect("an answer other than 503")
}

/// Load on an old and a new server. Every assertion and proof is sent to both, at the same time or
/// one after the other.
struct Load<'a> {
    signer: &'a Signer,
    /// The old server, which ends at some time, and the new one.
    servers: [SocketAddr; 2],
    /// The number of values that were used.
    used: AtomicUsize,
    ends: AtomicBool,
    accepted: AtomicUsize,
    revoked: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    fn new(signer: &'a Signer, servers: [SocketAddr; 2]) -> Self {
        Self {
            signer,
            servers,
            used: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            revoked: Mutex::default(),
        }
    }

    /// Uses values once at each server, the old one first. Of the answers, exactly one is 200 if
    /// both servers live.
    fn use_values(&self) {
        for number in 0.. {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let request = single_use(self.signer, number, now());
            let [old, new] = if number % 2 == 0 {
                self.servers.map(|server| ask(server, &request))
            } else {
                std::thread::scope(|scope| {
                    let asked = self.servers.map(|server| {
                        let request = &request;
                        scope.spawn(move || ask(server, request))
                    });
                    asked.map(|asked| asked.join().unwrap())
                })
            };
            let new = new.expect("the new server answers");
            let is_old_right = matches!(old, Some((200, _)));
            let wins = usize::from(is_old_right) + usize::from(new.0 == 200);
            // A value that a killed server has used, without an answer, is used.
            assert!(wins == 1 || (wins == 0 && old.is_none()), "{old:?} {new:?}");
            if wins == 0 {
                assert_eq!(new.0, 400, "{new:?}");
                // Was it refused because it was used, or for another reason? A fresh one tells.
                let fresh = single_use(self.signer, number, now());
                assert_eq!(ask(self.servers[1], &fresh).map(|told| told.0), Some(200));
            }
            self.accepted.fetch_add(wins, Ordering::Relaxed);
            self.used.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Revokes tokens of the new server at the old one as long as it answers, then at the new one.
    fn revoke(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            let token = token_of(self.servers[1], "revokes");
            let secret = secret_of("revokes");
            let parameters =
                [("client_id", "revokes"), ("client_secret", &*secret), ("token", &*token)];
            let request =
                Request::new("POST", "/connect/revocation").form(Encoding::Urlencoded, &parameters);
            let status = ask(self.servers[0], &request)
                .or_else(|| ask(self.servers[1], &request))
                .expect("one of them answers")
                .0;
            assert_eq!(status, 200);
            self.revoked.lock().unwrap().push(token);
        }
    }

    fn ask_by_secret(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            let told = self.servers.map(|server| ask(server, &by_secret()));
            assert!(told[0].as_ref().is_none_or(|told| told.0 == 200), "{told:?}");
            assert_eq!(told[1].as_ref().map(|told| told.0), Some(200));
        }
    }

    /// Runs the load while `change` runs.
    fn run(&self, change: impl FnOnce()) {
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(|| self.use_values()),
                scope.spawn(|| self.use_values()),
                scope.spawn(|| self.revoke()),
                scope.spawn(|| self.ask_by_secret()),
            ];
            let until = |count: usize| {
                wait_until(|| {
                    self.used.load(Ordering::Relaxed) >= count
                        || threads.iter().any(std::thread::ScopedJoinHandle::is_finished)
                });
            };
            until(5);
            change();
            until(self.used.load(Ordering::Relaxed) + 10);
            self.ends.store(true, Ordering::Relaxed);
        });
        assert!(self.accepted.load(Ordering::Relaxed) > 0);
    }

    /// Asserts that every acknowledged revocation is in force at the new server.
    fn check_revocations(&self) {
        for token in self.revoked.lock().unwrap().iter() {
            wait_until(|| !is_active(self.servers[1], "revokes", token));
        }
    }
}

/// Starts a server with the files of `old`.
fn start_beside(old: &Program) -> Program {
    let home = Home::new();
    home.write("grantd.toml", "[limits]\ndrain_seconds = 3\n");
    let [state, keys, clients] = ["state", "keys", "clients.json"].map(|name| old.home.path(name));
    let paths = [&state, &keys, &clients].map(|path| path.to_str().unwrap());
    let arguments = ["--state", paths[0], "--keys", paths[1], "--clients", paths[2]];
    Program::start(home, &[&ARGUMENTS[..], &arguments].concat())
}

#[test]
fn a_new_process_takes_over_from_one_that_drains() {
    let signer = Signer::es256();
    let first = Program::start(home(&signer), &ARGUMENTS);
    let mut old: Option<Program> = None;
    for _ in 0..rounds() {
        let new = start_beside(&first);
        let mut ending = old.take().unwrap_or_else(|| start_beside(&first));
        let load = Load::new(&signer, [ending.address, new.address]);
        load.run(|| {
            ending.terminate();
            assert!(ending.wait().success());
        });
        load.check_revocations();
        old = Some(new);
    }
}

#[test]
fn a_new_process_takes_over_from_one_that_is_killed() {
    let signer = Signer::es256();
    let mut first = Program::start(home(&signer), &ARGUMENTS);
    first.terminate();
    assert!(first.wait().success());
    let mut old = start_beside(&first);
    for _ in 0..rounds() {
        let new = start_beside(&first);
        let load = Load::new(&signer, [old.address, new.address]);
        load.run(|| old.kill());
        load.check_revocations();
        old = new;
    }
}

/// The clock of one server is an hour ahead of, or behind, that of the one before.
#[test]
fn the_clock_may_be_stepped_by_an_hour_between_two_processes() {
    const NOW: u64 = 1_790_000_000;
    let signer = Signer::es256();
    for step in [3600_i64, -3600] {
        let mut library = Library::start(home(&signer), ISSUER, NOW);
        let mut used: Vec<Request> = Vec::new();
        let mut tokens: Vec<String> = Vec::new();
        for round in 0..2 * rounds() {
            let at = NOW.saturating_add_signed(step * i64::from(round % 2 == 1)) + round as u64;
            library = library.restart(ISSUER, at);
            for request in &used {
                assert_eq!(send(library.address, request).status, 400);
            }
            for number in 0..8 {
                let request = single_use(&signer, number, at);
                let answer = send(library.address, &request);
                assert_eq!(answer.status, 200, "{}", answer.text());
                used.push(request);
            }
            let token = token_of(library.address, "revokes");
            assert_revoked(&revoke(library.address, "revokes", &token));
            tokens.push(token);
            assert!(tokens.iter().all(|token| !is_active(library.address, "revokes", token)));
        }
    }
}

#[test]
fn after_a_crash_of_the_machine_what_was_signed_before_is_refused() {
    let signer = Signer::es256();
    let server = Program::start(home(&signer), &ARGUMENTS);
    let used = single_use(&signer, 0, now());
    assert_eq!(server.ask(&used).status, 200);
    let home = server.into_home();
    // The record was not closed, and is of another boot.
    let record = fs::read_to_string(home.path("state/uses")).unwrap();
    let boot = record.split(' ').nth(1).unwrap();
    home.write("state/uses", &record.replace(boot, "00000000-0000-0000-0000-000000000000"));
    let server = Program::start(home, &ARGUMENTS);
    let told = server.log.wait_for(|line| line["refused_until"].is_u64());
    assert!(told["message"].as_str().unwrap().contains("begins anew"), "{told}");
    server.ask(&used).assert_refused(400, "invalid_client");
    let before = single_use(&signer, 0, now()).header("X-Request-Id", "before");
    server.ask(&before).assert_refused(400, "invalid_client");
    assert_eq!(server.log.of_request("before")["cause"], "assertion_before_record");
    assert_eq!(server.ask(&by_secret()).status, 200);
}

#[test]
fn without_a_state_directory_that_can_be_written_secrets_get_tokens_and_assertions_503() {
    let signer = Signer::es256();
    let home = home(&signer);
    fs::remove_dir_all(home.path("state")).unwrap();
    let arguments = [&ARGUMENTS[..], &["--state", "/proc/grantd-state"]].concat();
    let server = Program::start(home, &arguments);
    for number in [0, 3] {
        let answer = server.ask(&single_use(&signer, number, now()));
        answer.assert_refused(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(server.ask(&by_secret()).status, 200);
}

/// The lock stands for a disk that hangs.
#[test]
fn while_the_record_is_locked_assertions_get_503_and_the_process_ends_in_time() {
    let signer = Signer::es256();
    let mut server = Program::start(home(&signer), &ARGUMENTS);
    assert_eq!(server.ask(&single_use(&signer, 0, now())).status, 200);
    let lock = fs::File::open(server.home.path("state/uses.lock")).unwrap();
    lock.lock().unwrap();
    let request = single_use(&signer, 0, now());
    let answer = server.ask(&request);
    answer.assert_refused(503, "temporarily_unavailable");
    assert_eq!(server.ask(&by_secret()).status, 200);
    lock.unlock().unwrap();
    // What was refused for want of the lock was not used up.
    assert_eq!(server.ask(&request).status, 200);
    lock.lock().unwrap();
    server.terminate();
    assert!(server.wait().success());
    drop(lock);
    // The record was not closed, but is of this boot.
    let server = Program::start(server.into_home(), &ARGUMENTS);
    server.ask(&request).assert_refused(400, "invalid_client");
    assert_eq!(server.ask(&single_use(&signer, 0, now())).status, 200);
}

#[test]
fn of_two_servers_with_one_state_directory_both_revoke() {
    let first = Program::start(status::home(), &status::SAME_ISSUER);
    let [state, keys] = ["state", "keys"].map(|name| first.home.path(name));
    let directories = ["--state", state.to_str().unwrap(), "--keys", keys.to_str().unwrap()];
    let second = Program::start(status::home(), &[&status::SAME_ISSUER[..], &directories].concat());
    let servers = [first.address, second.address];
    for by in [0, 1, 0, 1] {
        let token = token_of(servers[by], "timed");
        let reused = token_of(servers[1 - by], "reuser");
        assert!(servers.iter().all(|server| is_active(*server, "timed", &token)));
        assert_revoked(&revoke(servers[by], "timed", &token));
        assert!(!is_active(servers[by], "timed", &token));
        let revoked_at = Clock::system().instant();
        wait_until(|| !is_active(servers[1 - by], "timed", &token));
        assert!(
            (Clock::system().instant() - revoked_at).as_secs() < 5,
            "the poll is four times a second"
        );
        assert_revoked(&revoke(servers[by], "reuser", &reused));
        wait_until(|| !is_active(servers[1 - by], "reuser", &reused));
        // A token that another process has revoked is not reused.
        assert_ne!(token_of(servers[1 - by], "reuser"), reused);
    }
    assert_eq!(status::revoked_rows(&first.home).len(), 8);
}

#[test]
fn while_a_process_holds_the_lock_revocations_and_assertions_get_503_and_secrets_tokens() {
    let server = Program::start(status::home(), &status::SAME_ISSUER);
    let token = token_of(server.address, "timed");
    // The last release holds this lock for as long as it runs.
    fs::write(server.home.path("state/revocations.lock"), "").unwrap();
    let lock = fs::File::open(server.home.path("state/revocations.lock")).unwrap();
    lock.lock().unwrap();
    let request =
        status::about(status::REVOKE, Encoding::Urlencoded, "timed", &[("token", &token)]);
    let answer = server.ask(&request);
    answer.assert_refused(503, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(is_active(server.address, "timed", &token));
    token_of(server.address, "timed");
    drop(lock);
    assert_revoked(&server.ask(&request));
}

#[test]
fn what_a_killed_process_has_left_of_a_rewrite_is_removed_by_the_next() {
    let signer = Signer::es256();
    let mut server = Program::start(home(&signer), &ARGUMENTS);
    let state = server.home.path("state");
    let left = [".uses.Ab12Cd.new", ".revocations.Ab12Cd.new"];
    let others = [".uses.new", ".uses.lock.Ab12Cd.new", ".other.Ab12Cd.new"];
    for name in left.iter().chain(&others) {
        fs::write(state.join(name), "").unwrap();
    }
    // A first revocation, and the first use after an orderly end, write the whole file.
    let token = token_of(server.address, "revokes");
    assert_revoked(&revoke(server.address, "revokes", &token));
    server.terminate();
    assert!(server.wait().success());
    let server = Program::start(server.into_home(), &ARGUMENTS);
    assert_eq!(server.ask(&single_use(&signer, 0, now())).status, 200);
    assert!(left.iter().all(|name| !state.join(name).exists()));
    assert!(others.iter().all(|name| state.join(name).exists()));
}
