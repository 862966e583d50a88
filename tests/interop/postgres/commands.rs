//! The commands of clients and keys do the same to a database as to files.

use serde_json::Value;

use super::store::{OTHER_MASTER_KEY, migrated, on, printed, with_store};
use crate::support::Home;
use crate::support::command::{Ended, run, run_with_input};

/// The two stores.
struct Both {
    files: Home,
    database: Home,
    url: String,
}

impl Both {
    /// Runs a command on the files and on the database.
    fn run(&self, arguments: &[&str], input: &str) -> [Ended; 2] {
        let on_database = with_store(&self.database, &self.url, arguments);
        [run_with_input(self.files.command(arguments), input), run_with_input(on_database, input)]
    }

    /// Runs a command on both, and asserts that it ends with the same code and the same words on
    /// both. Returns what it says of the database.
    #[track_caller]
    fn same(&self, arguments: &[&str], input: &str) -> Ended {
        let [files, database] = self.run(arguments, input);
        let words = |ended: &Ended| (ended.code, said(&ended.stdout), said(&ended.stderr));
        assert_eq!(words(&files), words(&database), "{arguments:?}");
        database
    }
}

/// A text without what must differ: random and hashed values, times, and the names of the stores.
fn said(text: &str) -> String {
    let is_value = |word: &str| {
        word.len() >= 43 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            || word.len() >= 10 && word.bytes().all(|b| b.is_ascii_digit())
    };
    let is_store = |word: &str| {
        word.starts_with("postgres://") || word.starts_with("clients.json") || word == "keys:"
    };
    let words = text.split_inclusive([' ', '"', ',', '\n', '{', '}', '[', ']']);
    words
        .map(|word| {
            let (inner, end) = word.split_at(word.len() - 1);
            match () {
                () if is_value(inner) => format!("VALUE{end}"),
                // A document of a database has only the clients that the command names.
                () if end == "]" && inner.bytes().all(|b| b.is_ascii_digit()) => "N]".to_owned(),
                // With its line and column, which a row has not.
                () if is_store(inner) => format!("STORE:{end}"),
                () if inner.contains('T') && inner.contains('Z') => format!("TIME{end}"),
                () => word.to_owned(),
            }
        })
        .collect()
}

#[test]
fn each_command_of_clients_says_the_same_on_both_stores() {
    let (_cluster, url) = migrated();
    let both = Both { files: Home::without_key(), database: Home::without_key(), url };
    for home in [&both.files, &both.database] {
        home.write("clients.json", "{\"clients\": []}\n");
    }
    let steps: [(&[&str], i32, &str); 25] = [
        (&["list"], 0, ""),
        (&["show", "--id", "a"], 1, ""),
        (&["add", "--id", "a", "--scope", "s t", "--lifetime", "15m", "--claim", "k=v"], 0, ""),
        (&["add", "--id", "a"], 1, ""),
        (&["add", "--id", "b", "--secret-stdin"], 0, "a secret of more than thirty-two characters"),
        (&["add", "--id", "c", "--scope", "x", "--secret-stdin"], 0, "short-secret\n"),
        (&["add", "--id", "d", "--lifetime", "0"], 1, ""),
        (&["update", "--id", "a", "--scope", "u", "--default-scope", "v"], 1, ""),
        (&["update", "--id", "a", "--scope", "u", "--token-reuse", "1m"], 0, ""),
        (&["update", "--id", "unknown", "--scope", "u"], 1, ""),
        (&["rotate-secret", "--id", "a", "--label", "second", "--expire-old", "1h"], 0, ""),
        (&["rotate-secret", "--id", "a", "--label", "second"], 1, ""),
        (&["expire-secret", "--id", "a", "--label", "first"], 0, ""),
        (&["expire-secret", "--id", "a", "--label", "third"], 1, ""),
        (&["disable", "--id", "b"], 0, ""),
        (&["enable", "--id", "b"], 0, ""),
        (&["disable", "--id", "unknown"], 1, ""),
        (
            &["import", "-"],
            0,
            "{\"client_id\": \"e\", \"client_secret\": \"0123456789abcdef0123456789abcdef\", \"scopes\": [\"s\"]}\n{\"client_id\": \"f\"}\n",
        ),
        (&["import", "-"], 1, "{\"client_id\": \"g\"}\n{\"client_id\": \"f\"}\n"),
        (&["import", "-"], 1, "{\"client_id\": \"g\", \"scopes\": 3}\n"),
        (&["show", "--id", "a"], 0, ""),
        (&["show", "--id", "g"], 1, ""),
        (&["remove", "--id", "c"], 0, ""),
        (&["remove", "--id", "c"], 1, ""),
        (&["list", "--expiring", "2h"], 0, ""),
    ];
    for (arguments, code, input) in steps {
        let arguments = [&["client"], arguments].concat();
        let ended = both.same(&arguments, input);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    }
    let later = ["client", "expire-secret", "--id", "a", "--label", "first", "--in", "2h"];
    let expired = both.same(&later, "");
    assert!(expired.stderr.contains("the secret first already ends at"), "{expired:?}");
    let rotated = both.same(&["client", "rotate-secret", "--id", "f"], "");
    assert!(rotated.stderr.contains("client f: it can get no token: it has no scope"));
    let again =
        both.same(&["client", "import", "-"], "{\"client_id\": \"g\"}\n{\"client_id\": \"f\"}\n");
    again.assert_error(1, &["standard input:2: client_id: is registered in postgres://"]);
    let listed = both.same(&["client", "list"], "");
    let ids: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["client_id"].take())
        .collect();
    assert_eq!(ids, ["a", "b", "e", "f"]);
}

#[test]
fn each_command_of_keys_says_the_same_on_both_stores() {
    let (cluster, url) = migrated();
    let both = Both { files: Home::without_key(), database: Home::without_key(), url };
    for home in [&both.files, &both.database] {
        home.write("clients.json", "{\"clients\": []}\n");
    }
    let kids = |arguments: &[&str]| {
        let [files, database] = both.run(arguments, "").map(|ended| {
            let lines = ended.assert_fine().lines().map(str::to_owned).collect::<Vec<_>>();
            let read = |line: &String| serde_json::from_str::<Value>(line).unwrap();
            let kid = |key: Value| (key["kid"].as_str().unwrap().to_owned(), key["state"].clone());
            lines.iter().map(read).map(kid).collect::<Vec<_>>()
        });
        // The keys are listed by their names, which are random.
        let states = |keys: &[(String, Value)]| {
            let mut states: Vec<_> = keys.iter().map(|(_, state)| state.to_string()).collect();
            states.sort_unstable();
            states
        };
        assert_eq!(states(&files), states(&database), "{arguments:?}");
        database
    };
    let first = kids(&["key", "generate"]);
    assert_eq!(kids(&["key", "list"]).len(), 1);
    kids(&["key", "rotate"]);
    for ended in both.run(&["key", "rotate"], "") {
        ended.assert_error(1, &["is already published and signs from"]);
    }
    for ended in both.run(&["key", "rotate", "--bits", "4096"], "") {
        let says = ["of 2048 bits is already published", "run this again when it signs"];
        ended.assert_error(1, &says);
    }
    assert_eq!(kids(&["key", "list"]).len(), 2);
    let replaced = kids(&["key", "rotate", "--now"]);
    let left = kids(&["key", "list"]);
    assert_eq!((left.len(), &left[0].0), (1, &replaced[0].0));
    assert_eq!(kids(&["key", "retire"]), []);
    let none = "A".repeat(43);
    both.same(&["key", "retire", &none], "").assert_error(1, &["holds no key"]);
    let last = both.run(&["key", "retire", &replaced[0].0], "");
    last[1].assert_error(1, &["no signing key would be left"]);
    // The key that was replaced stays in the table, sealed, and signs nothing.
    let retired = cluster
        .psql("select key_id from grantd.signing_key where retired_at is not null order by 1");
    assert!(retired.contains(&first[0].0), "{retired}");
}

/// A key that no server can open must not replace those that they can open.
#[test]
fn a_master_key_that_the_servers_do_not_have_seals_no_key() {
    let (cluster, url) = migrated();
    let home = Home::without_key();
    let first = printed(&on(&home, &url, &["key", "generate"]));
    let replace = ["key", "rotate", "--now"];
    let refused = run(with_store(&home, &url, &replace).env("GRANTD_MASTER_KEY", OTHER_MASTER_KEY));
    refused.assert_error(1, &["is sealed with other master keys", "lost, delete the rows"]);
    let keys = "select key_id, retired_at is null from grantd.signing_key";
    assert_eq!(cluster.psql(keys), format!("{}|t", first["kid"].as_str().unwrap()));
    on(&home, &url, &replace).assert_fine();
}

#[test]
fn a_retired_key_is_not_imported_again() {
    let (_cluster, url) = migrated();
    let files = Home::new();
    let pem = files.keys().read_dir().unwrap().next().unwrap().unwrap().path();
    let import = ["key", "import", pem.to_str().unwrap()];
    on(&files, &url, &import).assert_fine();
    on(&files, &url, &["key", "rotate", "--now"]).assert_fine();
    on(&files, &url, &import).assert_error(1, &["already, and it was retired"]);
}

#[test]
fn two_commands_at_once_lose_nothing() {
    let (cluster, url) = migrated();
    let home = Home::without_key();
    let add = |id: &str| with_store(&home, &url, &["client", "add", "--id", id, "--scope", "s"]);
    let ids: Vec<_> = (0..12).map(|number| format!("client-{number}")).collect();
    let children: Vec<_> = ids.iter().map(|id| add(id).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(cluster.psql("select count(*) from grantd.client"), "12");
    let label = |number: usize| format!("label-{number}");
    let children: Vec<_> = (0..8)
        .map(|number| {
            let label = label(number);
            let rotate = ["client", "rotate-secret", "--id", "client-0", "--label", &label];
            with_store(&home, &url, &rotate).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let shown = run(with_store(&home, &url, &["client", "show", "--id", "client-0"]));
    for number in 0..8 {
        assert!(shown.assert_fine().contains(&label(number)), "{shown:?}");
    }
    // Of two that add the same client, one is told that it is there.
    let same: Vec<_> = (0..4).map(|_| add("twin").spawn().unwrap()).collect();
    let added = same.into_iter().filter_map(|mut child| child.wait().unwrap().code());
    let mut added: Vec<_> = added.collect();
    added.sort_unstable();
    assert_eq!(added, [0, 1, 1, 1]);
}

#[test]
fn a_key_set_must_be_in_the_entry() {
    let (_cluster, url) = migrated();
    let home = Home::without_key();
    let by_path = r#"{"client_id": "a", "jwks": "keys.json", "auth_methods": ["private_key_jwt"]}"#;
    let refused = run_with_input(with_store(&home, &url, &["client", "import", "-"]), by_path);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let both =
        ["client", "list", "--clients", "clients.json", "--store", "postgres://db.example/d"];
    run(home.command(&both)).assert_error(2, &["--clients <FILE>", "--store <URL>"]);
}

#[test]
fn check_reads_the_store() {
    let (cluster, url) = migrated();
    let home = Home::without_key();
    let check = |url: &str| run(with_store(&home, url, &["check", "--listen", "127.0.0.1:0"]));
    let empty = check(&url);
    for says in ["no client is registered", "holds no key; `serve` will generate one", "keys: 0"] {
        assert!(empty.assert_fine().contains(says), "{empty:?}");
    }
    for arguments in [&["client", "add", "--id", "a"][..], &["key", "generate"]] {
        assert_eq!(run(with_store(&home, &url, arguments)).code, Some(0));
    }
    let checked = check(&url);
    for says in ["client a: can get no token", "ok: clients: 1, keys: 1"] {
        assert!(checked.assert_fine().contains(says), "{checked:?}");
    }
    let mut of_files = with_store(&home, &url, &["check", "--listen", "127.0.0.1:0"]);
    let warned = run(of_files.args(["--clients", "clients.json", "--keys", "keys"]));
    let says =
        "warning: --clients, --keys: no effect: clients and keys are in the store postgres://";
    assert!(warned.assert_fine().contains(says), "{warned:?}");
    let mut stale = with_store(&home, &url, &["check", "--listen", "127.0.0.1:0"]);
    stale.env("GRANTD_STORE__POLL_MS", "1000").env("GRANTD_STORE__MAX_STALENESS", "1");
    run(stale).assert_error(1, &["store.max_staleness: 1 s is not longer than store.poll_ms"]);
    cluster.psql("update grantd.client set entry = '{\"client_id\": \"a\", \"scopes\": 3}'");
    cluster.psql("update grantd.signing_key set document = 'x'");
    check(&url)
        .assert_error(1, &["scopes: must be a list of strings", "is not sealed as this release"]);
    check("postgres://node@127.0.0.1:9/none").assert_error(1, &["cannot be reached"]);
}
