//! Dumps and base backups, made and restored by the shipped scripts and the commands of the page.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::Node;
use super::databases::{Databases, REPLICA, binaries};
use super::page::{commands, shell};
use crate::deploy::shipped;
use crate::postgres::nodes::{
    ask, asserting, assertion, present, put, wait_until_accepted, wait_until_ready,
};
use crate::support::command::{Ended, run, succeed};
use crate::support::home::{secret_of, set_mode};
use crate::support::postgres::{
    DATABASE, PROGRAMS, Postgres, Role, Stop, as_owner, give_to_owner, own_directory,
};
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, is_active, revoke, token_of};
use crate::support::{Signer, wait_until};

/// A directory of the user `postgres`: the scripts, what they need, and the backups.
struct Vault {
    directory: TempDir,
}

impl Vault {
    fn of(databases: &Databases) -> Self {
        let vault = Self { directory: own_directory() };
        for script in ["backup", "restore"] {
            let installed = vault.path(&format!("grantd-{script}"));
            fs::copy(shipped("cluster").join(script), installed).unwrap();
        }
        for file in ["database-ca.pem", "master.key"] {
            fs::copy(databases.office.path(file), vault.path(file)).unwrap();
        }
        let owner = (Role::Owner.name(), Role::Owner.password());
        for (file, database, (role, password)) in
            [("owner.pgpass", "grantd", owner), ("replica.pgpass", "replication", REPLICA)]
        {
            fs::write(vault.path(file), format!("*:*:{database}:{role}:{password}\n")).unwrap();
            set_mode(&vault.path(file), 0o600);
        }
        for file in fs::read_dir(vault.directory.path()).unwrap() {
            give_to_owner(&file.unwrap().path());
        }
        vault
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> BTreeSet<OsString> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        files.map(|file| file.unwrap().file_name()).collect()
    }

    /// Returns the commands below a heading, with the backups in this directory.
    fn commands<const N: usize>(&self, heading: &str, data: Option<&str>) -> [String; N] {
        let mut edits = vec![("/var/backups", self.directory.path().to_str().unwrap())];
        edits.extend(data.map(|data| ("/var/lib/postgresql/15/main", data)));
        if heading == "Backup" {
            edits.push(("PGHOST=db1.example", "PGHOST=localhost"));
        }
        commands(heading, &edits).try_into().unwrap()
    }

    /// Returns `commands` after the variables with which a dump is made.
    fn after_variables(&self, commands: &str) -> String {
        let [dump, _] = self.commands("Backup", None);
        let lines = dump.lines().filter(|line| line.starts_with("export "));
        lines.chain([commands]).collect::<Vec<_>>().join("\n")
    }

    /// Returns a shell in which libpq finds the port of `server`.
    fn shell(&self, server: &Postgres, script: &str) -> Command {
        let mut shell = shell(script);
        let here = self.directory.path().display();
        let path = format!("{here}:{}:{PROGRAMS}:/usr/bin:/bin", binaries().display());
        let url = format!(
            "postgres://{}@localhost:{}/{DATABASE}?sslmode=verify-full&passfile={here}/owner.pgpass",
            Role::Owner.name(),
            server.port
        );
        shell.env_clear().env("PATH", path).env("PGPORT", server.port.to_string());
        for (variable, file) in [
            ("GRANTD_STORE__CA_FILE", "database-ca.pem"),
            ("GRANTD_STORE__MASTER_KEY_FILE", "master.key"),
        ] {
            shell.env(variable, self.path(file));
        }
        shell.env("GRANTD_STORE_URL", url);
        as_owner(shell, self.directory.path())
    }

    fn run(&self, server: &Postgres, script: &str) -> Ended {
        run(self.shell(server, script))
    }
}

/// A dump that is made on the standby is restored beside running nodes. They write back what they know
/// of revocations, and accept nothing twice.
#[test]
fn a_restored_dump_brings_back_clients_and_no_revoked_token() {
    let signer = Signer::es256();
    let databases = Databases::start();
    let Databases { primary, standby, office } = &databases;
    let vault = Vault::of(&databases);
    put(primary, &client_json("kept", &json!({})));
    put(primary, &asserting(&signer));
    let url = databases.url(Role::Node, [primary.port, standby.port]);
    let nodes = Node::three(&url, Some(office));
    let at = nodes.each_ref().map(|node| node.program.address);
    wait_until_accepted(&nodes[0].program, &signer);
    let used = assertion(&signer, "used");
    assert_eq!(present(at[0], &used).status, 200);
    standby.catch_up_with(primary);

    let [dump, _] = vault.commands("Backup", None);
    let before = vault.files();
    let cut_off = dump.replace("PGHOST=localhost", "PGHOST=127.0.0.2");
    assert_ne!(vault.run(standby, &cut_off).code, Some(0));
    assert_eq!(vault.files(), before, "a dump that fails leaves nothing");
    vault.run(standby, &dump).assert_fine();
    let file = vault.path("grantd.dump");
    assert_eq!(fs::metadata(&file).unwrap().permissions(), mode_600());
    let again = vault.run(primary, &dump);
    again.assert_error(1, &["backup: ", "exists already"]);
    let later = client_json("later", &json!({}));
    put(primary, &later);
    let token = token_of(at[1], "kept");
    assert_revoked(&revoke(at[2], "kept", &token));
    wait_until(|| at.iter().all(|at| !is_active(*at, "kept", &token)));
    wait_until(|| at.iter().all(|at| ask(*at, "later", &secret_of("later")).status == 200));

    // A schema is never overwritten.
    let restore = vault.after_variables(&format!("grantd-restore {}", file.display()));
    let refused = vault.run(primary, &restore);
    refused.assert_error(1, &["the database has a schema grantd"]);
    let [restore, drop, _, _] = vault.commands("Restore", Some("unused"));
    let [restore, drop] = [restore, drop].map(|script| vault.after_variables(&script));
    assert!(vault.run(primary, &restore).assert_fine().contains("\"clients\":3"));
    for at in &at {
        wait_until(|| ask(*at, "later", &secret_of("later")).status == 400);
        assert_eq!(ask(*at, "kept", &secret_of("kept")).status, 200);
        assert!(!is_active(*at, "kept", &token));
        wait_until(|| {
            let answer = present(*at, &used);
            // The connection that records uses may have ended with the old schema.
            let is_decided = answer.status != 503;
            if is_decided {
                answer.assert_refused(400, "invalid_client");
            }
            is_decided
        });
    }
    nodes.iter().for_each(|node| wait_until_ready(&node.program));
    wait_until(|| primary.psql("select count(*) from grantd.revocation") == "1");
    assert_eq!(primary.psql("select count(*) from grantd_before.client"), "4");
    assert_eq!(vault.run(primary, &drop).code, Some(0));
    assert_eq!(primary.psql("select to_regnamespace('grantd_before') is null"), "t");
    assert_eq!(ask(at[0], "kept", &secret_of("kept")).status, 200);
    assert_revoked(&revoke(at[0], "kept", &token_of(at[0], "kept")));
}

fn mode_600() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o100_600)
}

/// A base backup becomes a primary of a timeline of its own, so the nodes use it and no other.
#[test]
fn a_restored_base_backup_is_a_primary_that_the_nodes_use() {
    let mut databases = Databases::start();
    let vault = Vault::of(&databases);
    put(&databases.primary, &client_json("kept", &json!({})));
    let [_, base] = vault.commands("Backup", None);
    vault.run(&databases.primary, &base).assert_fine();
    let url = databases.url(Role::Node, [databases.primary.port; 2]);
    let node = Node::start(&url, Some(&databases.office));
    let at = node.program.address;
    put(&databases.primary, &client_json("later", &json!({})));
    let token = token_of(at, "kept");
    assert_revoked(&revoke(at, "kept", &token));
    wait_until(|| ask(at, "later", &secret_of("later")).status == 200);

    databases.primary.stop(Stop::Fast);
    let mut restored = databases.primary.copied_by(|data| {
        let [_, _, unpack, _] = vault.commands("Restore", Some(data.to_str().unwrap()));
        let unpack = format!("mkdir -m 0700 {}; {unpack}", data.display());
        vault.shell(&databases.primary, &unpack)
    });
    restored.port = databases.primary.port;
    restored.start_again();
    wait_until(|| ask(at, "later", &secret_of("later")).status == 400);
    wait_until_ready(&node.program);
    assert!(!is_active(at, "kept", &token));
    wait_until(|| restored.psql("select count(*) from grantd.revocation") == "1");
    let [_, _, _, reset] = vault.commands("Restore", Some("unused"));
    succeed(restored.administer(&mut shell(&reset)));
    let set = "select count(*) from pg_file_settings where name = 'restore_command'";
    assert_eq!(restored.psql(set), "0");
    let timeline = "select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
    assert_eq!(restored.psql(timeline), "00000002");
}
