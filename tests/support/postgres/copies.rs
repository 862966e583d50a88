//! Copies of a cluster: standbys, backups and dumps.

use std::path::Path;
use std::process::Command;

use super::{DATABASE, Postgres, QUIET, Role, as_owner, client, own_directory};
use crate::support::command::{run_with_input, succeed};
use crate::support::ports::free_port;
use crate::support::wait_until;

impl Postgres {
    /// Starts a standby that follows this cluster asynchronously.
    pub(crate) fn standby(&self) -> Self {
        let mut standby = self.backed_up(&["--write-recovery-conf"]);
        standby.start_again();
        standby
    }

    /// Returns a base backup as a cluster that has not been started.
    pub(crate) fn base_backup(&self) -> Self {
        self.backed_up(&[])
    }

    /// Returns a cluster that has not been started, whose files a command makes in the directory that
    /// `make` gets. The command runs as the user who owns the clusters.
    pub(crate) fn copied_by(&self, make: impl FnOnce(&Path) -> Command) -> Self {
        let copy = self.beside();
        let command = make(&copy.data());
        succeed(&mut as_owner(command, copy.directory.path()));
        copy
    }

    fn backed_up(&self, more: &[&str]) -> Self {
        let copy = self.beside();
        let mut backup = as_owner(client("pg_basebackup"), copy.directory.path());
        backup.arg("-h").arg(self.directory.path()).arg("-p").arg(self.port.to_string());
        backup.args(["-U", "postgres", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
        succeed(backup.args(more).arg("-D").arg(copy.data()));
        copy
    }

    /// Returns a copy of the files of this cluster, which must not run, as a cluster that has not been
    /// started.
    pub(crate) fn cold_copy(&self) -> Self {
        assert!(self.child.is_none(), "the cluster runs");
        let copy = self.beside();
        succeed(Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()));
        copy
    }

    /// Returns a cluster without files, with the same settings.
    fn beside(&self) -> Self {
        Self {
            port: free_port(),
            settings: self.settings.clone(),
            tls: self.tls,
            directory: own_directory(),
            child: None,
        }
    }

    /// Waits until this standby has all that `primary` has written so far.
    pub(crate) fn catch_up_with(&self, primary: &Self) {
        let written = primary.psql("select pg_current_wal_lsn()");
        let has_it = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        wait_until(|| self.psql(&has_it) == "t");
    }

    /// Cuts this standby off: it gets nothing more from its primary.
    pub(crate) fn stop_following(&self) {
        // In a transaction, which `psql` makes of two statements, it would be refused.
        self.psql("alter system set primary_conninfo = ''");
        self.psql("select pg_reload_conf()");
        wait_until(|| self.psql("select count(*) from pg_stat_wal_receiver") == "0");
    }

    /// Makes this standby a primary.
    pub(crate) fn promote(&self) {
        assert_eq!(self.psql("select pg_promote(true, 60)"), "t", "{}", self.log());
    }

    /// Copies [`DATABASE`], which has no connection, within the cluster.
    pub(crate) fn copy_database(&self, to: &str) {
        let copy = format!("create database {to} template {DATABASE} owner {}", Role::Owner.name());
        succeed(self.superuser("psql", "postgres").args(QUIET).arg("-c").arg(copy));
    }

    /// Returns a dump of the database as SQL.
    pub(crate) fn dump(&self, arguments: &[&str]) -> String {
        succeed(self.superuser("pg_dump", DATABASE).args(arguments))
    }

    /// Runs the SQL of a dump as the superuser.
    #[track_caller]
    pub(crate) fn restore(&self, dump: &str) {
        let ended = run_with_input(self.superuser("psql", DATABASE).args(QUIET), dump);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}
