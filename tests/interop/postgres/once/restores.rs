//! The database is restored from a copy, which has old uses or none.

use super::crowd::{Crowd, Maker, back};
use crate::postgres::nodes::{cluster_with, start, three, wait_until_ready};
use crate::support::postgres::{Postgres, Role, Setup, Stop};

#[test]
fn a_database_that_is_restored_accepts_nothing_twice() {
    let maker = Maker::new();
    let mut cluster = cluster_with(&maker.clients());
    // The signing key.
    drop(start(&cluster.url(Role::Node), &[], &[]));
    cluster.stop(Stop::Fast);
    let mut cold = cluster.cold_copy();
    cluster.start_again();
    let mut backup = cluster.base_backup();
    let mut other = Postgres::start_with(&Setup { own_identity: true, ..Setup::default() });
    other.stop(Stop::Fast);
    let nodes = three(&Postgres::url_of(Role::Node, &[&cluster, &cold, &backup, &other]));
    let crowd = Crowd::of("restores", maker, &nodes);
    crowd.run(|| {
        crowd.wait_for_the_first(&cluster);
        let dump = cluster.dump(&[]);
        assert!(dump.contains("\nCOPY grantd.guard"), "the dump has the uses");
        crowd.during("restore of a dump, twice", None, || {
            for _ in 0..2 {
                cluster.psql("drop schema grantd cascade");
                cluster.restore(&dump);
            }
            back(&cluster)
        });
        crowd.during("start of a copy of the files", None, || {
            cluster.kill();
            cold.start_again();
            back(&cold)
        });
        crowd.during("restore of a base backup", None, || {
            cold.kill();
            backup.start_again();
            back(&backup)
        });
        let dump = backup.dump(&[]);
        crowd.during("restore of a dump in another cluster", None, || {
            backup.kill();
            other.start_again();
            other.restore(&dump);
            back(&other)
        });
    });
    nodes.iter().for_each(wait_until_ready);
}
