//! The cluster that all tests begin with. It is kept below `target`, because it takes seconds to make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ring::digest::{SHA256, digest};
use rustix::process::geteuid;

use super::{DATABASE, Role, client, give_to_owner, own_directory, program};
use crate::support::command::{run_with_input, succeed};

/// Who may log in: the superuser through the Unix socket alone, whose directory belongs to the user of
/// the clusters; others with a password.
pub(super) const ACCESS: &str = "\
local all postgres trust
local replication postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
";

/// Copies the cluster to `data`.
pub(super) fn copy_to(data: &Path) {
    static KEPT: OnceLock<PathBuf> = OnceLock::new();
    let kept = KEPT.get_or_init(kept);
    succeed(Command::new("cp").args(["-a", "--reflink=auto"]).arg(kept).arg(data));
}

/// Makes the cluster unless an earlier test run has made it, and returns its directory.
fn kept() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres");
    let version = succeed(client("postgres").arg("--version"));
    let made_of = format!("{version}{ACCESS}{}{}", statements(), geteuid().as_raw());
    let hash = digest(&SHA256, made_of.as_bytes());
    let name: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = place.join(name);
    if kept.is_dir() {
        return kept;
    }
    let directory = own_directory();
    let data = directory.path().join("data");
    make(&data);
    fs::create_dir_all(&place).unwrap();
    let new = place.join(format!("new.{}", std::process::id()));
    succeed(Command::new("cp").arg("-a").arg(&data).arg(&new));
    // Another test run may have been faster.
    if fs::rename(&new, &kept).is_err() {
        assert!(kept.is_dir(), "{} cannot be made", kept.display());
        fs::remove_dir_all(new).unwrap();
    }
    kept
}

/// Makes a cluster in `data` with a system identifier of its own.
pub(super) fn make(data: &Path) {
    let directory = data.parent().expect("a directory");
    let mut initdb = program("initdb", directory);
    initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
    succeed(initdb.args(["--no-sync", "--pgdata"]).arg(data));
    let mut single = program("postgres", directory);
    single.args(["--single", "-c", "fsync=off", "-D"]).arg(data).arg("postgres");
    let ended = run_with_input(single, &statements());
    let is_fine = ended.code == Some(0) && !ended.stderr.contains("ERROR");
    assert!(is_fine, "{ended:?}");
    let access = data.join("pg_hba.conf");
    fs::write(&access, ACCESS).unwrap();
    give_to_owner(&access);
}

/// The statements that make the roles and the database, one a line.
fn statements() -> String {
    let roles = Role::ALL
        .map(|role| format!("create role {} login password '{}';\n", role.name(), role.password()));
    let (owner, node) = (Role::Owner.name(), Role::Node.name());
    roles.concat()
        + &format!("create database {DATABASE} owner {owner};\n")
        + &format!("revoke all on database {DATABASE} from public;\n")
        + &format!("grant connect on database {DATABASE} to {node};\n")
}
