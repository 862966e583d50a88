//! A PgBouncer in transaction mode, in front of a cluster.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{DATABASE, NAME, Postgres, Role, as_owner, give_to_owner, own_directory, url};
use crate::support::GUARD;
use crate::support::home::set_mode;
use crate::support::ports::free_port;
use crate::support::program::send_signal;

/// A running PgBouncer. It is stopped on drop.
pub(crate) struct PgBouncer {
    pub(crate) port: u16,
    settings: Vec<(String, String)>,
    directory: TempDir,
    child: Option<Child>,
}

impl PgBouncer {
    /// Starts a PgBouncer in front of `cluster`.
    pub(crate) fn before(cluster: &Postgres) -> Self {
        Self::before_with(cluster, &[])
    }

    /// Starts a PgBouncer in front of `cluster`, with more settings.
    pub(crate) fn before_with(cluster: &Postgres, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let directory = own_directory();
        let (port, settings) = (free_port(), settings.collect());
        let mut bouncer = Self { port, settings, directory, child: None };
        bouncer.write_configuration(cluster);
        bouncer.start_again();
        bouncer
    }

    /// Starts a PgBouncer in front of `cluster`, which has TLS, with the file that is shipped and with
    /// this list of users. It differs from the shipped file only in paths and addresses.
    pub(crate) fn shipped(cluster: &Postgres, users: &str) -> Self {
        let (directory, port) = (own_directory(), free_port());
        let mut bouncer = Self { port, settings: Vec::new(), directory, child: None };
        for (name, file) in [("certificate.pem", "server.crt"), ("key.pem", "server.key")] {
            bouncer.write(name, &fs::read_to_string(cluster.data().join(file)).unwrap());
        }
        bouncer.write("userlist.txt", users);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cluster/pgbouncer.ini");
        let here = bouncer.directory.path().display();
        let mut text = fs::read_to_string(file).unwrap();
        for (from, to) in [
            ("port=5432", format!("port={}", cluster.port)),
            ("listen_addr = *", "listen_addr = 127.0.0.1".to_owned()),
            ("listen_port = 6432", format!("listen_port = {port}")),
            ("/etc/pgbouncer/", format!("{here}/")),
            ("/var/log/postgresql/pgbouncer.log", format!("{here}/log")),
            ("/var/run/postgresql", here.to_string()),
        ] {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, &to);
        }
        bouncer.write("pgbouncer.ini", &text);
        bouncer.start_again();
        bouncer
    }

    /// Starts it and waits until it accepts connections.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "PgBouncer runs");
        let mut bouncer = as_owner(Command::new("/usr/sbin/pgbouncer"), self.directory.path());
        bouncer.args(["-q", "pgbouncer.ini"]).env_clear().stdin(Stdio::null());
        let child = bouncer.spawn().expect("PgBouncer: tests/run installs it");
        let child = self.child.insert(child);
        let started = Clock::system().instant();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < GUARD,
                "PgBouncer does not serve: {ended:?}"
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Sends new connections to another cluster.
    pub(crate) fn move_to(&self, cluster: &Postgres) {
        self.write_configuration(cluster);
        let child = self.child.as_ref().expect("a running PgBouncer");
        send_signal(child, Signal::HUP).expect("a running process");
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a running PgBouncer");
        child.kill().expect("a running process");
        child.wait().expect("PgBouncer's own child");
    }

    /// Returns the URL of the cluster's database through PgBouncer, with the role's password.
    pub(crate) fn url(&self, role: Role) -> String {
        url(role, "127.0.0.1", self.port)
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn write_configuration(&self, cluster: &Postgres) {
        let users = Role::ALL.map(|role| format!("\"{}\" \"{}\"\n", role.name(), role.password()));
        self.write("users", &users.concat());
        let host = if cluster.tls { NAME } else { "127.0.0.1" };
        let port = cluster.port;
        let mut text = format!("[databases]\n{DATABASE} = host={host} port={port}\n[pgbouncer]\n");
        let directory = self.directory.path().display().to_string();
        let mut set = |name: &str, value: &str| writeln!(text, "{name} = {value}").unwrap();
        set("listen_addr", "127.0.0.1");
        set("listen_port", &self.port.to_string());
        set("unix_socket_dir", "");
        set("pool_mode", "transaction");
        set("auth_type", "scram-sha-256");
        set("auth_file", &format!("{directory}/users"));
        set("logfile", &format!("{directory}/log"));
        if cluster.tls {
            set("server_tls_sslmode", "verify-full");
            set("server_tls_ca_file", cluster.authority().to_str().unwrap());
        }
        self.settings.iter().for_each(|(name, value)| set(name, value));
        self.write("pgbouncer.ini", &text);
    }

    fn write(&self, name: &str, text: &str) {
        let path: PathBuf = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        give_to_owner(&path);
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
