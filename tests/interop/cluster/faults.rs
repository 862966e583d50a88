//! The table of faults on the page: what it quotes is what a node says.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;

use super::Node;
use super::page::PAGE;
use crate::deploy::text_of;
use crate::postgres::nodes::{cluster_with, put, put_text, readiness, wait_until_ready};
use crate::postgres::store::MASTER_KEY;
use crate::support::command::{run, succeed};
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{Postgres, Role, Stop};
use crate::support::registry::client_json;
use crate::support::{Home, Program, wait_until};

/// A row of the table. Each text may have `…` in it.
struct Fault {
    name: &'static str,
    readiness: Vec<&'static str>,
    metrics: Vec<&'static str>,
    alerts: Vec<&'static str>,
    log: Vec<&'static str>,
}

fn faults() -> Vec<Fault> {
    let section = PAGE.split("\n## What you see at each fault\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let [name, rest @ ..] = &cells[..] else { panic!("{line}") };
        let quoted = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
        let [readiness, metrics, alerts, log] = rest else { panic!("{line}") };
        let [readiness, metrics, alerts, log] =
            [readiness, metrics, alerts, log].map(|it| quoted(it));
        Fault { name: name.trim(), readiness, metrics, alerts, log }
    };
    rows.map(row).collect()
}

fn fault(name: &str) -> Fault {
    faults().into_iter().find(|fault| fault.name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Says whether `text` has the parts of `quoted` in their order.
fn says(text: &str, quoted: &str) -> bool {
    let mut rest = text;
    quoted.split('…').all(|part| {
        let found = rest.find(part);
        rest = found.map_or("", |at| &rest[at + part.len()..]);
        found.is_some()
    })
}

impl Fault {
    fn is_ready_as_quoted(&self, node: &Program) -> bool {
        let (status, text) = readiness(node);
        let [quoted] = self.readiness[..] else { panic!("{}", self.name) };
        let is_refused = quoted.starts_with("not ready");
        (status == 503) == is_refused && says(&text, quoted)
    }

    /// Waits until the node says what is quoted, but for the last `later` lines of its log.
    #[track_caller]
    fn wait_but_for(&self, node: &Program, later: usize) {
        wait_until(|| self.is_ready_as_quoted(node));
        for quoted in &self.log[..self.log.len() - later] {
            self.wait_for_line(node, quoted);
        }
    }

    fn wait_for_line(&self, node: &Program, quoted: &str) {
        node.log.wait_for(|line| line["message"].as_str().is_some_and(|it| says(it, quoted)));
    }

    #[track_caller]
    fn wait(&self, node: &Program) {
        self.wait_but_for(node, 0);
    }
}

#[test]
fn every_alert_and_metric_of_the_table_exists() {
    let (alerts, text) = (text_of("prometheus/alerts.yml"), faults());
    assert!(text.len() > 8);
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let node = Node::start(&cluster.url(Role::Node), None);
    let metrics = node.program.metrics();
    // There is nothing to warn of, once the first key is in the snapshot.
    wait_until(|| {
        let mut check = node.program.home.command(&["check", "--config", "grantd.toml"]);
        check.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        !run(check).assert_fine().contains("warning")
    });
    let mut named = BTreeSet::new();
    for fault in &text {
        for alert in &fault.alerts {
            assert!(alerts.contains(&format!("- alert: {alert}\n")), "{alert}");
            named.insert(*alert);
        }
        for metric in fault.metrics.iter().filter(|name| **name != "up") {
            assert!(metrics.contains(&format!("\n# TYPE {metric} ")), "{metric}");
        }
    }
    // Each alert about the store is in a row, but for the one about a row that comes and goes.
    let of_store = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let of_store = of_store.filter(|name| name.contains("Store") || name.contains("Node"));
    let other: BTreeSet<_> = of_store.filter(|name| !named.contains(name)).collect();
    assert_eq!(other, BTreeSet::from(["GrantdStoreUnsteady"]));
}

/// Returns the source of the program, each literal on one line.
fn source() -> String {
    let mut cat = Command::new("find");
    cat.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let text = succeed(cat.args(["-name", "*.rs", "-exec", "cat", "{}", "+"]));
    let mut joined = String::new();
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(begin) => joined.push_str(begin.trim_start()),
            None => joined.extend([line.trim_start(), "\n"]),
        }
    }
    joined
}

/// The texts are those of the program, also of the faults that other tests provoke.
#[test]
fn every_text_of_the_table_is_in_the_source() {
    let source = source();
    let of_other_programs = ["connect() failed", "grantd: postgres://…: …"];
    for fault in faults() {
        for line in fault.log.iter().filter(|line| !of_other_programs.contains(line)) {
            let is_whole = !line.contains('…') && source.contains(&format!("\"{line}\""));
            let is_in_parts = line.contains('…') && line.split('…').all(|it| source.contains(it));
            assert!(is_whole || is_in_parts, "{line}");
        }
        for text in &fault.readiness {
            let text = text.replace("degraded: ", "").replace("postgres://", "");
            assert!(
                text.split('…').all(|it| source.contains(it.trim_matches([' ', ';']))),
                "{text}"
            );
        }
    }
}

#[test]
fn a_node_says_at_each_fault_what_the_page_quotes() {
    let mut cluster = cluster_with(&[client_json("c", &json!({}))]);
    let mut bouncer = PgBouncer::before(&cluster);
    let nodes =
        [cluster.url(Role::Node), bouncer.url(Role::Node)].map(|url| Node::start(&url, None));
    let [node, cut_off] = nodes.each_ref().map(|node| &node.program);
    [node, cut_off].into_iter().for_each(wait_until_ready);
    let epoch = node.metric("grantd_store_epoch ");

    bouncer.kill();
    fault("the database does not answer one node").wait(cut_off);
    assert_eq!(readiness(node), (200, "ok\n".to_owned()));
    wait_until(|| cut_off.metric("grantd_store_age_seconds ") > 0);
    assert_eq!(node.metric("grantd_store_up "), 1);
    bouncer.start_again();
    wait_until_ready(cut_off);

    put_text(&cluster, "c", "{");
    fault("a client in the database cannot be used").wait(node);
    put(&cluster, &client_json("c", &json!({})));
    wait_until_ready(node);

    cluster.stop(Stop::Fast);
    let away = fault("the database does not answer");
    away.wait_but_for(node, 1);
    cluster.start_again();
    wait_until_ready(node);
    away.wait_for_line(node, away.log.last().unwrap());
    fault("it was restarted, has crashed, was promoted or restored, or `grantd.guard` was emptied")
        .wait(node);
    assert!(node.metric("grantd_store_epoch ") > epoch);

    start_without(&mut cluster, nodes);
}

/// Starts nodes while the database is away.
fn start_without(cluster: &mut Postgres, nodes: [Node; 2]) {
    let [mut ended, other] = nodes;
    drop(other);
    ended.program.terminate();
    assert!(ended.program.wait().success());
    cluster.stop(Stop::Fast);
    let address = ended.program.address;
    let home = ended.program.into_home();
    let text = fs::read_to_string(home.path("grantd.toml")).unwrap();
    let text = text.replace("max_staleness = 86400", "max_staleness = 3");
    home.write("grantd.toml", &text);
    let started = Node::run(home, address);
    let line = fault("a node starts while the database does not answer").log[0];
    started.program.log.wait_for(|it| it["message"].as_str().is_some_and(|it| says(it, line)));
    fault("it has not answered for longer than `max_staleness`").wait(&started.program);
    cluster.start_again();
    wait_until_ready(&started.program);

    // A node whose drain is longer than this test.
    let mut stopping = started.program;
    let home = {
        stopping.kill();
        let _ = stopping.wait();
        stopping.into_home()
    };
    let text = text.replace("max_staleness = 3", "max_staleness = 0");
    home.write("grantd.toml", &format!("shutdown_delay_seconds = 3000\n{text}"));
    fs::remove_file(home.path("state/snapshot")).unwrap();
    fs::create_dir(home.path("state/snapshot")).unwrap();
    let mut stopping = Node::run(home, address).program;
    fault("the disk of a node takes no snapshot").wait(&stopping);
    let stop = fault("a node is stopping");
    stopping.terminate();
    stop.wait_but_for(&stopping, 1);
    stopping.terminate();
    assert!(stopping.wait().success());
    assert!(stopping.log.to_the_end().contains(&format!("\"message\":\"{}\"", stop.log[1])));

    cluster.stop(Stop::Fast);
    let home = Home::without_key();
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--admin-listen", "127.0.0.1:0"]).env("GRANTD_MASTER_KEY", MASTER_KEY);
    let ended = run(serve.env("GRANTD_STORE_URL", cluster.url(Role::Node)));
    let without = fault("the same without a usable snapshot, or without the master key");
    assert!(ended.code == Some(1) && says(&ended.stderr, without.log[0]), "{ended:?}");
}
