//! `grantd store`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::command::{Ended, run};
use crate::support::home::{set_mode, signing_key};
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{Postgres, Role};
use crate::support::registry::registry_of;
use crate::support::{Home, Program};

/// A master key.
pub(crate) const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(crate) const OTHER_MASTER_KEY: &str = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Returns a command in `home` with this store and [`MASTER_KEY`].
pub(crate) fn with_store(home: &Home, url: &str, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.env("GRANTD_STORE_URL", url).env("GRANTD_MASTER_KEY", MASTER_KEY);
    command
}

pub(crate) fn on(home: &Home, url: &str, arguments: &[&str]) -> Ended {
    run(with_store(home, url, arguments))
}

#[track_caller]
pub(crate) fn printed(ended: &Ended) -> Value {
    serde_json::from_str(ended.assert_fine()).unwrap()
}

const IMPORT: [&str; 6] = ["store", "import", "--clients", "clients.json", "--keys", "keys"];

/// A cluster whose schema the owner has made, and the owner's URL.
pub(crate) fn migrated() -> (Postgres, String) {
    let cluster = Postgres::start();
    let url = cluster.url(Role::Owner);
    let node = Role::Node.name();
    on(&Home::new(), &url, &["store", "migrate", "--node-role", node]).assert_fine();
    (cluster, url)
}

/// The version of the schema that the program uses: the number of the migrations.
pub(super) fn versions() -> i64 {
    let files =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/schema"));
    let names = files.unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    i64::try_from(names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).count())
        .unwrap()
}

#[test]
fn migrations_run_once_also_if_several_commands_run_them_at_once() {
    let cluster = Postgres::start();
    let (home, url) = (Home::new(), cluster.url(Role::Owner));
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = with_store(&home, &url, &["store", "migrate"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut before: Vec<_> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let line: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(line["schema"], versions());
            line["from"].as_i64().unwrap()
        })
        .collect();
    before.sort_unstable();
    assert_eq!(before, [0, versions(), versions()]);
    let last = cluster.psql("select max(version) from grantd.migration");
    assert_eq!(last, versions().to_string());
}

#[test]
fn a_failed_migration_leaves_nothing() {
    let cluster = Postgres::start();
    let role = ["store", "migrate", "--node-role", "unheard\"of"];
    on(&Home::new(), &cluster.url(Role::Owner), &role)
        .assert_error(1, &["has no role unheard\"of: create it with CREATE ROLE"]);
    assert_eq!(cluster.psql("select to_regnamespace('grantd') is null"), "t");
}

#[test]
fn a_node_has_no_more_rights_than_it_needs() {
    let (cluster, _) = migrated();
    let fine = |sql: &str| {
        cluster.psql_as(Role::Node, sql).assert_fine();
    };
    fine("select count(*) from grantd.client");
    let key = "insert into grantd.signing_key (key_id, document) values ('k', '')";
    fine(key);
    let revoke =
        "select grantd.revoke(array['sixteen letters.'::bytea], array['c'::bytea], array[ENDS])";
    fine(&revoke.replace("ENDS", "1::bigint"));
    fine("select grantd.cut_off(array['c'::bytea], array[2::bigint])");
    fine("select grantd.cut_off(array['c'::bytea], array[1::bigint])");
    assert_eq!(cluster.psql("select until from grantd.cut_off"), "2");
    fine(
        "insert into grantd.guard (key, client, ends)
         values ('j', 'c', now() - interval '2 minutes'), ('m', 'c', now() - interval '1 second')",
    );
    let drop = "select grantd.drop_uses(9), grantd.drop_revocations(9), grantd.drop_cut_offs(9)";
    fine("insert into grantd.guard (key, client, ends) values ('l', 'c', 'infinity')");
    fine(&format!("{drop}, grantd.drop_changes(9), grantd.begin_epoch()"));
    assert_eq!(
        cluster.psql(
            "select string_agg(convert_from(key, 'UTF8'), ',' order by key) from grantd.guard"
        ),
        ",l,m"
    );
    fine("select count(*) from grantd.poll('1:1:')");
    // The changes that these statements made are in the outbox, which the node cannot write.
    let kinds = "select string_agg(kind || ' ' || name, ',' order by seq) from grantd.changes";
    assert_eq!(cluster.psql(kinds), "k k,r 7369787465656e206c6574746572732e,o 63");
    for sql in [
        "insert into grantd.client (client_id, entry) values ('c', '{}')",
        "update grantd.client set entry = ''",
        "delete from grantd.client",
        "truncate grantd.revocation",
        "insert into grantd.revocation values ('sixteen letters.', 'c', 1)",
        "select grantd.drop_uses_unchecked(9)",
        "select grantd.attend_unchecked('n', '{}', '{}', 0, 0)",
        "update grantd.revocation set expires_at = 0",
        "delete from grantd.revocation",
        "update grantd.cut_off set until = 0",
        "delete from grantd.cut_off",
        "delete from grantd.guard",
        "insert into grantd.guard (key, ends, born) values ('', 'infinity', '-infinity')",
        "delete from grantd.changes",
        "update grantd.pruned set xid = '0'",
        "update grantd.signing_key set document = ''",
        "update grantd.signing_key set retired_at = null",
        "insert into grantd.signing_key (key_id, document, retired_at) values ('l', '', now())",
        // The first key is there.
        &key.replace("'k'", "'l'"),
        "update grantd.lease set ends = 'infinity'",
        "insert into grantd.node values ('n', now(), '{}', '{}', 0)",
        "update grantd.node set seen = 'infinity'",
        "delete from grantd.node",
        "delete from grantd.signing_key",
        "insert into grantd.changes (kind, name) values ('c', 'x')",
        "update grantd.guard set ends = 'infinity'",
        "update grantd.secret set sealed = ''",
        "insert into grantd.migration values (2)",
        "create table grantd.t (i int)",
        "drop table grantd.guard",
        "alter table grantd.client disable trigger all",
    ] {
        let refused = cluster.psql_as(Role::Node, sql);
        assert!(
            refused.stderr.contains("permission denied")
                || refused.stderr.contains("must be owner"),
            "{sql}: {refused:?}"
        );
    }
}

/// The password of the node's role alone hides no revocation, stops no server and ends no epoch.
#[test]
fn a_node_writes_nothing_without_bounds() {
    let (cluster, _) = migrated();
    let now = "extract(epoch from clock_timestamp())::bigint";
    let call = |sql: &str| cluster.psql_as(Role::Node, &sql.replace("NOW", now));
    let revoke =
        "select grantd.revoke(array['sixteen letters.'::bytea], array[''::bytea], array[END])";
    for end in ["NOW - 3596", "NOW + 600", "NOW + 60"] {
        call(&revoke.replace("END", end)).assert_fine();
    }
    let left = format!("select expires_at > {now} + 500 from grantd.revocation");
    assert_eq!(cluster.psql(&left), "t");
    call("select grantd.begin_epoch()").assert_fine();
    let epoch = || cluster.psql("select epoch from grantd.epoch");
    let born = epoch();
    call(
        "insert into grantd.guard (key, client, ends) values ('j', 'c', now() - interval '1 minute')",
    )
    .assert_fine();
    // No end is later than that of any token.
    for (sql, end) in [
        (&*revoke.replace("END", "NOW + 40000000"), "expires_at from grantd.revocation"),
        (
            "select grantd.cut_off(array['c'::bytea], array[NOW + 40000000])",
            "until from grantd.cut_off",
        ),
        (
            "select grantd.shorten(array['c'], array[4294967295], array[NOW + 40000000])",
            "until from grantd.shortened where lifetime = 31536000",
        ),
    ] {
        call(sql).assert_fine();
        let (value, rest) = end.split_once(' ').unwrap();
        let left = format!("select {value} - {now} between 31536000 and 31622400 {rest}");
        assert_eq!(cluster.psql(&left), "t", "{sql}");
    }
    for sql in [
        &revoke.replace("sixteen letters.", "short").replace("END", "NOW"),
        "select grantd.shorten(array['c'], array[-1::bigint], array[NOW])",
        "select grantd.attend('n', array[null]::text[], array[0::bigint], 0, 0)",
        "select grantd.attend('n', array['k'], array[null]::bigint[], 0, 0)",
        "select grantd.attend('n', array[array['k']], array[0::bigint], 0, 0)",
        "select grantd.attend('n', array[repeat('k', 101)], array[0::bigint], 0, 0)",
        "insert into grantd.signing_key (key_id, document) values ('k', repeat('x', 70000)::bytea)",
        "insert into grantd.signing_key (key_id, document)
         select n::text, '' from generate_series(1, 201) n",
        "insert into grantd.secret values ('s', repeat('x', 5000)::bytea)",
        "begin; savepoint a; select grantd.drop_uses(9); release a; commit",
        "begin; savepoint a; select grantd.renew_epoch('4000000000:4000000000:'); release a; commit",
    ] {
        let refused = call(sql);
        assert!(
            refused.code != Some(0) && !refused.stderr.contains("syntax"),
            "{sql}: {refused:?}"
        );
    }
    assert_eq!(epoch(), born);
    call("select grantd.drop_uses(9)").assert_fine();
    assert_eq!(epoch(), born);
    assert_eq!(cluster.psql("select count(*) from grantd.guard"), "1");
    // An epoch ends only for a caller whose last snapshot is ahead.
    let poll = |last: &str| {
        call(&format!("select is_pruned, grantd.renew_epoch({last}) from grantd.poll({last})"))
    };
    assert_eq!(poll("pg_current_snapshot()::text").assert_fine(), "f|f\n");
    assert_eq!(epoch(), born);
    assert_eq!(poll("'4000000000:4000000000:'").assert_fine(), "t|t\n");
    assert_ne!(epoch(), born);
    assert_eq!(cluster.psql("select count(*) from grantd.guard"), "1");
}

/// Returns every file in `directory`, but for its lock, with its mode and contents.
fn files(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == ".lock" {
            continue;
        }
        files.insert(name, (mode, fs::read(&path).unwrap()));
    }
    files
}

/// Registers clients whose entries are laid out in several ways, and a second key with times.
fn filled() -> Home {
    let home = Home::new();
    let entries = [
        "{\"client_id\":\"b\", \"scopes\": [\"s\"]}",
        "{\n      \"client_id\": \"a\",\n      \"claims\": { \"x\": \"ä\\u00e4\" }\n    }",
        "{ \"client_id\": \"quo\\\"te\", \"claims\": {\"x\": 1.50} }",
    ];
    home.write("clients.json", &format!("{{ \"clients\": [{}] }}\n", entries.join(", ")));
    run(home.command(&["key", "generate"])).assert_fine();
    home
}

fn export(home: &Home, url: &str, to: &str) -> Ended {
    let (clients, keys) = (format!("{to}.json"), format!("{to}-keys"));
    on(home, url, &["store", "export", "--clients", &clients, "--keys", &keys])
}

#[test]
fn an_export_after_an_import_gives_the_same_clients_and_keys() {
    let (cluster, url) = migrated();
    let home = filled();
    let line = printed(&on(&home, &url, &IMPORT));
    assert_eq!(
        (&line["clients"], &line["keys"], &line["imported"]),
        (&json!(3), &json!(2), &json!(true))
    );
    assert_eq!(printed(&on(&home, &url, &IMPORT))["imported"], false);

    assert_eq!(printed(&export(&home, &url, "one"))["keys"], 2);
    let exported = files(&home.path("one-keys"));
    assert_eq!(exported, files(&home.keys()));
    assert!(exported.values().all(|(mode, _)| *mode == 0o600), "{:?}", exported.keys());
    let mode = |name: &str| home.path(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("one.json"), mode("one-keys")), (0o600, 0o700));
    // The entries are the same text, in the same order.
    let text = fs::read_to_string(home.path("one.json")).unwrap();
    let entries = |text: &str| -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Registry {
            clients: Vec<Box<serde_json::value::RawValue>>,
        }
        let registry: Registry = serde_json::from_str(text).unwrap();
        registry.clients.iter().map(|entry| entry.get().to_owned()).collect()
    };
    assert_eq!(entries(&text), entries(&fs::read_to_string(home.clients()).unwrap()));
    let list = |clients: &str, keys: &str| {
        [
            run(home.command(&["client", "list", "--clients", clients])).stdout,
            run(home.command(&["key", "list", "--keys", keys])).stdout,
        ]
    };
    assert_eq!(list("one.json", "one-keys"), list("clients.json", "keys"));

    // Once more around, every byte is the same.
    cluster.psql("truncate grantd.client, grantd.signing_key");
    let again = ["store", "import", "--clients", "one.json", "--keys", "one-keys"];
    on(&home, &url, &again).assert_fine();
    export(&home, &url, "two").assert_fine();
    assert_eq!(fs::read_to_string(home.path("two.json")).unwrap(), text);
    assert_eq!(files(&home.path("two-keys")), exported);
    let server = Program::start(home, &["--clients", "two.json", "--keys", "two-keys"]);
    assert_eq!(server.metric("grantd_clients "), 3);
}

#[test]
fn an_import_is_all_or_nothing() {
    let (cluster, url) = migrated();
    let rows = || {
        cluster.psql("select (select count(*) from grantd.client), (select count(*) from grantd.signing_key)")
    };
    let home = filled();
    // A fault in a file is found before the store is changed.
    home.write("broken.json", "{\"clients\": [{\"client_id\": \"a\"}, {\"client_id\": \"a\"}]}");
    on(&home, &url, &["store", "import", "--clients", "broken.json", "--keys", "keys"])
        .assert_error(1, &["broken.json:1:34: clients[1].client_id: is registered twice"]);
    let broken = home.write_key("broken.pem", "no key");
    on(&home, &url, &IMPORT).assert_error(1, &["broken.pem"]);
    fs::remove_file(broken).unwrap();
    assert_eq!(rows(), "0|0");
    // The database refuses the last statement.
    cluster.psql("alter table grantd.signing_key add constraint no_key check (false)");
    on(&home, &url, &IMPORT).assert_error(1, &["refuses a statement"]);
    assert_eq!(rows(), "0|0");
    cluster.psql("alter table grantd.signing_key drop constraint no_key");
    on(&home, &url, &IMPORT).assert_fine();
    // A store with other contents is left as it is.
    home.write("clients.json", &registry_of(&[json!({"client_id": "other"})]));
    on(&home, &url, &IMPORT).assert_error(1, &["holds 3 clients and 2 keys", "empty store"]);
    assert_eq!(rows(), "3|2");
}

#[test]
fn an_export_overwrites_nothing_and_leaves_nothing_behind() {
    let (_cluster, url) = migrated();
    let home = filled();
    on(&home, &url, &IMPORT).assert_fine();
    home.write("one.json", "mine");
    export(&home, &url, "one").assert_error(1, &["one.json: exists already"]);
    assert_eq!(fs::read_to_string(home.path("one.json")).unwrap(), "mine");
    on(&home, &url, &["store", "export", "--clients", "two.json", "--keys", "keys"])
        .assert_error(1, &["keys: is not empty"]);
    // The registry cannot be written, so the keys are removed again.
    on(&home, &url, &["store", "export", "--clients", "none/two.json", "--keys", "two-keys"])
        .assert_error(1, &["none/two.json: cannot be written"]);
    assert!(!home.path("two-keys").exists());
}

#[test]
fn the_keys_of_a_file_become_part_of_the_entry() {
    let (cluster, url) = migrated();
    let home = Home::new();
    let key = json!({"keys": [{"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    home.write("jwks.json", &key.to_string());
    home.register(&[
        json!({"client_id": "a", "auth_methods": ["private_key_jwt"], "jwks": "jwks.json"}),
    ]);
    on(&home, &url, &IMPORT).assert_fine();
    let entry: Value =
        serde_json::from_str(&cluster.psql("select entry from grantd.client")).unwrap();
    assert_eq!(entry["jwks"], key);
    assert_eq!(printed(&on(&home, &url, &IMPORT))["imported"], false);
}

#[test]
fn a_rekey_seals_all_keys_anew() {
    let (cluster, url) = migrated();
    let home = filled();
    on(&home, &url, &IMPORT).assert_fine();
    cluster.psql("update grantd.signing_key set retired_at = now() where key_id = (select min(key_id) from grantd.signing_key)");
    let with_keys = |lines: &[&str], arguments: &[&str]| {
        set_mode(&home.write("master.key", &lines.join("\n")), 0o600);
        let mut command = with_store(&home, &url, arguments);
        run(command
            .env_remove("GRANTD_MASTER_KEY")
            .env("GRANTD_STORE__MASTER_KEY_FILE", "master.key"))
    };
    let rekey = ["store", "rekey"];
    let ids = || printed(&on(&home, &url, &["store", "status"]))["master_keys"].clone();
    let old = ids();
    let old = old.as_object().unwrap().keys().next().unwrap();
    let refused = with_keys(&[OTHER_MASTER_KEY], &rekey);
    refused.assert_error(
        1,
        &[&format!("is sealed with the master key {old}, and those that are set are ")],
    );
    assert_eq!(refused.stderr.lines().count(), 3, "{refused:?}");

    let line = printed(&with_keys(&[OTHER_MASTER_KEY, MASTER_KEY], &rekey));
    assert_eq!((&line["sealed_anew"], &line["unchanged"]), (&json!(2), &json!(0)));
    // A server with the old master key alone could not start.
    let status = on(&home, &url, &["store", "status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert!(status.stderr.contains("is sealed with the master key"), "{status:?}");
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["master_keys"], json!({line["master_key"].as_str().unwrap(): 2}));
    let line = printed(&with_keys(&[OTHER_MASTER_KEY], &rekey));
    assert_eq!((&line["sealed_anew"], &line["unchanged"]), (&json!(0), &json!(2)));
    export(&home, &url, "out").assert_error(1, &["is sealed with the master key"]);
}

#[test]
fn a_dump_contains_no_part_of_a_private_key() {
    let (cluster, url) = migrated();
    let home = Home::new();
    on(&home, &url, &IMPORT).assert_fine();
    let dump = cluster.dump(&[]);
    assert!(dump.contains(signing_key().0.trim_end_matches(".pem")));
    let pem = &signing_key().1;
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).unwrap();
    // d, p and q are the longest parts of the document; every 16 bytes of it are looked for.
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let dump_hex = dump.to_ascii_lowercase();
    for at in (0..der.len() - 16).filter(|at| at % 4 == 0) {
        assert!(!dump_hex.contains(&hex[2 * at..2 * at + 32]), "hex at {at}");
    }
    for line in pem.lines().filter(|line| line.len() == 64) {
        assert!(!dump.contains(line), "base64");
    }
    assert!(!dump.contains(MASTER_KEY));
}

#[test]
fn every_command_works_through_a_pooler_of_transactions() {
    let cluster = Postgres::start();
    let bouncer = PgBouncer::before(&cluster);
    let (home, url) = (filled(), bouncer.url(Role::Owner));
    on(&home, &url, &["store", "migrate", "--node-role", Role::Node.name()]).assert_fine();
    on(&home, &url, &IMPORT).assert_fine();
    export(&home, &url, "out").assert_fine();
    assert_eq!(files(&home.path("out-keys")), files(&home.keys()));
    on(&home, &url, &["store", "rekey"]).assert_fine();
    let status = printed(&on(&home, &bouncer.url(Role::Node), &["store", "status"]));
    assert_eq!((&status["clients"], &status["keys"]), (&json!(3), &json!(2)));
}
