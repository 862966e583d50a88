//! The alerts and the dashboard, checked by promtool and against a server's metrics.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deploy::{shipped, text_of};
use crate::support::command::{run_with_input, succeed};
use crate::support::{DEMO, Encoding, Home, Program, Request, demo_without};

fn promtool(arguments: &[&str], file: &std::path::Path) -> String {
    succeed(Command::new("promtool").args(arguments).arg(file))
}

#[test]
fn prometheus_accepts_the_configuration_and_the_alerts() {
    let printed = promtool(&["check", "config"], &shipped("prometheus/prometheus.yml"));
    assert!(printed.contains(&format!("SUCCESS: {} rules found", alerts().len())), "{printed}");
}

#[test]
fn every_alert_fires_and_stays_silent() {
    promtool(&["test", "rules"], &shipped("prometheus/alerts_test.yml"));
    let tests = text_of("prometheus/alerts_test.yml");
    for (name, _) in alerts() {
        for expected in ["", " []"] {
            let begin = format!("alertname: {name}\n        exp_alerts:{expected}\n");
            assert!(tests.contains(&begin), "{name}: no {begin}");
        }
    }
}

/// The causes in alert expressions are compared with the names in the source.
#[test]
fn every_cause_that_an_alert_names_exists() {
    let source = include_str!("../../../src/oauth/error.rs");
    let mut named = BTreeSet::new();
    for text in expressions() {
        for list in text.split("cause=~\"").skip(1).chain(text.split("cause=\"").skip(1)) {
            named.extend(list.split('"').next().unwrap().split('|').map(str::to_owned));
        }
    }
    named.remove("");
    assert!(named.len() > 8, "{named:?}");
    for cause in named {
        assert!(source.contains(&format!("=> row(\"{cause}\",")), "{cause}");
    }
}

/// The alerts and the dashboard's panels use existing metrics only.
#[test]
fn every_metric_in_alerts_and_panels_exists() {
    let metrics = metrics_of_a_busy_server();
    let counted = |name: &str| metrics.contains(&format!("\n# TYPE {name} "));
    let asked: BTreeSet<_> = expressions().iter().flat_map(|text| metrics_in(text)).collect();
    assert!(asked.len() > 15, "{asked:?}");
    for name in asked {
        let family = name.strip_suffix("_bucket").unwrap_or(&name);
        assert!(counted(family), "{name} is not counted");
    }
}

/// Returns the metrics of a server that has issued tokens, refused a request and failed to reload,
/// because some metrics exist only after such an event.
fn metrics_of_a_busy_server() -> String {
    let server = Program::start(Home::new(), &[]);
    let wrong = [demo_without(&["client_secret"]), vec![("client_secret", "wrong")]].concat();
    for form in [&DEMO[..], &DEMO, &wrong] {
        server.ask(&Request::token(Encoding::Urlencoded, form));
    }
    server.home.write("clients.json", "{");
    server.hang_up();
    server.log.wait_for(|line| line["fault"].is_string());
    server.metrics()
}

/// Every metric is on a panel or in an alert.
#[test]
fn every_metric_is_shown_or_alerted_on() {
    let metrics = metrics_of_a_busy_server();
    let shown: String = expressions().concat();
    let families =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let families: Vec<_> = families.collect();
    assert!(families.len() > 8, "{families:?}");
    for family in families {
        assert!(shown.contains(family), "{family} is on no panel");
    }
}

/// Prometheus accepts the expression of every panel.
#[test]
fn every_panel_has_a_valid_expression() {
    let mut rules = Vec::new();
    for (at, text) in dashboard_expressions().into_iter().enumerate() {
        let text = text.replace("$__rate_interval", "5m").replace("$__range", "1h");
        assert!(!text.contains("$__"), "{text}");
        rules.push(json!({ "record": format!("panel:{at}"), "expr": text }));
    }
    assert!(rules.len() > 15, "{rules:?}");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("panels.yml");
    // The format of rule files is YAML, and JSON is valid YAML.
    let document = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    fs::write(&file, document.to_string()).unwrap();
    let printed = promtool(&["check", "rules"], &file);
    assert!(printed.contains(&format!("SUCCESS: {} rules found", rules.len())), "{printed}");
}

/// The dashboard meets Grafana's requirements for an import: unique panel ids, panels that do not
/// overlap, and a data source that is chosen at the import.
#[test]
fn the_dashboard_can_be_imported_into_grafana() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 38));
    assert_eq!(dashboard["id"], Value::Null, "Grafana gives the id at the import");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is wider than the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another");
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(panel["description"].is_string(), "{title} has no description");
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()));
        }
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of("grafana/grantd.json")).unwrap()
}

fn dashboard_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Returns the name and the expression of each alert.
fn alerts() -> Vec<(String, String)> {
    let text = text_of("prometheus/alerts.yml");
    let read = |rule: &str| {
        let (name, rest) = rule.split_once("\n        expr: ").unwrap();
        (name.to_owned(), rest.split("\n        labels:").next().unwrap().to_owned())
    };
    let alerts: Vec<_> = text.split("- alert: ").skip(1).map(read).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

/// Returns the expressions of the dashboard and the alerts.
fn expressions() -> Vec<String> {
    let alerts = alerts().into_iter().map(|(_, expression)| expression);
    dashboard_expressions().into_iter().chain(alerts).collect()
}

fn metrics_in(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("grantd_")).map(str::to_owned).collect()
}

/// promtool accepts all names, types and help texts.
#[test]
fn promtool_accepts_the_metrics() {
    let server = Program::start(Home::new(), &[]);
    for _ in 0..2 {
        assert_eq!(server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
    }
    let metrics = server.metrics();
    let mut promtool = Command::new("promtool");
    let ended = run_with_input(promtool.args(["check", "metrics"]), &metrics);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
    // To show that promtool finds faults, the test plants one: a gauge whose name ends in `_total`.
    let wrong = metrics
        .replace("# TYPE grantd_throttled_total counter", "# TYPE grantd_throttled_total gauge");
    let mut promtool = Command::new("promtool");
    let ended = run_with_input(promtool.args(["check", "metrics"]), &wrong);
    assert!(
        ended.code != Some(0) && ended.stderr.contains("grantd_throttled_total"),
        "{}",
        ended.stderr
    );
}
