//! The installation documents, followed step by step in a Debian 12 chroot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::deploy::text_of;
use crate::support::command::succeed;

pub(super) const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/deploy/debian");

/// Returns the shell commands of a document in order, including those in indented blocks. They are the
/// blocks of this language.
pub(super) fn steps_in(document: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}");
    let mut steps = Vec::new();
    let mut step: Option<(usize, String)> = None;
    for line in document.lines() {
        let text = line.trim_start();
        step = match step {
            None if text == begin => Some((line.len() - text.len(), String::new())),
            None => None,
            Some((_, script)) if text == "```" => {
                steps.push(script);
                None
            }
            Some((indent, script)) => {
                let line = line.get(indent..).unwrap_or_default();
                Some((indent, format!("{script}{line}\n")))
            }
        };
    }
    steps
}

/// Returns a command that runs the program as root, with `sudo` if this process is not root.
pub(super) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let is_root = succeed(Command::new("id").arg("-u")).trim() == "0";
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Returns the root directory of a Debian 12 with these packages, installed from the mirror that
/// this machine's apt uses. The directory is kept below `target` for the next run.
pub(super) fn debian(packages: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let (root, made_of) = (target.join("root"), target.join("made-of"));
    if fs::read_to_string(&made_of).is_ok_and(|known| known == packages) && root.is_dir() {
        return root;
    }
    let format = "$(REPO_URI) $(CODENAME) $(ORIGIN)";
    let mut targets = Command::new("apt-get");
    let sources =
        succeed(targets.args(["indextargets", "--format", format, "Created-By: Packages"]));
    let mirror = sources.lines().find_map(|line| line.strip_suffix(" bookworm Debian"));
    let mirror = mirror.expect("apt has a mirror of Debian 12 in its sources");
    let acquire = succeed(Command::new("apt-config").arg("dump"));
    let acquire: Vec<_> =
        acquire.lines().filter(|line| line.starts_with("Acquire::http")).collect();
    fs::create_dir_all(&target).unwrap();
    let options = target.join("apt.conf");
    fs::write(&options, acquire.join("\n") + "\n").unwrap();
    let being_made = target.join("root.new");
    for old in [&root, &being_made] {
        succeed(as_root("rm").args(["-rf", "--one-file-system"]).arg(old));
    }
    let mut bootstrap = as_root("mmdebstrap");
    bootstrap.args(["--variant=minbase", "--quiet", "--dpkgopt=force-unsafe-io"]);
    bootstrap.args([
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
    ]);
    bootstrap.arg(format!("--aptopt={}", options.display()));
    bootstrap.arg(format!("--include={packages}")).arg("bookworm").arg(&being_made).arg(mirror);
    succeed(&mut bootstrap);
    succeed(as_root("mv").arg(&being_made).arg(&root));
    fs::write(&made_of, packages).unwrap();
    root
}

/// Returns the packages that the installation guide needs, for [`debian`].
pub(super) fn needed() -> String {
    let steps = steps_in(&text_of("README.md"), "sh");
    let install = "apt-get install --no-install-recommends ";
    let wanted = steps[0].strip_prefix(install).expect("the first step says what is needed").trim();
    // Every Debian that boots has the package systemd, so no document names it. A new chroot does
    // not have this package, so the test adds it.
    format!("{},systemd", wanted.replace(' ', ","))
}

/// The script that runs after the documents' steps. It prints the results, among them a token that
/// a client gets through nginx.
const LAST: &str = r#"
secret=$(sed -n 's/.*"client_secret":"\([^"]*\)".*/\1/p' /root/client.json)
curl --silent --fail-with-body --cacert /etc/nginx/grantd/certificate.pem \
    --resolve auth.example.com:443:127.0.0.1 -d grant_type=client_credentials \
    -d client_id=reporting --data-urlencode "client_secret=$secret" \
    https://auth.example.com/connect/token
echo
ls /etc/systemd/system/*.wants
stat -c '%U:%G %a %n' /etc/grantd/clients.json /var/lib/grantd/keys /run/grantd/grantd.sock
"#;

#[test]
fn the_documents_can_be_followed_to_the_letter() {
    let mut all = steps_in(&text_of("README.md"), "sh");
    let root = debian(&needed());
    // The document asks the reader to keep the printed secret. The test changes this step so that
    // it also writes the secret to a file.
    for step in &mut all {
        *step = step
            .replace("--scope reports.read\n", "--scope reports.read | tee /root/client.json\n");
    }
    let operations = include_str!("../../../docs/operations.md");
    all.extend(steps_in(operations, "sh"));
    assert!(all.len() > 12, "{all:#?}");
    all.push(LAST.to_owned());

    let work = TempDir::new().unwrap();
    let source = work.path().join("source");
    fs::create_dir_all(source.join("steps")).unwrap();
    fs::create_dir_all(source.join("target/release")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_grantd"), source.join("target/release/grantd")).unwrap();
    fs::copy(Path::new(HERE).join("systemctl"), source.join("systemctl")).unwrap();
    let shipped = crate::deploy::shipped("");
    succeed(Command::new("cp").arg("-r").arg(shipped).arg(source.join("deploy")));
    for (number, step) in all.iter().enumerate() {
        fs::write(source.join(format!("steps/{number:02}")), step).unwrap();
    }
    let mut follow = as_root(Path::new(HERE).join("follow"));
    let printed = succeed(follow.arg(&root).arg(work.path()));

    for says in [
        "up{instance=\"127.0.0.1:8081\", job=\"grantd\"} => 1",
        "SUCCESS: 1 rule files found",
        "configuration file /etc/nginx/nginx.conf test is successful",
        "{\"access_token\":\"ey",
        "multi-user.target.wants",
        "sockets.target.wants",
        "root:grantd 640 /etc/grantd/clients.json",
        "grantd:grantd 700 /var/lib/grantd/keys",
        "root:www-data 660 /run/grantd/grantd.sock",
        &format!("grantd_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(printed.contains(says), "{says} is not in\n{printed}");
    }
    assert!(!printed.contains("alertname="), "{printed}");
    // The stand-in for systemctl has recorded each call of the documents' steps.
    let calls = printed.split("== systemctl\n").nth(1).unwrap();
    assert_eq!(
        calls.lines().collect::<Vec<_>>(),
        [
            "daemon-reload",
            "enable --now grantd.socket grantd.service",
            "reload nginx",
            "reload prometheus",
            "stop grantd.service",
            "start grantd.service",
            "restart grantd.service",
            "restart grantd.service",
        ]
    );
}
