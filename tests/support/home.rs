//! A temporary directory with everything that a server needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::registry::{registry, registry_of};

/// Settings of an own route of each dialect. They end a configuration file, since they are tables.
pub(crate) const OWN_ROUTES: &str = r#"
[[route]]
path = "/o/token/"
dialect = "connect"
[[route]]
path = "/o/vision"
dialect = "vision"
[[route]]
path = "/o/get"
dialect = "firstvision"
"#;

/// The directory of one server, with its client registry, signing key and configuration.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// Makes a home with the clients of [`registry`] and one key that signs.
    pub(crate) fn new() -> Self {
        let home = Self::without_key();
        let (name, pem) = signing_key();
        home.write_key(name, pem);
        home
    }

    pub(crate) fn without_key() -> Self {
        let home = Self { directory: TempDir::new().expect("a temporary directory") };
        home.write("clients.json", &registry());
        fs::create_dir(home.keys()).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn clients(&self) -> PathBuf {
        self.path("clients.json")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes an empty record of used assertions and proofs, as an earlier process would have left
    /// it. Without one, the server refuses what was signed up to 10 s after its start.
    pub(crate) fn write_uses(&self) {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::create_dir_all(self.path("state")).unwrap();
        let first = format!("grantd-uses-1 {} dropped:0 refused:0\n", boot.trim());
        set_mode(&self.write("state/uses", &first), 0o600);
    }

    /// Replaces the registry by one with these clients.
    pub(crate) fn register(&self, clients: &[Value]) {
        self.write("clients.json", &registry_of(clients));
    }

    pub(crate) fn write_key(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.keys().join(name);
        fs::write(&path, pem).unwrap();
        set_mode(&path, 0o600);
        path
    }

    /// Returns a command that runs the program in this home. The command's environment is empty,
    /// except that `GRANTD_SIGNER` has the value of [`SIGNER`] if the test run sets [`SIGNER`].
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = grantd(self.directory.path());
        command.args(arguments);
        command
    }
}

/// Returns a command that runs the program in `directory`. The command's environment is empty,
/// except that `GRANTD_SIGNER` has the value of [`SIGNER`] if the test run sets [`SIGNER`].
pub(crate) fn grantd(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grantd"));
    command.env_clear().current_dir(directory);
    if let Ok(signer) = std::env::var(SIGNER) {
        command.env("GRANTD_SIGNER", signer);
    }
    command
}

/// An environment variable of the test run. It sets the signer of every server in the tests, so
/// that the tests can run without batch signing on a processor that supports it.
pub(crate) const SIGNER: &str = "GRANTD_TEST_SIGNER";

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns the file name and contents of a key that signs. It takes a second to make a key, so all
/// tests in a process share one key.
pub(crate) fn signing_key() -> &'static (String, String) {
    static KEY: OnceLock<(String, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let directory = TempDir::new().expect("a temporary directory");
        let made = grantd(directory.path()).args(["key", "generate"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let line: Value = serde_json::from_slice(&made.stdout).unwrap();
        let name = format!("{}.pem", line["kid"].as_str().unwrap());
        let text = fs::read_to_string(directory.path().join("keys").join(&name)).unwrap();
        // Removes the lines with the times: a key without times signs at every time that a test
        // sets.
        let pem = text[text.find("-----BEGIN").unwrap()..].to_owned();
        (name, pem)
    })
}

/// The secret of a client of [`registry`].
pub(crate) fn secret_of(client: &str) -> String {
    format!("{client}.xV9q2LkT7mRz4wHn8sYd3cPb6fGj1aQe")
}

pub(crate) fn hash_of(secret: &str) -> String {
    let hash = digest(&SHA256, secret.as_bytes());
    format!("$sha256${}", URL_SAFE_NO_PAD.encode(hash))
}
