//! Installs the other servers from npm and PyPI, at the versions pinned in the directories beside
//! this file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::cores;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
const REQUIREMENTS: &str = include_str!("authlib/requirements.txt");

/// Returns the Debian packages of the programs that are missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing = cores::missing(&[
        ("wrk", "wrk"),
        ("taskset", "util-linux"),
        ("openssl", "openssl"),
        ("npm", "npm"),
        ("python3", "python3"),
    ]);
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]).stdin(Stdio::null()).stderr(Stdio::null());
    if !python.status().is_ok_and(|status| status.success()) {
        missing.push("python3-venv");
    }
    missing
}

/// The installed oidc-provider, and a Node.js that the bench installs to run it. Debian's Node.js
/// may be too old to run it.
pub(crate) struct OidcProvider {
    pub(crate) node: PathBuf,
    pub(crate) script: PathBuf,
}

impl OidcProvider {
    pub(crate) fn install() -> Self {
        let to = directory("oidc-provider");
        for file in ["package.json", ".npmrc", "server.mjs"] {
            copy("oidc-provider", file, &to);
        }
        once("oidc-provider", "package-lock.json", &to, || {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
            vec![npm]
        });
        let cpu = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => panic!("package.json names no Node.js for {other}"),
        };
        let node = to.join(format!("node_modules/node-linux-{cpu}/bin/node"));
        Self { node, script: to.join("server.mjs") }
    }

    pub(crate) fn version(&self) -> String {
        let lock: serde_json::Value =
            serde_json::from_str(include_str!("oidc-provider/package-lock.json")).unwrap();
        let version = lock["packages"]["node_modules/oidc-provider"]["version"].as_str().unwrap();
        let node = first_line(Command::new(&self.node).arg("--version"));
        format!("{version}, Node.js {}", node.trim_start_matches('v'))
    }
}

/// Authlib and granian in a virtual environment.
pub(crate) struct Authlib {
    pub(crate) programs: PathBuf,
    pub(crate) application: PathBuf,
}

impl Authlib {
    pub(crate) fn install() -> Self {
        let to = directory("authlib");
        copy("authlib", "app.py", &to);
        once("authlib", "requirements.txt", &to, || {
            let mut create = Command::new("python3");
            create.args(["-m", "venv", "--clear", "environment"]);
            let mut pip = Command::new(to.join("environment/bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
            pip.arg("requirements.txt");
            vec![create, pip]
        });
        Self { programs: to.join("environment/bin"), application: to }
    }

    pub(crate) fn version(&self) -> String {
        let pinned = |package: &str| {
            REQUIREMENTS.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="))
        };
        let (authlib, granian) = (pinned("Authlib").unwrap(), pinned("granian").unwrap());
        let python = first_line(Command::new(self.programs.join("python")).arg("--version"));
        format!("{authlib}, granian {granian}, {python}")
    }
}

/// The first line that a program prints.
pub(crate) fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().next().unwrap().to_owned()
}

/// Returns the version of the crate `name` in `Cargo.lock`.
pub(crate) fn crate_version(name: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let entry = format!("\nname = \"{name}\"\nversion = \"");
    let start = lock.find(&entry).unwrap() + entry.len();
    lock[start..].split('"').next().unwrap()
}

fn directory(peer: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let directory = target.join("peers").join(peer);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn copy(peer: &str, file: &str, to: &Path) {
    fs::copy(Path::new(SOURCES).join(peer).join(file), to.join(file)).unwrap();
}

/// Runs the commands in the directory `to`. Does nothing if they have already run there and the
/// content of the file `pins` has not changed.
fn once(peer: &str, pins: &str, to: &Path, commands: impl FnOnce() -> Vec<Command>) {
    let wanted = fs::read(Path::new(SOURCES).join(peer).join(pins)).unwrap();
    let installed = to.join("installed");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return;
    }
    eprintln!("peers: installing {peer} into {}", to.display());
    copy(peer, pins, to);
    for mut command in commands() {
        command.current_dir(to).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?} failed in {}: see what it says above", to.display());
    }
    fs::write(&installed, wanted).unwrap();
}
