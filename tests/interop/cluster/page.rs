//! `README.md`: its commands, and what it names.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::deploy::{shipped, text_of};
use crate::support::command::succeed;
use crate::support::nginx::without_upstream;

pub(super) const PAGE: &str = include_str!("../../../deploy/cluster/README.md");

/// Returns the commands marked as `sh` below a heading, with the first text of each pair replaced by
/// the second.
pub(super) fn commands(heading: &str, edits: &[(&str, &str)]) -> Vec<String> {
    let section = PAGE.split(&format!("\n## {heading}\n")).nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap();
    for (from, _) in edits {
        assert!(section.contains(from), "{from} is not below {heading}");
    }
    let edited = |text: &str| {
        let edited = edits.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        edited.split("\n```").next().unwrap().to_owned()
    };
    section.split("\n```sh\n").skip(1).map(edited).collect()
}

/// Returns a shell that runs `script`, and ends at the first command that fails.
pub(super) fn shell(script: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]);
    bash
}

/// The number of commands that tests run; each of them names its heading.
#[test]
fn every_command_of_the_page_is_run_by_a_test() {
    let run = [
        ("Databases", 1),
        ("Schema and master key", 1),
        ("Standby", 2),
        ("PgBouncer", 1),
        ("nginx", 1),
        ("Backup", 2),
        ("Restore", 4),
        ("Failover", 1),
        ("Master key lost", 1),
    ];
    for (heading, count) in run {
        assert_eq!(commands(heading, &[]).len(), count, "{heading}");
    }
    let all: usize = run.iter().map(|(_, count)| count).sum();
    assert_eq!(PAGE.matches("\n```sh\n").count(), all);
    // The others are marked as what they are.
    let marks = PAGE.split("\n```").skip(1).step_by(2).map(|block| block.lines().next().unwrap());
    let marks: BTreeSet<_> = marks.collect();
    assert_eq!(marks, BTreeSet::from(["console", "ini", "sh"]));
}

#[test]
fn the_page_names_every_file() {
    let files = fs::read_dir(shipped("cluster")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: BTreeSet<_> = files.collect();
    assert!(files.remove("README.md"));
    let named = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let named = named.filter(|(_, rest)| rest.matches('|').count() == 2);
    let named: BTreeSet<_> = named.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named, files);
}

#[test]
fn nginx_gets_the_nodes_in_place_of_the_one_server() {
    let etc = TempDir::new().unwrap();
    fs::create_dir(etc.path().join("conf.d")).unwrap();
    let site = etc.path().join("conf.d/grantd.conf");
    fs::copy(shipped("nginx/grantd.conf"), &site).unwrap();
    let here = format!("{}/", etc.path().display());
    // The harness of the tests starts nginx with the two files.
    let edits = [("/etc/nginx/", &*here), ("nginx -t", "true"), ("systemctl reload nginx", "true")];
    let [script] = commands("nginx", &edits).try_into().unwrap();
    succeed(shell(&script).current_dir(shipped("cluster")));
    assert_eq!(fs::read_to_string(site).unwrap(), without_upstream(&text_of("nginx/grantd.conf")));
    let nodes = fs::read_to_string(etc.path().join("conf.d/grantd-nodes.conf")).unwrap();
    assert_eq!(nodes, text_of("cluster/nginx.conf"));
}

/// systemd accepts the two additions to the units.
#[test]
fn the_units_of_a_node_are_valid() {
    let additions: Vec<_> = PAGE
        .split("\n```ini\n")
        .skip(1)
        .map(|block| block.split("\n```").next().unwrap())
        .collect();
    let [socket, service] = additions.try_into().unwrap();
    let verify = |socket: &str, service: &str| {
        let directory = TempDir::new().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let unit = text_of("systemd/grantd.service");
        write(
            "grantd.service",
            &unit.replace("/usr/local/bin/grantd", env!("CARGO_BIN_EXE_grantd")),
        );
        write("grantd.socket", &text_of("systemd/grantd.socket"));
        write("grantd.service.d/cluster.conf", service);
        write("grantd.socket.d/cluster.conf", socket);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "./grantd.service", "./grantd.socket"]);
        let ended = verify.current_dir(directory.path()).output().expect("tests/run installs it");
        String::from_utf8(ended.stderr).unwrap()
    };
    let said = verify(socket, service);
    assert!(!said.contains("grantd."), "{said}");
    let said = verify(&socket.replace("10.0.0.11:8080", "10.0.0.11:port"), service);
    assert!(said.contains("grantd.socket.d/cluster.conf"), "{said}");
}

/// Each file of a node and of a database names the addresses of the page.
#[test]
fn the_files_agree_on_addresses() {
    let configuration = text_of("cluster/grantd.toml");
    for says in [
        "listen = [\"10.0.0.11:8080\"]",
        "trusted_proxies = [\"10.0.0.5\"]",
        "issuer = \"https://auth.example.com\"",
        "passfile=/etc/grantd/pgpass\"",
        "ca_file = \"/etc/grantd/database-ca.pem\"",
        "master_key_file = \"/etc/grantd/master.key\"",
        "admin_token_file = \"/etc/grantd/admin-token\"",
        "@db1.example:5432,db2.example:5432/grantd?",
    ] {
        assert!(configuration.contains(says), "{says}");
    }
    let nginx = text_of("cluster/nginx.conf");
    for node in crate::support::nginx::NODES {
        let (address, _) = node.split_once(':').unwrap();
        assert!(PAGE.contains(&format!("`{address}`")), "{address}");
        assert!(nginx.contains(&format!("server {node} ")), "{node}");
    }
    assert!(PAGE.contains("install -m 0640 -g grantd master.key pgpass admin-token /etc/grantd/"));
    assert!(text_of("cluster/pg_hba.conf").contains("10.0.0.0/24"));
}
