//! Runs every command in the README.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{cargo, python, succeed};
use crate::support::{Home, Program, Request};

const README: &str = include_str!("../../README.md");

/// Returns the README's fenced blocks of one language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    blocks_in(README, language)
}

fn blocks_in(text: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    let blocks: Vec<_> =
        text.split(&*fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// Returns a block with the documented addresses replaced by those of `program`.
fn addressed(block: &str, program: &Program) -> String {
    block
        .replace("127.0.0.1:8080", &program.address.to_string())
        .replace("127.0.0.1:8081", &program.admin.to_string())
}

/// Runs the first two commands. The build is a debug one: an optimized one takes minutes. The
/// environment sets the server's addresses, keys and state, so that the server can run beside other
/// servers.
#[test]
fn the_first_commands_install_and_serve() {
    let commands: Vec<_> = blocks("sh")[0].trim().lines().collect();
    assert_eq!(commands, ["cargo install --locked --path .", "grantd serve"]);
    let installed = TempDir::new().unwrap();
    let mut install = cargo();
    install.args(commands[0].split(' ').skip(1)).args(["--debug", "--root"]).arg(installed.path());
    succeed(&mut install);
    let keys = TempDir::new().unwrap();
    let mut child = Command::new(installed.path().join("bin/grantd"))
        .args(commands[1].split(' ').skip(1))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .envs([
            ("GRANTD_LISTEN", "127.0.0.1:0"),
            ("GRANTD_ADMIN_LISTEN", "127.0.0.1:0"),
            ("GRANTD_LOG_FORMAT", "json"),
        ])
        .env("GRANTD_KEYS", keys.path().join("keys"))
        .env("GRANTD_STATE", keys.path().join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let serving = lines
        .by_ref()
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|line| line["message"] == "serving");
    // A thread reads the log to its end, so that the pipe never fills.
    let rest = std::thread::spawn(move || lines.count());

    let answer = serving.map(|line| {
        let address = line["address"].as_str().unwrap().parse().unwrap();
        Request::token(crate::support::Encoding::Multipart, &crate::support::DEMO).send(address)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    rest.join().unwrap();
    assert_eq!(answer.expect("it says where it serves").status, 200);
}

/// All URLs of the quick start have the same host, so that a client that compares issuers, as
/// openid-client does, finds the issuer that it is configured with.
#[test]
fn the_quick_start_uses_one_issuer() {
    let urls = README
        .split("http://")
        .skip(1)
        .filter(|url| url.split('/').next().unwrap().contains(":8080"));
    let hosts: std::collections::BTreeSet<_> =
        urls.map(|url| url.split(':').next().unwrap()).collect();
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["127.0.0.1"]);
    // The issuer in the discovery document has the same host.
    let server = Program::shared();
    let metadata = Request::get("/.well-known/openid-configuration").send(server.address).json();
    assert_eq!(metadata["issuer"], format!("http://{}", server.address));
}

#[test]
fn every_shell_command_succeeds() {
    let program = Program::shared();
    let home = Home::new();
    let binaries = Path::new(env!("CARGO_BIN_EXE_grantd")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut printed = Vec::new();
    let mut served = 0;
    for block in &blocks("sh")[1..] {
        let script = addressed(block, &program);
        if let Some(arguments) = block.trim().strip_prefix("grantd serve ") {
            // This command does not end, and its documented address may be in use, so the test does
            // not run the command unchanged: it starts the server on a free port and stops it.
            let arguments: Vec<_> = arguments.split(' ').collect();
            let apart = Home::new();
            let made = fs::copy(home.path(arguments[1]), apart.path(arguments[1]));
            made.expect("a block before it makes the registry");
            let server = Program::start(apart, &arguments);
            assert_eq!(server.metric("grantd_clients "), 1);
            served += 1;
            continue;
        }
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", &path);
        printed.push(succeed(bash.current_dir(home.clients().parent().unwrap())));
    }
    assert_eq!(served, 1, "it says how to start what it has made");
    // Each kind of token request in the README prints one answer that begins with a token.
    let tokens = printed.iter().filter(|text| text.starts_with("{\"access_token\":\"ey")).count();
    assert_eq!(tokens, 6, "{printed:#?}");
    let documented = blocks("json")[0].trim().split_once('…').unwrap().1;
    assert!(printed[0].ends_with(documented), "{} does not end {documented}", printed[0]);
    assert!(printed.iter().any(|text| text.contains("\"client_secret\":\"")), "{printed:#?}");
    assert!(printed.iter().any(|text| text.contains("grantd_requests_total")), "{printed:#?}");
}

#[test]
fn every_python_program_succeeds() {
    let program = Program::shared();
    let printed: Vec<_> = blocks("python")
        .iter()
        .map(|block| succeed(Command::new(python()).arg("-c").arg(addressed(block, &program))))
        .collect();
    assert!(printed[0].starts_with("eyJ"), "{printed:?}");
    assert_eq!(printed[1].trim(), "demo-client external-api");
}

#[test]
fn every_configuration_is_valid() {
    for block in blocks("toml") {
        let home = Home::new();
        home.write("grantd.toml", block);
        // Some configurations have a public issuer. The server refuses demo clients with such an
        // issuer, so the registry has no clients.
        home.write("clients.json", "{\"clients\": []}");
        let printed = succeed(&mut home.command(&["check", "--config", "grantd.toml"]));
        assert!(printed.contains("ok: clients:"), "{printed}");
    }
}

/// Every link in the README and in the other documents has a target that exists.
#[test]
fn every_link_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> = [
        "README.md",
        "SECURITY.md",
        "docs/architecture.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/settings.md",
        "docs/postgresql.md",
        "deploy/README.md",
        "deploy/cluster/README.md",
        "benches/load/README.md",
    ]
    .map(|document| root.join(document))
    .into();
    let recipes = fs::read_dir(root.join("docs/recipes")).unwrap();
    documents.extend(recipes.map(|recipe| recipe.unwrap().path()));
    for file in documents {
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let target =
                if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", file.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(target).unwrap();
                let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                let mut slugs = headings.map(|line| {
                    line.trim_start_matches('#')
                        .trim()
                        .to_lowercase()
                        .replace(',', "")
                        .replace(' ', "-")
                });
                assert!(slugs.any(|slug| slug == heading), "{}: {link}", file.display());
            }
        }
    }
}

/// Every documented bench and script exists, and commands for the image name that of this version. The
/// benches take long, so this test does not run them.
#[test]
fn every_bench_and_script_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let performance = include_str!("../../docs/performance.md");
    let blocks = [blocks("console"), blocks_in(performance, "console")].concat();
    for command in blocks.iter().flat_map(|block| block.lines()) {
        let (program, _) = command.split_once(' ').unwrap_or((command, ""));
        let there = match (program, command.strip_prefix("cargo bench --bench ")) {
            (_, Some(bench)) => manifest.contains(&format!("[[bench]]\nname = \"{bench}\"\n")),
            // packaging/test-deb runs that document's commands.
            ("apt-get", _) => include_str!("../../docs/operations.md")
                .contains(&command.replace("target/distribution/", "")),
            // packaging/test-image runs the image.
            ("podman", _) => ["grantd:", "grantd-"]
                .iter()
                .any(|name| command.contains(&format!("{name}{}", env!("CARGO_PKG_VERSION")))),
            _ => root.join(command).is_file(),
        };
        assert!(there, "{command}");
    }
}
