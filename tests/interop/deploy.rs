//! The shipped files for operators, tested with the programs that read them.

mod debian;
mod monitoring;
mod nginx;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Home;
use crate::support::command::succeed;
use crate::support::nginx::FILES;

/// Returns the path of a shipped file.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text_of(name: &str) -> String {
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
    let mut files = Vec::new();
    for directory in ["", "nginx", "systemd", "logrotate", "prometheus", "grafana"] {
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
