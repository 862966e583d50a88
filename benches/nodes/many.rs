//! A server over a database with many clients.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use serde_json::json;

use crate::Plan;
use crate::grants::{self, Waits};
use crate::nodes::{ask_for_token, at, cluster, processor_time, put, start, time_until};
use crate::support::home::{hash_of, secret_of};
use crate::support::postgres::Role;
use crate::support::postgres::session::Session;
use crate::support::registry::client_json;
use crate::support::{Connection, Program};

/// Grants in a second.
const RATE: f64 = 400.0;

/// The number of single changes.
const SINGLE: usize = 20;

/// The client whose grants go on.
const STEADY: &str = "steady";

pub(crate) fn measure(plan: &Plan) {
    let cluster = cluster();
    let url = cluster.url(Role::Node);
    // Makes the signing key, which is not measured.
    drop(start(&url));
    let mut session = Session::open(&cluster);
    put(&mut session, &client_json(STEADY, &json!({})));
    let begin = Clock::system().instant();
    session.run(&import(plan.clients, 1, ""));
    let written = begin.elapsed().as_secs_f64();
    session.run("vacuum analyze grantd.client, grantd.changes");

    let begin = Clock::system().instant();
    let node = start(&url);
    let started = begin.elapsed().as_secs_f64();
    println!("\na server over {} clients, which were written in {written:.1} s", plan.clients);
    println!("start: {started:.2} s");
    print_memory("after its start", &node);
    single_changes(&node, &mut session, plan.clients);
    print_memory("later", &node);

    let ((), without) = grants::beside(&[node.address], STEADY, RATE, || {
        sleep(Duration::from_secs_f64(plan.beside_seconds));
    });
    let ((committed, in_force), with) = grants::beside(&[node.address], STEADY, RATE, || {
        let begin = Clock::system().instant();
        let times = import_and_wait(&node, &mut session, plan);
        let at_least = Duration::from_secs_f64(plan.beside_seconds);
        sleep(at_least.saturating_sub(begin.elapsed()));
        times
    });
    println!(
        "import of {} changes in one transaction of {committed:.1} s: in force {in_force:.2} s after its \
         commit",
        plan.imported
    );
    print_memory("after the import", &node);
    println!("{RATE} grants a second, and a loop that sleeps for 1 ms at a time; waits in ms");
    println!("{:<24} {:>7} {:>7} {:>7} {:>7} {:>7}", "", "count", "p50", "p99", "p99.9", "max");
    for (name, Waits { grants, stalls }) in [("without", &without), ("beside", &with)] {
        row(&format!("grants {name} import"), grants);
        row(&format!("stalls {name} import"), stalls);
    }
    let more = at(&with.grants, 0.999) - at(&without.grants, 0.999);
    println!("p99.9 of grants beside the import: {more:.1} ms more");
}

fn row(name: &str, waits: &[f64]) {
    let mut line = format!("{name:<24} {:>7}", waits.len());
    for share in [0.5, 0.99, 0.999, 1.0] {
        write!(line, " {:>7.2}", at(waits, share)).unwrap();
    }
    println!("{line}");
}

fn print_memory(when: &str, node: &Program) {
    let (now, most) = (node.resident_kib() >> 10, node.most_resident_kib() >> 10);
    println!("memory {when}: {now} MB, {most} MB at its peak");
}

fn id(number: usize) -> String {
    format!("client-{number:08}")
}

/// Returns a statement that writes `count` clients, every `step`th, whose secrets end with `end`.
fn import(count: usize, step: usize, end: &str) -> String {
    format!(
        r#"insert into grantd.client (client_id, entry)
        select id, format(
          '{{"client_id":"%s","secrets":[{{"label":"first","hash":"%s"}}],
            "scopes":["external-api","orders.read"],"default_scopes":["external-api"],
            "audience":["https://api.example/orders"],"token_lifetime":3600,
            "claims":{{"tenant":"tenant-%s"}}}}',
          id,
          '$sha256$' || rtrim(translate(encode(sha256(convert_to(id || '{}{end}', 'UTF8')), 'base64'),
            '+/', '-_'), '='),
          n % 1000)
        from (select 'client-' || lpad((n * {step})::text, 8, '0') id, n
              from generate_series(1, {count}) n) numbered
        on conflict (client_id) do update set entry = excluded.entry"#,
        secret_of("")
    )
}

/// Rotates secrets one after the other.
fn single_changes(node: &Program, session: &mut Session, clients: usize) {
    let mut connection = Connection::open(node.address);
    let mut times = vec![];
    let client = |number: usize| client_json(&id(1 + number * (clients / SINGLE)), &json!({}));
    for number in 0..SINGLE {
        sleep(Duration::from_millis(number as u64 * 83 % 199));
        let mut client = client(number);
        let name = client["client_id"].as_str().unwrap().to_owned();
        let new = format!("{}.single", secret_of(&name));
        client["secrets"][0]["hash"] = hash_of(&new).into();
        let request = ask_for_token(&name, &new);
        let begin = Clock::system().instant();
        put(session, &client);
        times.push(1e3 * time_until(begin, || connection.ask(&request).status == 200));
    }
    // The server has the time for several polls, once without changes.
    let pause = Duration::from_secs(2);
    let [idle, changing] = [0, SINGLE].map(|changes| {
        let before = processor_time(node.id());
        (0..changes).for_each(|number| put(session, &client(number)));
        sleep(pause);
        processor_time(node.id()) - before
    });
    let cost = (changing - idle) / SINGLE as f64;
    println!(
        "one change: in force in {:.0} ms (p50), {:.0} ms (max of {SINGLE}); {:.2} ms of processor time; \
         {:.1} ms a second without changes",
        at(&times, 0.5),
        at(&times, 1.0),
        cost * 1e3,
        idle * 1e3 / pause.as_secs_f64()
    );
}

/// Changes secrets in one transaction. Returns its duration, and the time from its commit until all
/// new secrets that are tried are in force.
fn import_and_wait(node: &Program, session: &mut Session, plan: &Plan) -> (f64, f64) {
    let step = (plan.clients / plan.imported).max(1);
    let end = ".imported";
    let begin = Clock::system().instant();
    session.run(&import(plan.imported, step, end));
    let committed = Clock::system().instant();
    let mut connection = Connection::open(node.address);
    let tried: Vec<_> = [1, plan.imported / 3, plan.imported / 2, plan.imported]
        .into_iter()
        .map(|number| id(number * step))
        .map(|id| ask_for_token(&id, &format!("{}{end}", secret_of(&id))))
        .collect();
    let in_force =
        time_until(committed, || tried.iter().all(|it| connection.ask(it).status == 200));
    ((committed - begin).as_secs_f64(), in_force)
}
