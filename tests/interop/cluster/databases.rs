//! A primary and a standby, each behind PgBouncer, with the shipped files and the commands of the
//! page.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::nginx::nginx_over;
use super::page::{commands, shell};
use super::{Load, Node};
use crate::deploy::{shipped, text_of};
use crate::postgres::nodes::{
    asserting, assertion, present, put, wait_until_accepted, wait_until_ready,
};
use crate::support::command::{run, succeed};
use crate::support::home::set_mode;
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{
    Postgres, Role, Setup, Stop, as_owner, give_to_owner, own_directory, psql_at,
};
use crate::support::registry::client_json;
use crate::support::status::{assert_revoked, is_active, revoke, token_of};
use crate::support::{Home, Signer, wait_until};

pub(super) const REPLICA: (&str, &str) = ("grantd_replica", "replica-of-the-tests-Vb6nM2cX");

/// The databases, and the machine from which they are administered.
pub(super) struct Databases {
    pub(super) primary: Postgres,
    pub(super) standby: Postgres,
    /// Has the master key, the authority of the databases and the owner's password.
    pub(super) office: Home,
}

impl Databases {
    /// Sets them up as the page says.
    pub(super) fn start() -> Self {
        let primary = start_primary();
        let office = make_schema(&primary);
        let standby = follow(&primary);
        Self { primary, standby, office }
    }
}

/// Returns `text` with the network of the page replaced by this machine.
fn here(text: &str) -> String {
    assert!(text.contains("10.0.0.0/24"), "{text}");
    text.replace("10.0.0.0/24", "127.0.0.1/32")
}

fn start_primary() -> Postgres {
    let mut primary = Postgres::start_with(&Setup { tls: true, ..Setup::default() });
    let settings = text_of("cluster/postgresql.conf")
        .replace("/etc/postgresql/grantd/certificate.pem", "server.crt")
        .replace("/etc/postgresql/grantd/key.pem", "server.key");
    primary.configure(&settings, &here(&text_of("cluster/pg_hba.conf")));
    // It does not start with a setting that it does not know.
    let in_force = "select (select count(*) from pg_hba_file_rules where error is not null),
        current_setting('wal_log_hints'), current_setting('max_slot_wal_keep_size')";
    assert_eq!(primary.psql(in_force), "0|on|4GB");

    // The cluster has the roles and the database of other tests already.
    let begin = "drop database grantd; drop role grantd_owner; drop role grantd_node";
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-d", "postgres"]);
    psql.args(begin.split("; ").flat_map(|statement| ["-c", statement]));
    succeed(primary.administer(&mut psql));
    let [script] = commands("Databases", &[]).try_into().unwrap();
    succeed(primary.administer(&mut shell(&script)).current_dir(shipped("cluster")));
    for (role, password) in
        Role::ALL.map(|role| (role.name(), role.password())).into_iter().chain([REPLICA])
    {
        primary.psql(&format!("alter role {role} password '{password}'"));
    }
    primary
}

/// Makes the schema, the master key, a client and a signing key on another machine.
fn make_schema(primary: &Postgres) -> Home {
    let office = Home::without_key();
    for role in Role::ALL {
        let line = format!("*:*:grantd:{}:{}", role.name(), role.password());
        set_mode(&office.write(&format!("{}.pgpass", short(role)), &line), 0o600);
    }
    fs::copy(primary.authority(), office.path("database-ca.pem")).unwrap();
    let host = format!("@localhost:{}/", primary.port);
    let edits = [
        ("@db1.example:5432,db2.example:5432/", &*host),
        ("passfile=owner.pgpass", "passfile=owner.pgpass&sslmode=verify-full"),
    ];
    let [script] = commands("Schema and master key", &edits).try_into().unwrap();
    let printed = succeed(&mut in_office(&office, &script));
    assert!(printed.contains("\"role\":\"grantd_owner\""), "{printed}");
    office
}

fn short(role: Role) -> &'static str {
    role.name().trim_start_matches("grantd_")
}

/// Returns the directory of the program.
pub(super) fn binaries() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_grantd")).parent().unwrap()
}

/// Returns a shell on the machine from which the databases are administered.
pub(super) fn in_office(office: &Home, script: &str) -> Command {
    let mut shell = shell(script);
    shell.env_clear().env("PATH", format!("{}:/usr/bin:/bin", binaries().display()));
    shell.current_dir(office.path(""));
    shell
}

/// Starts a standby of `primary`.
pub(super) fn follow(primary: &Postgres) -> Postgres {
    let files = own_directory();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        give_to_owner(&path);
        path.display().to_string()
    };
    let (role, password) = REPLICA;
    let authority = fs::read_to_string(primary.authority()).unwrap();
    let authority = file("database-ca.pem", &authority);
    let line = format!("localhost:{}:replication:{role}:{password}", primary.port);
    let password = file("replica.pgpass", &line);
    let host = format!("host=localhost port={}", primary.port);
    let edits = |data: &str| {
        let edits = [
            ("host=db1.example port=5432", &*host),
            ("/etc/postgresql/grantd/replica.pgpass", &password),
            ("/etc/postgresql/grantd/database-ca.pem", &authority),
            ("/var/lib/postgresql/15/main", data),
        ];
        let scripts: [String; 2] = commands("Standby", &edits).try_into().unwrap();
        scripts
    };
    let mut standby = primary.copied_by(|data| {
        let [make, _] = edits(data.to_str().unwrap());
        let mut shell = shell(&make);
        primary.administer(&mut shell);
        shell
    });
    standby.start_again();
    let [_, show] = edits("");
    wait_until(|| {
        let shown = succeed(primary.administer(&mut shell(&show)));
        shown.contains("db2") && shown.contains("streaming") && shown.contains("async")
    });
    // The files are needed for as long as the standby follows.
    let _ = files.keep();
    standby
}

impl Databases {
    /// Returns the URL of `role` with both servers, at these ports.
    pub(super) fn url(&self, role: Role, [one, two]: [u16; 2]) -> String {
        let password = self.office.path(&format!("{}.pgpass", short(role)));
        format!(
            "postgres://{}@localhost:{one},localhost:{two}/grantd?sslmode=verify-full&passfile={}",
            role.name(),
            password.display()
        )
    }

    /// Starts a PgBouncer in front of each server.
    fn bouncers(&self) -> [PgBouncer; 2] {
        let list = own_directory();
        let list = list.path().join("userlist.txt");
        let edits = [("/etc/pgbouncer/userlist.txt", list.to_str().unwrap())];
        let [script] = commands("PgBouncer", &edits).try_into().unwrap();
        succeed(self.primary.administer(&mut shell(&script)));
        let users = fs::read_to_string(list).unwrap();
        assert_eq!(users.matches("SCRAM-SHA-256$").count(), 2, "{users}");
        assert!(Role::ALL.iter().all(|role| !users.contains(role.password())));
        [&self.primary, &self.standby].map(|server| PgBouncer::shipped(server, &users))
    }

    /// Returns the command of a failover on the standby, in which `stop` stops the old primary. It is
    /// waited for `patience` seconds, or for as long as the shipped program does.
    fn failover(&self, stop: &str, patience: Option<u8>) -> Command {
        let programs = own_directory();
        let program = programs.path().join("grantd-failover");
        fs::copy(shipped("cluster/failover"), &program).unwrap();
        if let Some(seconds) = patience {
            let (text, shipped) = (text_of("cluster/failover"), "\npatience=30\n");
            assert!(text.contains(shipped), "{text}");
            let shorter = text.replace(shipped, &format!("\npatience={seconds}\n"));
            fs::write(&program, shorter).unwrap();
        }
        give_to_owner(&program);
        let edits = [
            ("grantd-failover", program.to_str().unwrap()),
            ("ssh db1.example sudo systemctl disable --now postgresql postgresql@15-main", stop),
        ];
        let [script] = commands("Failover", &edits).try_into().unwrap();
        let mut shell = shell(&script);
        self.standby.administer(&mut shell);
        let _ = programs.keep();
        as_owner(shell, Path::new("/"))
    }
}

/// Returns the URL of the nodes through PgBouncer, for libpq.
fn encrypted(bouncer: &PgBouncer, office: &Home) -> String {
    let url = bouncer.url(Role::Node).replace("@127.0.0.1:", "@localhost:");
    let authority = office.path("database-ca.pem");
    format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display())
}

/// Asserts that the settings of the role of the nodes are in force behind PgBouncer, which accepts no
/// connection without TLS.
fn assert_limits(bouncer: &PgBouncer, office: &Home) {
    let encrypted = encrypted(bouncer, office);
    let settings = "select current_setting('jit'), current_setting('lock_timeout'),
        current_setting('statement_timeout')";
    assert_eq!(psql_at(&encrypted, settings).assert_fine(), "off|2s|10min\n");
    let plain = psql_at(&encrypted.replace("=verify-full", "=disable"), "select 1");
    assert!(plain.code == Some(2) && plain.stderr.contains("SSL required"), "{plain:?}");
}

/// The drill: the nodes go on while the old primary is stopped and the standby is promoted, each behind
/// PgBouncer.
#[test]
fn the_drill_of_a_failover_loses_no_secret_grant_and_no_revocation_and_accepts_nothing_twice() {
    let signer = Signer::es256();
    let databases = Databases::start();
    let bouncers = databases.bouncers();
    let Databases { primary, standby, office } = &databases;
    put(primary, &client_json("steady", &json!({})));
    put(primary, &asserting(&signer));
    let ports = bouncers.each_ref().map(|bouncer| bouncer.port);
    assert_limits(&bouncers[0], office);
    let nodes = Node::three(&databases.url(Role::Node, ports), Some(office));
    let nginx = nginx_over(&nodes);
    let load = Load::on(nginx.plain, "steady");
    thread::scope(|scope| {
        let stop = load.start(scope);
        wait_until_accepted(&nodes[0].program, &signer);
        let used = assertion(&signer, "used");
        assert_eq!(present(nodes[0].program.address, &used).status, 200);
        let token = token_of(nginx.plain, "steady");
        standby.catch_up_with(primary);
        assert_revoked(&revoke(nodes[1].program.address, "steady", &token));

        let refused = |stop: &str, says: &str| {
            let ended = run(databases.failover(stop, Some(1)));
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains(says), "{ended:?}");
            assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
        };
        refused("false", "the command that stops the old primary has failed: not promoted");
        refused(
            "true",
            &format!("the old primary still answers at localhost:{}: not promoted", primary.port),
        );
        // The command ends before the old primary does.
        let stop_it = format!(
            "(sleep 2; pg_ctl --pgdata={} --mode=immediate stop) >/dev/null 2>&1 &",
            primary.data().display()
        );
        let epoch = nodes[0].program.metric("grantd_store_epoch ");
        let ended = run(databases.failover(&stop_it, None));
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
        assert!(ended.stdout.contains("failover: promoted, on timeline 00000002"), "{ended:?}");
        // Once more, it is no standby.
        let again = run(databases.failover("false", None));
        assert!(again.stderr.contains("is no standby"), "{again:?}");

        for node in &nodes {
            wait_until_ready(&node.program);
            wait_until(|| !is_active(node.program.address, "steady", &token));
            wait_until(|| node.program.metric("grantd_store_epoch ") > epoch);
            present(node.program.address, &used).assert_refused(400, "invalid_client");
        }
        wait_until_accepted(&nodes[2].program, &signer);
        present(nodes[1].program.address, &used).assert_refused(400, "invalid_client");
        let later = token_of(nginx.plain, "steady");
        assert_revoked(&revoke(nginx.plain, "steady", &later));
        let url = databases.url(Role::Owner, ports);
        let status = format!(
            "GRANTD_STORE__MASTER_KEY_FILE=master.key GRANTD_STORE__CA_FILE=database-ca.pem \
             GRANTD_STORE_URL='{url}' grantd store status"
        );
        succeed(&mut in_office(office, &status));
        // The old primary becomes a standby.
        let again = follow(standby);
        again.catch_up_with(standby);
        load.go_on(80);
        drop(stop);
    });

    // The old primary is started again, as it must never be. No node uses it.
    let Databases { mut primary, standby, office } = databases;
    primary.stop(Stop::Fast);
    primary.start_again();
    let through = encrypted(&bouncers[0], &office);
    wait_until(|| psql_at(&through, "select 1").code == Some(0));
    let [node, _, _] = nodes;
    let node = node.start_again();
    let is_refused = |line: &Value| line["message"] == "an old primary of the database is not used";
    node.program.log.wait_for(is_refused);
    wait_until_ready(&node.program);
    let token = token_of(node.program.address, "steady");
    let rows = |server: &Postgres| server.psql("select count(*) from grantd.revocation");
    let before = rows(&primary);
    assert_revoked(&revoke(node.program.address, "steady", &token));
    assert_eq!((rows(&primary), rows(&standby) == "3"), (before, true));
}
