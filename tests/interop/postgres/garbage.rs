//! Rows that no server has written. Each command names them and says what to do, or goes on without
//! them.

use serde_json::json;

use super::nodes::{ask, cluster_with, start};
use super::store::{MASTER_KEY, OTHER_MASTER_KEY, on, with_store};
use crate::support::Home;
use crate::support::command::run;
use crate::support::home::{secret_of, set_mode};
use crate::support::postgres::Role;
use crate::support::registry::client_json;

/// The commands that read the store, and whether each one is expected to fail.
type Fails = [bool; 5];
const NONE: Fails = [false; 5];
const ALL: Fails = [true; 5];

/// The statement that puts a row into a table, and the texts of the commands that fail.
struct Case {
    table: &'static str,
    put: &'static str,
    /// Status, rekey, export, check, and the list of keys.
    fails: Fails,
    says: &'static [&'static str],
}

const CASES: [Case; 12] = [
    Case {
        table: "signing_key",
        put: "insert into grantd.signing_key (key_id, document) values (E'it''s\\n', 'x')",
        fails: ALL,
        says: &["it's : is not", "DELETE FROM grantd.signing_key WHERE key_id = E'it''s\\u000a'"],
    },
    Case {
        table: "secret",
        put: "insert into grantd.secret values ('s', 'x')",
        fails: [true, true, false, false, false],
        says: &["s: is not sealed", "DELETE FROM grantd.secret WHERE name = 's'"],
    },
    Case {
        table: "secret",
        put: "insert into grantd.secret values ('s', decode('01' || repeat('ab', 60), 'hex'))",
        fails: [true, true, false, false, false],
        says: &["s: is sealed with the master key abab", "grantd.secret WHERE name = 's'"],
    },
    Case {
        table: "client",
        put: "insert into grantd.client (client_id, entry) values ('bad', '{')",
        fails: [false, false, true, true, true],
        says: &["client bad: ", "DELETE FROM grantd.client WHERE client_id = 'bad'"],
    },
    Case {
        table: "client",
        put: "insert into grantd.client (client_id, entry) values ('bad', '{\"client_id\": \"d\"}')",
        fails: [false, false, false, true, false],
        says: &["the entry of another one", "DELETE FROM grantd.client WHERE client_id = 'bad'"],
    },
    Case {
        table: "revocation",
        put: "insert into grantd.revocation values
                (decode(repeat('01', 16), 'hex'), '\\x01', 9223372036854775807),
                (decode(repeat('02', 32), 'hex'), '', -9223372036854775808)",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "cut_off",
        put: "insert into grantd.cut_off values ('\\x01', 9223372036854775807),
                (decode(repeat('02', 8), 'hex'), 9223372036854775807)",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "shortened",
        put: "insert into grantd.shortened values ('', 4294967295, 9223372036854775807),
                (E'x\\n', 0, -9223372036854775808)",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "node",
        put: "insert into grantd.node values (E'n\\n', 'infinity', '{null}', '{-1,2}', -1)",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "lease",
        put: "insert into grantd.lease values (E'x\\n', '', 'infinity', -1)",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "secret_use",
        put: "insert into grantd.secret_use
              values ('', '', 4611686018427387904, -9223372036854775808, 'infinity'),
                (E'c\\n', '', 0, 9223372036854775807, '-infinity')",
        fails: NONE,
        says: &[],
    },
    Case {
        table: "changes",
        put: "insert into grantd.changes (kind, name) values ('c', E'x\\n'), ('r', 'zz'), ('', '')",
        fails: NONE,
        says: &[],
    },
];

#[test]
fn each_command_names_a_row_that_cannot_be_used_or_goes_on_without_it() {
    let cluster = cluster_with(&[client_json("c", &json!({}))]);
    let (home, owner) = (Home::without_key(), cluster.url(Role::Owner));
    drop(start(&cluster.url(Role::Node), &[], &[]));
    for (number, Case { table, put, fails, says }) in CASES.iter().enumerate() {
        cluster.psql(&format!("create table kept as select * from grantd.{table}"));
        cluster.psql(put);
        let [clients, keys, state] =
            ["clients", "keys", "state"].map(|name| format!("{name}-{number}"));
        let to = ["--clients", &clients, "--keys", &keys, "--state", &state];
        let export = [&["store", "export"], &to[..]].concat();
        let commands: [&[&str]; 5] = [
            &["store", "status"],
            &["store", "rekey"],
            &export,
            &["check", "--listen", "127.0.0.1:0"],
            &["key", "list"],
        ];
        for (command, fails) in commands.iter().zip(fails) {
            let ended = on(&home, &owner, command);
            if *fails {
                assert_eq!(ended.code, Some(1), "{table} {command:?}: {ended:?}");
                for part in *says {
                    assert!(ended.stderr.contains(part), "{table} {command:?}: {ended:?}");
                }
            } else {
                assert_eq!(ended.code, Some(0), "{table} {command:?}: {ended:?}");
            }
        }
        cluster.psql(&format!(
            "delete from grantd.{table} t where t::text not in (select k::text from kept k);
             drop table kept"
        ));
    }
    // A server that starts beside all of them serves.
    CASES.iter().filter(|case| case.fails != ALL).enumerate().for_each(|(number, case)| {
        let put = case.put.replace("'s'", &format!("'s{number}'"));
        cluster.psql(&put.replace("'bad'", &format!("'bad{number}'")));
    });
    let node = start(&cluster.url(Role::Node), &[], &[]);
    assert_eq!(ask(node.address, "c", &secret_of("c")).status, 200);
    assert_eq!(node.log.count(|line| line.to_string().contains("panic")), 0);
}

/// A rekey says that it has done nothing, and which rows are in its way.
#[test]
fn a_rekey_names_each_row_that_it_cannot_open_and_seals_nothing_anew() {
    let cluster = cluster_with(&[]);
    let (home, owner) = (Home::without_key(), cluster.url(Role::Owner));
    on(&home, &owner, &["key", "generate"]).assert_fine();
    let garbage = "insert into grantd.secret values ('one', 'x'), ('two', 'y')";
    cluster.psql_as(Role::Node, garbage).assert_fine();
    let key = || cluster.psql("select md5(document) from grantd.signing_key");
    let before = key();
    let rekey = || {
        let lines = [OTHER_MASTER_KEY, MASTER_KEY].join("\n");
        set_mode(&home.write("master.key", &lines), 0o600);
        let mut command = with_store(&home, &owner, &["store", "rekey"]);
        run(command
            .env_remove("GRANTD_MASTER_KEY")
            .env("GRANTD_STORE__MASTER_KEY_FILE", "master.key"))
    };
    let refused = rekey();
    let remedy = |name: &str| format!("DELETE FROM grantd.secret WHERE name = '{name}'");
    refused.assert_error(1, &[&remedy("one"), &remedy("two"), "no value was sealed anew"]);
    assert_eq!(key(), before);
    for name in ["one", "two"] {
        cluster.psql_as(Role::Owner, &remedy(name)).assert_fine();
    }
    rekey().assert_fine();
    assert_ne!(key(), before);
    // A server's role can fill the table only so far.
    let many = "insert into grantd.secret select n::text, 'x' from generate_series(1, 101) n";
    cluster.psql_as(Role::Node, many).assert_error(1, &["there are more than 100 secrets"]);
}
