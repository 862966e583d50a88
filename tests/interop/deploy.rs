//! The shipped files for operators, tested with the programs that read them.

mod debian;
mod monitoring;
mod nginx;
mod package;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};

use grantd::config::Config;

use crate::support::Home;
use crate::support::command::succeed;
use crate::support::nginx::FILES;

/// Returns the path of a shipped file.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

pub(crate) fn text_of(name: &str) -> String {
    fs::read_to_string(shipped(name)).unwrap()
}

/// Writes the shipped configuration to `home`, with its paths changed to paths in `home`.
fn configure(home: &Home) {
    let text = text_of("grantd.toml")
        .replace("/etc/grantd/clients.json", home.clients().to_str().unwrap())
        .replace("/var/lib/grantd/keys", home.keys().to_str().unwrap())
        .replace("/var/lib/grantd/state", home.path("state").to_str().unwrap());
    assert!(!text.contains("/var/lib/grantd/"), "{text}");
    home.write("grantd.toml", &text);
}

/// Returns the longest time in seconds that a server with this configuration takes to stop.
pub(crate) fn seconds_to_stop(configuration: &str) -> u64 {
    let Config { startup, live, .. } = Config::default();
    let value = |name: &str, default: u64| {
        let line = configuration.lines().map(str::trim).find(|line| line.starts_with(name));
        line.map_or(default, |line| line.split(" = ").nth(1).unwrap().parse().unwrap())
    };
    value("shutdown_delay_seconds", live.shutdown_delay_seconds)
        + value("drain_seconds", startup.limits.drain_seconds)
}

/// Asserts that `check` warns of a server that takes `waits` seconds to stop or longer, because the
/// shipped value of `setting` is `waits`.
#[track_caller]
pub(crate) fn check_warns_of_a_stop_from(waits: u64, variables: &[(&str, &str)], setting: &str) {
    let home = Home::new();
    let check = |stop: u64| {
        let mut check = home.command(&["check"]);
        check.envs(variables.iter().copied()).env("GRANTD_LIMITS__DRAIN_SECONDS", "3");
        succeed(check.env("GRANTD_SHUTDOWN_DELAY_SECONDS", (stop - 3).to_string()))
    };
    let printed = check(waits);
    let warning = format!("warning: shutdown_delay_seconds: a stop takes up to {waits} seconds");
    let line = printed.lines().find(|line| line.starts_with(&warning));
    let line = line.unwrap_or_else(|| panic!("{printed} does not say {warning}"));
    assert!(line.contains(setting) && line.ends_with(&format!(" {waits}")), "{line}");
    assert!(!check(waits - 1).contains("warning: shutdown_delay_seconds"));
}

#[test]
fn the_configuration_is_valid() {
    let home = Home::new();
    configure(&home);
    // The configuration has a public issuer. The server refuses demo clients with such an issuer,
    // so the registry has no clients.
    home.write("clients.json", "{\"clients\": []}");
    let printed = succeed(&mut home.command(&["check", "--config", "grantd.toml"]));
    assert!(printed.contains("ok: clients:"), "{printed}");
    assert!(text_of("grantd.toml").contains("\nassertion_audience = \"issuer\"\n"));
}

/// The shipped files are used together, so all of them have the same socket, addresses and names.
#[test]
fn the_shipped_files_agree_on_names_and_addresses() {
    let socket = "unix:/run/grantd/grantd.sock";
    let user = "/etc/grantd/grantd.toml";
    for (name, says) in [
        ("grantd.toml", format!("listen = [\"{socket}\"]")),
        ("nginx/grantd.conf", format!("server {socket};")),
        ("systemd/grantd.socket", "\nListenStream=/run/grantd/grantd.sock\n".to_owned()),
        ("grantd.toml", "issuer = \"https://auth.example.com\"".to_owned()),
        ("nginx/grantd.conf", "server_name auth.example.com;".to_owned()),
        ("grantd.toml", "admin_listen = \"127.0.0.1:8081\"".to_owned()),
        ("prometheus/prometheus.yml", "targets: [\"127.0.0.1:8081\"]".to_owned()),
        ("systemd/grantd.service", format!("serve --config {user}\n")),
        ("systemd/grantd.service", "\nUser=grantd\n".to_owned()),
        ("systemd/grantd.sysusers", "\nu grantd ".to_owned()),
        ("systemd/grantd.service", "\nStateDirectory=grantd\n".to_owned()),
        ("grantd.toml", "state = \"/var/lib/grantd/state\"".to_owned()),
    ] {
        let text = text_of(name);
        assert!(text.contains(&says), "{name} does not say {says}");
    }
}

/// The README in `deploy` names every shipped file, and every file that it names exists.
#[test]
fn the_readme_names_every_file() {
    // These list the other files beside them.
    let lists = ["cluster/README.md", "kubernetes/cluster/kustomization.yaml"];
    let mut files = lists.map(str::to_owned).to_vec();
    for directory in ["", "nginx", "systemd", "logrotate", "prometheus", "grafana", "kubernetes"] {
        for entry in fs::read_dir(shipped(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(shipped("")).unwrap();
                files.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    let readme = text_of("README.md");
    assert!(files.len() > 10, "these are not all: {files:?}");
    files.retain(|name| name != "README.md");
    for name in &files {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
    let named = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in named {
        assert!(files.iter().any(|file| file == name), "{name}");
    }
}

/// The first comment of every nginx file names the file's destination, and the tests use the same
/// destination.
#[test]
fn the_tests_use_the_nginx_paths_that_the_files_name() {
    for (name, place) in FILES {
        let text = text_of(&format!("nginx/{name}"));
        let comment: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let comment = comment.join(" ").replace("# ", "");
        assert!(comment.contains(&format!("oes to /etc/nginx/{place}/{name}")), "{name}");
    }
}
