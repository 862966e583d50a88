//! Keys in the store that rotate by themselves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grantd::clock::Clock;
use serde_json::{Value, json};

use super::nodes::{cluster_with, readiness, start, start_in};
use super::snapshot::end;
use super::store::{MASTER_KEY, OTHER_MASTER_KEY, on, with_store};
use crate::support::command::{Ended, run};
use crate::support::home::{secret_of, set_mode};
use crate::support::nginx::Nginx;
use crate::support::ports::free_port;
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role};
use crate::support::registry::client_json;
use crate::support::{
    Connection, Encoding, Home, Program, Request, Response, StopOnDrop, Token, request_of,
    wait_until,
};

const JWKS: &str = "/.well-known/jwks.json";
const SHORT: (&str, &str) = ("GRANTD_JWKS_MAX_AGE", "1");
const SELDOM: (&str, &str) = ("GRANTD_KEYS__ROTATE_EVERY", "90d");
/// The shortest time with tokens of two seconds: twice the max-age, the lifetime, the longest
/// postponement, and the difference between two clocks.
const OFTEN: (&str, &str) = ("GRANTD_KEYS__ROTATE_EVERY", "36s");

/// Returns a cluster with a client whose tokens live for two seconds.
pub(super) fn cluster() -> Postgres {
    cluster_with(&[client_json("c", &json!({ "token_lifetime": 2 }))])
}

/// Returns the key set of a server; `None` if it does not run, or is killed in the meantime.
fn key_set_of(address: SocketAddr) -> Option<Value> {
    let mut connection = Connection::open_if_listening(address)?;
    connection.send_if_open(&Request::get(JWKS).to_bytes());
    Some(connection.read_if_answered()?.json())
}

/// Returns the ids of the keys that a server publishes.
fn published(node: &Program) -> BTreeSet<String> {
    let key_set = node.ask(&Request::get(JWKS)).json();
    let keys = key_set["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn grant() -> Request {
    Request::token(Encoding::Urlencoded, &request_of("c", &secret_of("c"), &[]))
}

/// Returns the id of a token's key without verifying the token.
fn kid_of(answer: &Response) -> String {
    let body = answer.json();
    let (header, _) = body["access_token"].as_str().unwrap().split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

fn key_of(answer: &Response, key_set: &Value) -> String {
    Token::verified_with(answer, key_set).header["kid"].as_str().unwrap().to_owned()
}

/// Returns the id of the key with which a server signs.
pub(super) fn signs_with(node: &Program) -> String {
    let answer = node.ask(&grant());
    key_of(&answer, &node.ask(&Request::get(JWKS)).json())
}

fn wait_until_it_leads(node: &Program) {
    node.log.wait_for(|line| line["message"] == "this server rotates the keys");
}

/// Returns the holder of the lease and the number of its term.
pub(super) fn lease(cluster: &Postgres) -> (String, u64) {
    let row = cluster.psql("select holder, fence from grantd.lease where ends > clock_timestamp()");
    let (holder, fence) = row.split_once('|').unwrap_or_default();
    (holder.to_owned(), fence.parse().unwrap_or(0))
}

/// Runs `grantd key` as the owner.
pub(super) fn key(cluster: &Postgres, arguments: &[&str]) -> Ended {
    let short = ("GRANTD_JWKS_MAX_AGE", "5");
    let arguments = [&["key"], arguments].concat();
    let home = Home::without_key();
    let mut command = with_store(&home, &cluster.url(Role::Owner), &arguments);
    run(command.envs([short, SELDOM]))
}

fn printed(ended: &Ended) -> Value {
    serde_json::from_str(ended.assert_fine()).unwrap()
}

/// Clients that ask through nginx all the time, and verify each token at once. Each of them caches
/// the key set of a server for its max-age, and then takes that of another one.
struct Load {
    nginx: SocketAddr,
    nodes: [SocketAddr; 3],
    answers: AtomicUsize,
    keys: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl Load {
    fn run(&self, mut number: usize) {
        let _stop = StopOnDrop(&self.is_over);
        let mut cached: Option<(Instant, Value)> = None;
        let mut kept = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let is_fresh = |it: &(Instant, Value)| it.0.elapsed() < Duration::from_secs(1);
            if !cached.as_ref().is_some_and(is_fresh) {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 31);
                let (node, at) = (self.nodes[(number >> 8) % 3], Clock::system().instant());
                // The server that is killed has no key set to give.
                let Some(key_set) = key_set_of(node) else { continue };
                cached = Some((at, key_set));
            }
            let mut connection = kept.take().unwrap_or_else(|| Connection::open(self.nginx));
            let answer = connection.ask(&grant());
            assert_eq!(answer.status, 200, "{answer:?}");
            if let Some((_, key_set)) = &cached {
                let id = kid_of(&answer);
                let has_key =
                    key_set["keys"].as_array().unwrap().iter().any(|key| key["kid"] == *id);
                assert!(has_key, "{id} is not in {key_set}; so far: {:?}", self.keys.lock());
                self.keys.lock().unwrap().insert(key_of(&answer, key_set));
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
            kept = (answer.header("connection") != Some("close")).then_some(connection);
            thread::sleep(Duration::from_millis(4));
        }
    }

    fn wait_until(&self, is_so: impl Fn() -> bool) {
        wait_until(|| {
            assert!(!self.is_over.load(Ordering::Relaxed), "a request has failed");
            is_so()
        });
    }
}

#[test]
fn every_token_verifies_while_keys_rotate_and_servers_are_cut_off_killed_and_started() {
    let cluster = cluster();
    let mut bouncer = PgBouncer::before(&cluster);
    let url = cluster.url(Role::Node);
    let urls = [url.clone(), url.clone(), bouncer.url(Role::Node)];
    let ports = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let start_at = |home: Home, place: usize| {
        let listen = ports[place].to_string();
        start_in(home, &urls[place], &["--listen", &listen], &[SHORT, OFTEN])
    };
    let [one, killed, cut_off] = thread::scope(|scope| {
        let start_at = &start_at;
        let starts =
            [0, 1, 2].map(|place| scope.spawn(move || start_at(Home::without_key(), place)));
        starts.map(|start| start.join().unwrap())
    });
    // All clients of the test have one address.
    let edits = [("rate=50r/s", "rate=100000r/s")];
    let nginx = Nginx::over(ports, &edits);
    let load = Load {
        nginx: nginx.plain,
        nodes: ports,
        answers: AtomicUsize::new(0),
        keys: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    let begin = Clock::system().instant();
    thread::scope(|scope| {
        for number in 0..4 {
            let load = &load;
            scope.spawn(move || load.run(number));
        }
        let stop = StopOnDrop(&load.is_over);
        load.wait_until(|| [&one, &killed, &cut_off].iter().all(|node| published(node).len() == 2));
        let first = signs_with(&one);
        bouncer.kill();
        load.wait_until(|| cut_off.metric("grantd_store_up ") == 0);
        killed.kill();
        let again = start_at(killed.into_home(), 1);
        // The one that reaches no other changes, too. If the others do not know that it publishes the
        // key, they begin later than planned.
        let all = [&one, &again, &cut_off];
        load.wait_until(|| all[..2].iter().all(|node| signs_with(node) != first));
        load.wait_until(|| signs_with(&cut_off) != first);
        assert_eq!(cut_off.metric("grantd_store_up "), 0);
        let second = signs_with(&one);
        bouncer.start_again();
        load.wait_until(|| all.iter().all(|node| published(node).len() == 3));
        load.wait_until(|| all.iter().all(|node| signs_with(node) != second));
        drop(stop);
    });
    let answers = load.answers.load(Ordering::Relaxed);
    let seconds = begin.elapsed().as_secs().max(1);
    println!("{answers} grants in {seconds} s, all of them verified at once");
    assert_eq!(load.keys.lock().unwrap().len(), 3);
    for node in [&one, &cut_off] {
        assert_eq!(node.metric("grantd_key_rotation_held_up "), 0);
    }
}

#[test]
fn a_key_waits_for_a_server_that_has_not_published_it() {
    let cluster = cluster();
    let mut bouncer = PgBouncer::before(&cluster);
    let short = ("GRANTD_JWKS_MAX_AGE", "5");
    let leader = start(&cluster.url(Role::Node), &[], &[short]);
    wait_until_it_leads(&leader);
    let cut_off = start(&bouncer.url(Role::Node), &[], &[short]);
    wait_until(|| cluster.psql("select count(*) from grantd.live_nodes()") == "2");
    let name = cluster
        .psql(&format!("select node from grantd.node where node like '%:{}:%'", cut_off.id()));
    let first = signs_with(&leader);
    bouncer.kill();
    wait_until(|| cut_off.metric("grantd_store_up ") == 0);

    let rotated = printed(&key(&cluster, &["rotate"]));
    let kid = rotated["kid"].as_str().unwrap();
    let row = |columns: &str| {
        cluster.psql(&format!("select {columns} from grantd.signing_key where key_id = '{kid}'"))
    };
    let document = row("encode(document, 'hex')");
    let says = format!(
        "the next signing key {kid} begins to sign later, because these servers have not published \
         it: {name}"
    );
    leader.log.wait_for(|line| line["message"] == *says);
    assert!(row("signs_from").parse::<u64>().unwrap() > rotated["signs_from"].as_u64().unwrap());
    assert_eq!(row("published_at"), rotated["published_at"].to_string());
    assert_eq!(leader.metric("grantd_key_rotation_held_up "), 1);
    assert_eq!(readiness(&leader), (200, format!("degraded: {says}\n")));
    let refused = key(&cluster, &["rotate"]);
    refused.assert_error(1, &["cannot begin earlier, because these servers", &name]);
    assert_eq!(signs_with(&leader), first);

    // An earlier document of the key, which begins earlier, is not used. The leader writes another one
    // when it postpones the key again.
    let put = |hex: &str, before: &str| {
        cluster.psql(&format!(
            "update grantd.signing_key set document = '\\x{hex}'
             where key_id = '{kid}' and document = '\\x{before}'"
        ));
    };
    let mut later = String::new();
    wait_until(|| {
        let present = row("encode(document, 'hex')");
        if present != document {
            put(&document, &present);
            later = present;
        }
        readiness(&leader).1.contains("a document with other times than its row")
    });
    assert_eq!(signs_with(&leader), first);
    put(&later, &document);
    wait_until(|| !readiness(&leader).1.contains("other times"));

    bouncer.start_again();
    wait_until(|| key(&cluster, &["rotate"]).code == Some(0));
    wait_until(|| [&leader, &cut_off].iter().all(|node| signs_with(node) == kid));
    wait_until(|| leader.metric("grantd_key_rotation_held_up ") == 0);
    // A leaked key is replaced without waiting for a server.
    bouncer.kill();
    wait_until(|| cut_off.metric("grantd_store_up ") == 0);
    let replaced = printed(&key(&cluster, &["rotate", "--now"]));
    // A token of the old key may be issued just before that key leaves the key set.
    wait_until(|| {
        published(&leader) == BTreeSet::from([replaced["kid"].as_str().unwrap().to_owned()])
    });
    assert_eq!(signs_with(&leader), replaced["kid"]);
    assert_eq!(signs_with(&cut_off), kid);
}

#[test]
fn only_the_leader_makes_a_key_and_another_one_follows_it() {
    let cluster = cluster();
    let url = cluster.url(Role::Node);
    on(&Home::without_key(), &cluster.url(Role::Owner), &["key", "generate"]).assert_fine();
    // What the leader writes waits for this.
    let mut lock = Session::open(&cluster);
    lock.run("begin; lock table grantd.signing_key in exclusive mode");
    let killed = start(&url, &[], &[SHORT, SELDOM]);
    let writes = "select count(*) from pg_stat_activity
                  where wait_event_type = 'Lock' and query like '%add_next_key%'
                    and pid <> pg_backend_pid()";
    wait_until(|| cluster.psql(writes) != "0");
    killed.kill();
    let [one, other] = [(); 2].map(|()| start(&url, &[], &[SHORT, SELDOM]));
    lock.run("rollback");
    wait_until(|| [&one, &other].iter().all(|node| published(node).len() == 2));
    let count = "select count(*), count(signs_from) from grantd.signing_key";
    assert_eq!(cluster.psql(count), "2|2");

    // The leader is stopped for longer than its term. Another one leads from then on.
    let is_of = |node: &Program| lease(&cluster).0.contains(&format!(":{}:", node.id()));
    wait_until(|| is_of(&one) || is_of(&other));
    let (stopped, next) = if is_of(&one) { (&one, &other) } else { (&other, &one) };
    let (holder, fence) = lease(&cluster);
    stopped.stop();
    wait_until(|| is_of(next));
    let (_, later) = lease(&cluster);
    assert!(later > fence, "{later} {fence}");
    let call = |sql: &str| cluster.psql_as(Role::Node, sql).assert_fine().trim().to_owned();
    let now = "extract(epoch from clock_timestamp())::bigint";
    let known = "array(select key_id from grantd.signing_key order by key_id)";
    let add = |who: &str, term: u64| {
        call(&format!(
            "select grantd.add_next_key('k', '', {now}, {now} + 60, {known}, '{who}', {term})"
        ))
    };
    let postpone = |who: &str, term: u64| {
        call(&format!(
            "select bool_or(grantd.postpone_key(key_id, '', published_at, signs_from + 1, '{who}',
               {term})) from grantd.signing_key"
        ))
    };
    for (who, term) in [(&*holder, fence), (&*holder, later), ("me", later), ("", 0)] {
        assert_eq!([add(who, term), postpone(who, term)], ["f", "f"], "{who} {term}");
    }
    let attend = "select coalesce(fence, 0) from grantd.attend('me', '{}', '{}', 0, 30)";
    assert_eq!(call(attend), "0", "another one leads");
    // A malformed report of another server stops nothing.
    cluster.psql("insert into grantd.node values ('bad', clock_timestamp(), '{null}', '{0}', 0)");
    next.log.wait_for(|line| {
        line["message"]
            .as_str()
            .is_some_and(|it| it.starts_with("the report of this server is malformed"))
            && line["node"] == "bad"
    });
    call("select grantd.leave('bad')");
    call("select grantd.leave('me')");
    stopped.go_on();
    let seen = "select count(*) from grantd.node where seen > clock_timestamp() - interval '2 s'";
    wait_until(|| cluster.psql(seen) == "2");
    assert!(is_of(next));
    // Even the leader changes neither the key that signs, nor adds a second next key.
    let (leads, term) = lease(&cluster);
    let signing = format!(
        "select bool_or(grantd.postpone_key(key_id, '', published_at, {now} + 60, '{leads}', {term}))
         from grantd.signing_key where signs_from < {now}"
    );
    assert_eq!([add(&leads, term), call(&signing)], ["f", "f"]);
    assert_eq!(cluster.psql(count), "2|2");
    // With the role of a server, the next key can be spoiled shortly before it signs. The present one
    // signs on.
    let first = signs_with(next);
    let spoil = format!(
        "select bool_or(grantd.postpone_key(key_id, 'x', published_at, signs_from + 1, '{leads}', {term}))
         from grantd.signing_key where signs_from > {now}"
    );
    assert_eq!(call(&spoil), "f", "it signs much later");
    let soon = format!("signs_from = {now} + 60 where signs_from > {now}");
    cluster.psql(&format!("update grantd.signing_key set {soon}"));
    assert_eq!(call(&spoil), "t");
    wait_until(|| readiness(next).1.contains("the previous version of this one, if any"));
    assert_eq!(signs_with(next), first);
    let replaced = printed(&key(&cluster, &["rotate", "--now", "--keep", &first]));
    wait_until(|| signs_with(next) == replaced["kid"] && signs_with(stopped) == replaced["kid"]);
}

#[test]
fn a_server_with_a_master_key_that_the_others_may_lack_makes_no_key() {
    let cluster = cluster();
    let url = cluster.url(Role::Node);
    // What all servers share is sealed with the first line.
    drop(start(&url, &[], &[SHORT]));
    let home = Home::without_key();
    let file = home.write("master.key", &format!("{OTHER_MASTER_KEY}\n{MASTER_KEY}\n"));
    set_mode(&file, 0o600);
    let variables = [
        ("GRANTD_STORE_URL", &*url),
        ("GRANTD_STORE__MASTER_KEY_FILE", "master.key"),
        SHORT,
        SELDOM,
    ];
    let unfit = Program::start_with(home, &[], &variables);
    wait_until(|| readiness(&unfit).1.contains("are sealed with another master key"));
    assert_eq!(unfit.metric("grantd_key_rotation_held_up "), 1);
    assert_eq!(published(&unfit).len(), 1);
    // It lets another one lead.
    let fit = start(&url, &[], &[SHORT, SELDOM]);
    wait_until_it_leads(&fit);
    wait_until(|| published(&fit).len() == 2 && published(&unfit).len() == 2);
}

/// A server without the setting would make no key for as long as it led.
#[test]
fn a_server_without_the_setting_leads_only_while_none_has_it() {
    let cluster = cluster();
    let url = cluster.url(Role::Node);
    let without = start(&url, &[], &[SHORT]);
    wait_until_it_leads(&without);
    let is_of = |node: &Program| lease(&cluster).0.contains(&format!(":{}:", node.id()));
    let with = start(&url, &[], &[SHORT, SELDOM]);
    wait_until(|| is_of(&with));
    wait_until(|| [&with, &without].iter().all(|node| published(node).len() == 2));
    drop(end(with));
    wait_until(|| is_of(&without));
}

/// Each server notices that no server makes the next key.
#[test]
fn a_next_key_that_no_server_makes_is_overdue_after_ten_minutes() {
    let cluster = cluster_with(&[]);
    // A key without times in its file signs since 1970.
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    let import = ["store", "import", "--clients", "clients.json", "--keys", "keys"];
    on(&home, &cluster.url(Role::Owner), &import).assert_fine();
    cluster.psql("update grantd.lease set holder = 'other', ends = 'infinity'");
    let url = cluster.url(Role::Node);
    let node = start(&url, &[], &[SHORT, SELDOM]);
    let overdue = "degraded: the next signing key is overdue, and no server makes it: see the log of \
                   each server with keys.rotate_every\n";
    wait_until(|| readiness(&node) == (200, overdue.to_owned()));
    assert_eq!(node.metric("grantd_key_rotation_held_up "), 1);
    cluster.psql("update grantd.lease set ends = '-infinity'");
    wait_until(|| readiness(&node) == (200, "ok\n".to_owned()));
    assert_eq!(published(&node).len(), 2);
}

#[test]
fn a_server_waits_for_another_one_that_makes_the_first_key() {
    for limit in ["lock_timeout", "statement_timeout"] {
        waits_for("select pg_advisory_xact_lock(7454127460278599682)", limit);
    }
}

#[test]
fn a_server_that_starts_without_a_snapshot_waits_for_a_table() {
    for limit in ["lock_timeout", "statement_timeout"] {
        waits_for("lock table grantd.client", limit);
    }
}

/// Starts a server while another transaction holds a lock for longer than a time limit of the role.
fn waits_for(lock: &str, limit: &str) {
    let cluster = cluster();
    cluster.psql(&format!("alter role {} set {limit} = '500ms'", Role::Node.name()));
    let mut locking = Session::open(&cluster);
    locking.run(&format!("begin; {lock}"));
    thread::scope(|scope| {
        let server = scope.spawn(|| start(&cluster.url(Role::Node), &[], &[SHORT]));
        let waits = format!(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = '{}'",
            Role::Node.name()
        );
        for expected in ["1", "0", "1"] {
            wait_until(|| cluster.psql(&waits) == expected);
        }
        locking.run("rollback");
        assert_eq!(published(&server.join().unwrap()).len(), 1);
    });
}
