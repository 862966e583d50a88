//! PostgreSQL clusters of the tests' own: each in a temporary directory, on a port of its own, run by
//! another user than root.

pub(crate) mod bouncer;
mod certificate;
mod copies;
pub(crate) mod session;
mod template;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::support::command::{Ended, run, succeed};
use crate::support::ports::free_port;
use crate::support::program::{as_user, send_signal};
use crate::support::{GUARD, wait_until};

/// The directory of the programs in Debian's package.
pub(crate) const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The user `nobody` in Debian. PostgreSQL does not run as root.
const USER: u32 = 65_534;

/// The database of [`Role::Owner`].
pub(crate) const DATABASE: &str = "grantd";

/// The host name in the certificate of a cluster with TLS.
pub(crate) const NAME: &str = "localhost";

/// A role that logs in with a password (SCRAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Owns the database and runs the migrations.
    Owner,
    /// May connect, and has no other right until the owner grants one.
    Node,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Owner, Self::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "grantd_owner",
            Self::Node => "grantd_node",
        }
    }

    pub(crate) fn password(self) -> &'static str {
        match self {
            Self::Owner => "owner-of-the-tests-Kq7vT2mXwZ",
            Self::Node => "node-of-the-tests-Rd4bY9sLpN",
        }
    }
}

/// How a new cluster differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Settings of PostgreSQL in addition to [`SETTINGS`].
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// Over TCP, roles can log in only with TLS. The certificate is for [`NAME`].
    pub(crate) tls: bool,
    /// Other clusters have another system identifier. Without this, all clusters have the same.
    pub(crate) own_identity: bool,
}

/// How [`Postgres::stop`] ends a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Waits until all clients have disconnected.
    Smart,
    /// Disconnects all clients.
    Fast,
    /// Leaves the repair to the next start.
    Immediate,
}

/// The settings of every cluster. `fsync` is off because the machine does not crash in a test.
const SETTINGS: [(&str, &str); 9] = [
    ("fsync", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "60"),
    ("max_prepared_transactions", "5"),
    ("shared_buffers", "32MB"),
    // Kept in the cluster's directory, which is removed at the end.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %u "),
    ("max_wal_senders", "5"),
    ("wal_level", "replica"),
];

/// A cluster. It is stopped on drop.
pub(crate) struct Postgres {
    /// The port on 127.0.0.1, and the number in the name of the Unix socket.
    pub(crate) port: u16,
    settings: Vec<(String, String)>,
    tls: bool,
    directory: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Starts a cluster with the database [`DATABASE`] and both roles.
    pub(crate) fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    pub(crate) fn start_with(setup: &Setup<'_>) -> Self {
        let directory = own_directory();
        let data = directory.path().join("data");
        if setup.own_identity {
            template::make(&data);
        } else {
            template::copy_to(&data);
        }
        if setup.tls {
            certificate::require_tls(&data);
        }
        let settings = SETTINGS.iter().chain(setup.settings);
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut cluster = Self {
            port: free_port(),
            settings: settings.collect(),
            tls: setup.tls,
            directory,
            child: None,
        };
        cluster.start_again();
        cluster
    }

    /// Starts the cluster again with more lines at the end of `postgresql.conf`, and with these lines in
    /// `pg_hba.conf`, after those of the superuser.
    pub(crate) fn configure(&mut self, settings: &str, access: &str) {
        self.stop(Stop::Fast);
        let write = |name: &str, text: String| fs::write(self.data().join(name), text).unwrap();
        let usual = fs::read_to_string(self.data().join("postgresql.conf")).unwrap();
        write("postgresql.conf", usual + settings);
        let superuser = template::ACCESS.lines().take(2).map(|line| format!("{line}\n"));
        write("pg_hba.conf", superuser.collect::<String>() + access);
        self.start_again();
    }

    /// Starts the cluster and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "the cluster runs");
        let log = fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut postgres = program("postgres", self.directory.path());
        postgres.arg("-D").arg(self.data());
        let sockets = self.directory.path().to_str().unwrap().to_owned();
        let own = [
            ("port".to_owned(), self.port.to_string()),
            ("unix_socket_directories".to_owned(), sockets),
            ("ssl".to_owned(), if self.tls { "on" } else { "off" }.to_owned()),
        ];
        for (name, value) in own.iter().chain(&self.settings) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        let output = log.try_clone().unwrap();
        let child = postgres.stdin(Stdio::null()).stdout(output).stderr(log).spawn();
        self.child = Some(child.expect("PostgreSQL: tests/run installs it"));
        self.wait_until_it_serves();
    }

    /// Waits until the first line of `postmaster.pid` is the child's id and the last line says that
    /// it is ready.
    fn wait_until_it_serves(&mut self) {
        let started = Clock::system().instant();
        loop {
            let child = self.child.as_mut().expect("a running cluster");
            let (id, ended) = (child.id().to_string(), child.try_wait().unwrap());
            let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let is_own = state.lines().next() == Some(&id);
            if is_own && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            assert!(
                ended.is_none() && started.elapsed() < GUARD,
                "PostgreSQL does not serve: {ended:?}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Returns the URL of [`DATABASE`] over TCP, with the role's password.
    pub(crate) fn url(&self, role: Role) -> String {
        let host = if self.tls { NAME } else { "127.0.0.1" };
        url(role, host, self.port)
    }

    /// Returns a URL with several clusters as hosts, in this order.
    pub(crate) fn url_of(role: Role, clusters: &[&Self]) -> String {
        let hosts: Vec<_> = clusters.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        format!("postgres://{}:{}@{}/{DATABASE}", role.name(), role.password(), hosts.join(","))
    }

    /// Runs `sql` as the superuser, in one transaction, and returns its rows: a line each, with `|`
    /// between the columns.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        let mut psql = self.superuser("psql", DATABASE);
        succeed(psql.args(QUIET).arg("-c").arg(sql)).trim_end().to_owned()
    }

    /// Runs `sql` as `role` over TCP.
    pub(crate) fn psql_as(&self, role: Role, sql: &str) -> Ended {
        psql_at(&self.url(role), sql)
    }

    /// Runs `command` as the superuser would on this machine: it finds PostgreSQL's programs, and they
    /// log in through the Unix socket.
    pub(crate) fn administer<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = format!("{PROGRAMS}:/usr/sbin:/usr/bin:/bin");
        let variables = [("PATH", &*path), ("LC_ALL", "C"), ("PGUSER", "postgres")];
        command.env_clear().envs(variables).env("PGPORT", self.port.to_string());
        command.env("PGHOST", self.directory.path())
    }

    /// Returns a client program that logs in as the superuser, through the Unix socket.
    fn superuser(&self, name: &str, database: &str) -> Command {
        let mut command = client(name);
        command.arg("-h").arg(self.directory.path()).arg("-p").arg(self.port.to_string());
        command.args(["-U", "postgres", "-d", database]);
        command
    }

    /// Stops the cluster and waits for its end.
    pub(crate) fn stop(&mut self, how: Stop) {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.signal(signal);
        self.wait_for_the_end();
    }

    fn wait_for_the_end(&mut self) {
        let mut child = self.child.take().expect("a running cluster");
        child.wait().expect("the cluster's own child");
    }

    /// Kills the main process, as `kill -9` does, and waits until the other processes have noticed.
    pub(crate) fn kill(&mut self) {
        let others = self.others();
        self.signal(Signal::KILL);
        self.wait_for_the_end();
        wait_until(|| others.iter().all(|id| !is_postgres(*id)));
        // The seventh line has the key and the id of a block of shared memory, which the main process
        // removes if it lives.
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let block = state.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        let _ = Command::new("ipcrm").arg("-m").arg(block.expect("the block's id")).status();
    }

    /// Kills one process, not the main process. PostgreSQL then ends all others and starts them again;
    /// this function waits for that.
    pub(crate) fn kill_one_process(&self) {
        let writer = "select pid from pg_stat_activity where backend_type = 'background writer'";
        let killed = self.psql(writer);
        let id = Pid::from_raw(killed.parse().expect("the id of a process")).unwrap();
        kill_process(id, Signal::KILL).expect("a running process");
        wait_until(|| {
            let ended = run(self.superuser("psql", DATABASE).args(QUIET).args(["-c", writer]));
            ended.code == Some(0) && !ended.stdout.is_empty() && ended.stdout.trim() != killed
        });
    }

    /// Stops all processes (SIGSTOP) until [`Postgres::go_on`] is called: connections stay open, and
    /// nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // While the main process runs, a process that ends can hide others from the list of its children.
        let id = self.child.as_ref().expect("a running cluster").id();
        wait_until(|| {
            let status = fs::read_to_string(format!("/proc/{id}/status"));
            status.expect("a running process").contains("State:\tT")
        });
        self.others().iter().for_each(|id| signal(*id, Signal::STOP));
    }

    pub(crate) fn go_on(&self) {
        self.others().iter().for_each(|id| signal(*id, Signal::CONT));
        self.signal(Signal::CONT);
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Returns the certificate of the authority that signed the certificate of a cluster with TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        assert!(self.tls, "the cluster has no TLS");
        self.data().join(certificate::AUTHORITY)
    }

    /// Returns the ids of all processes, the main process first.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let main = self.child.as_ref().map(|child| i32::try_from(child.id()).unwrap());
        main.into_iter().chain(self.others()).collect()
    }

    /// Returns the ids of the processes that the main process has started.
    fn others(&self) -> Vec<i32> {
        let id = self.child.as_ref().expect("a running cluster").id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.expect("a running process");
        children.split_whitespace().map(|id| id.parse().expect("a number")).collect()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running cluster");
        send_signal(child, signal).expect("a running process");
    }

    /// The directory with its files.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // The main process ends the others, and kills those that do not end.
        for signal in [Signal::CONT, Signal::QUIT] {
            let _ = send_signal(child, signal);
        }
        let begin = Clock::system().instant();
        while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < GUARD {
            sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The arguments with which `psql` prints rows and nothing else, and fails at the first error.
const QUIET: [&str; 6] = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"];

/// Runs `sql` at a URL or a connection string.
pub(crate) fn psql_at(url: &str, sql: &str) -> Ended {
    run(client("psql").args(QUIET).arg(url).arg("-c").arg(sql))
}

fn url(role: Role, host: &str, port: u16) -> String {
    format!("postgres://{}:{}@{host}:{port}/{DATABASE}", role.name(), role.password())
}

/// Returns a program of PostgreSQL that does not see this process's environment.
fn client(name: &str) -> Command {
    let mut command = Command::new(Path::new(PROGRAMS).join(name));
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// Returns a program of PostgreSQL that runs in `directory` as the user who owns the clusters.
fn program(name: &str, directory: &Path) -> Command {
    as_owner(client(name), directory)
}

/// Makes the command run in `directory` as the user who owns the clusters.
pub(crate) fn as_owner(mut command: Command, directory: &Path) -> Command {
    command.current_dir(directory);
    if geteuid().is_root() { as_user(USER, command) } else { command }
}

/// Returns a new directory of the user who owns the clusters.
pub(crate) fn own_directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    give_to_owner(directory.path());
    directory
}

/// Gives a file or a directory to the user who owns the clusters.
pub(crate) fn give_to_owner(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
}

fn signal(id: i32, signal: Signal) {
    // The process may have ended.
    let _ = kill_process(Pid::from_raw(id).expect("the id of a process"), signal);
}

/// Says whether a process with this id exists and is one of PostgreSQL's.
pub(crate) fn is_postgres(id: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{id}/comm"));
    name.is_ok_and(|name| name.trim_end() == "postgres")
}
