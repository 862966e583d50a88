//! Compares the tables of settings and of registry fields in `docs/settings.md` with the names that
//! the program accepts. To get the accepted names, the tests use an unknown name: the error about
//! it lists all known names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use grantd::config::Config;
use serde::Serialize;
use serde_json::Value;

use crate::support::Home;
use crate::support::command::run;
use crate::support::home::set_mode;

const TABLES: &str = include_str!("../../docs/settings.md");

/// Returns the rows of the table below a heading. The cells have no backquotes at their ends.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let text = TABLES.split(&format!("\n## {heading}\n")).nth(1).expect("a heading");
    let text = text.split("\n## ").next().unwrap();
    let lines = text.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| {
        let cells = line[1..line.len() - 1].split('|').map(str::trim);
        cells.map(|cell| cell.trim_matches('`')).collect()
    };
    let rows: Vec<Vec<_>> = lines.map(cells).collect();
    assert!(rows.len() > 20, "{rows:?}");
    rows
}

/// A row of the table of settings.
struct Setting {
    name: &'static str,
    flag: &'static str,
    variables: Vec<&'static str>,
    default: &'static str,
    change: &'static str,
}

/// The table of settings, without the row of `--config`.
fn settings() -> Vec<Setting> {
    let rows = rows("Settings").into_iter().filter(|row| !row[0].is_empty());
    let settings = rows.map(|row| Setting {
        name: row[0],
        flag: row[1],
        variables: row[2].split(", ").map(|name| name.trim_matches('`')).collect(),
        default: row[3],
        change: row[4],
    });
    settings.collect()
}

/// Returns the known names that the command's error about an unknown name lists.
fn expected(home: &Home, arguments: &[&str]) -> Vec<String> {
    let stderr = run(home.command(arguments)).stderr;
    match stderr.split_once("expected ") {
        Some((_, names)) if stderr.contains("unknown ") => {
            names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns every setting of the configuration file. A setting in a table has the name
/// `table.setting`.
fn accepted_settings() -> BTreeSet<String> {
    let of = |toml: &str| {
        let home = Home::new();
        home.write("grantd.toml", toml);
        expected(&home, &["check", "--config", "grantd.toml"])
    };
    let mut settings = BTreeSet::new();
    let top = of("unheard = 1");
    assert!(top.len() > 10, "{top:?}");
    for name in top {
        let inside = of(&format!("[{name}]\nunheard = 1"));
        if inside.is_empty() {
            settings.insert(name);
        } else {
            // `keys` is the directory of keys, which has another name in the table of that name.
            settings.extend(inside.iter().map(|field| match (&*name, &**field) {
                ("keys", "directory") => name.clone(),
                (name, field) => format!("{name}.{field}"),
            }));
        }
    }
    settings
}

#[test]
fn every_setting_is_in_the_table_and_no_other() {
    let documented: Vec<_> = settings().iter().map(|setting| setting.name.to_owned()).collect();
    let unique: BTreeSet<_> = documented.iter().cloned().collect();
    assert_eq!(unique.len(), documented.len(), "one stands there twice");
    assert_eq!(unique, accepted_settings());
}

#[test]
fn the_table_lists_exactly_the_flags_and_variables() {
    let home = Home::new();
    let help = run(home.command(&["serve", "--help"])).stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    // Each flag is followed by its help, which names the variable.
    let mut flags = BTreeMap::new();
    for part in help.split(" --").skip(1) {
        if let Some((_, variable)) = part.split_once("[env: ") {
            let flag = part.split(|c: char| c != '-' && !c.is_ascii_lowercase()).next().unwrap();
            let variable = variable.split([']', '=']).next().unwrap();
            flags.insert(format!("--{flag}"), variable.to_owned());
        }
    }
    assert!(flags.len() > 10, "{help}");
    let documented: BTreeMap<_, _> = rows("Settings")
        .iter()
        .filter(|row| !row[1].is_empty())
        .map(|row| (row[1].to_owned(), row[2].split('`').next().unwrap().to_owned()))
        .collect();
    assert_eq!(documented, flags);
}

#[test]
fn every_variable_in_the_table_follows_from_the_setting() {
    for Setting { name, flag, variables, .. } in settings() {
        let path = if name == "route" { "routes" } else { name };
        let long = format!("GRANTD_{}", path.replace('.', "__").to_uppercase());
        let short = format!("GRANTD_{}", path.replace('.', "_").to_uppercase());
        let names = if flag.is_empty() || short == long { vec![long] } else { vec![short, long] };
        assert_eq!(variables, names, "{name}");
    }
}

/// Returns a valid value of the setting that is not its default.
fn other_value(setting: &Setting) -> &'static str {
    match setting.name {
        "listen" => "127.0.0.1:0,unix:s",
        "admin_listen" => "127.0.0.1:0",
        "socket_mode" => "0600",
        "admin_token_file" => "token",
        "clients" => "./clients.json",
        "keys" => "./keys",
        "keys.rotate_every" => "90d",
        "state" => "./state",
        "issuer" => "https://auth.example",
        "signer" => "ring",
        "trusted_proxies" | "client_certificate.proxies" => "10.0.0.1,unix",
        "client_certificate.verify_header" => "X-Verify",
        "client_certificate.certificate_header" => "X-Certificate",
        "assertion_audience" => "issuer",
        "page.enabled" => "no",
        "route" => "/a/token=connect,/b/token=vision",
        "audit" => "audit.jsonl",
        "store.url" => "postgres://db.example/grantd",
        "store.master_key_file" => "master.key",
        "store.ca_file" => "ca.pem",
        "log.format" => "human",
        "log.level" => "debug",
        _ if setting.default == "false" => "true",
        _ if setting.default == "true" => "false",
        "failures.shared_factor" | "limits.password_threads" | "workers" => "3",
        _ => "2000",
    }
}

#[test]
fn every_variable_in_the_table_is_read() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    set_mode(&home.write("token", &"x".repeat(40)), 0o600);
    for index in 0..2 {
        let check = |is_set: &dyn Fn(&Setting) -> bool| {
            let settings = settings();
            let variables = settings.iter().filter(|setting| is_set(setting)).map(|setting| {
                (
                    *setting.variables.get(index).unwrap_or(&setting.variables[0]),
                    other_value(setting),
                )
            });
            run(home.command(&["check"]).envs(variables))
        };
        let checked = check(&|setting| setting.name != "store.url");
        assert!(checked.assert_fine().ends_with("ok: clients: 0, keys: 1\n"), "{checked:?}");
        // The files of the store are read only if there is one.
        check(&|_| true).assert_error(1, &["master.key: cannot be read", "ca.pem: cannot be read"]);
    }
    // No setting accepts these values, with one exception: `?` is a valid path.
    for value in [OsStr::new("?"), OsStr::from_bytes(b"\xff")] {
        let all = || {
            settings().into_iter().flat_map(|setting| {
                setting.variables.into_iter().map(move |variable| (setting.name, variable))
            })
        };
        let is_path = |name: &str| {
            ["clients", "keys", "state", "audit", "admin_token_file"].contains(&name)
                || ["store.master_key_file", "store.ca_file"].contains(&name)
        };
        let given: Vec<_> =
            all().filter(|(name, _)| value != "?" || !is_path(name)).map(|it| it.1).collect();
        let refused = run(home.command(&["check"]).envs(given.iter().map(|name| (name, value))));
        let says: Vec<_> = given.iter().map(|name| format!("grantd: {name}: ")).collect();
        // If both variables of a setting have the same value, the error names only the first
        // variable.
        let first = |line: &&String| {
            !["grantd: GRANTD_LOG__", "grantd: GRANTD_STORE__URL"]
                .iter()
                .any(|second| line.starts_with(second))
        };
        let says: Vec<_> = says.iter().filter(first).map(String::as_str).collect();
        assert!(says.len() > 30, "{says:?}");
        refused.assert_error(1, &says);
    }
}

/// Returns the default of each setting as the table writes it.
fn defaults_of(part: &impl Serialize) -> BTreeMap<String, String> {
    fn collect(path: &str, value: Value, defaults: &mut BTreeMap<String, String>) {
        let text = match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    collect(&path, value, defaults);
                }
                return;
            }
            Value::Null => "none".to_owned(),
            Value::Array(list) if list.is_empty() => "none".to_owned(),
            Value::Array(list) => {
                list.iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(",")
            }
            Value::String(text) => text,
            value => value.to_string(),
        };
        defaults.insert(path.to_owned(), text);
    }
    let mut defaults = BTreeMap::new();
    collect("", serde_json::to_value(part).unwrap(), &mut defaults);
    defaults
}

#[test]
fn every_default_in_the_table_and_what_it_needs_to_change_are_true() {
    let Config { startup, live, .. } = Config::default();
    let mut parts = [("restart", defaults_of(&startup)), ("reload", defaults_of(&live))];
    // These defaults depend on the machine or on other settings.
    for (part, name, text) in [
        (0, "workers", "one for each core"),
        (0, "limits.password_threads", "half of the cores"),
        (1, "issuer", "http://` and the first address"),
        (1, "client_certificate.proxies", "the single ones of `trusted_proxies"),
    ] {
        parts[part].1.insert(name.to_owned(), text.to_owned());
    }
    for (change, defaults) in parts {
        let documented: BTreeMap<_, _> = settings()
            .iter()
            .filter(|setting| setting.change == change)
            .map(|setting| (setting.name.to_owned(), setting.default.to_owned()))
            .collect();
        assert_eq!(documented, defaults, "{change}");
    }
}

#[test]
fn the_table_lists_exactly_the_registry_fields() {
    let check = |entry: &str| {
        let home = Home::new();
        home.write("clients.json", &format!("{{\"clients\": [{entry}]}}"));
        (expected(&home, &["check"]), run(home.command(&["check"])).stderr)
    };
    let (fields, _) = check(r#"{"client_id": "a", "unheard": 1}"#);
    assert!(fields.len() > 20, "{fields:?}");
    let mut accepted: BTreeSet<_> = fields.into_iter().collect();
    // The values of these fields consist of objects. The error about an unknown member lists the
    // known members.
    for (field, value) in [("secrets", "[{\"unheard\": 1}]"), ("rate_limit", "{\"unheard\": 1}")] {
        let (_, said) = check(&format!("{{\"client_id\": \"a\", \"{field}\": {value}}}"));
        let inside = said.split(['{', '}']).nth(1).unwrap_or_else(|| panic!("{said}"));
        let names = inside.split(',').map(|name| name.split(':').next().unwrap());
        accepted
            .extend(names.map(|name| format!("{field}.{}", name.trim().trim_matches(['"', '?']))));
    }
    let documented: Vec<_> = rows("Registry fields").iter().map(|row| row[0].to_owned()).collect();
    let unique: BTreeSet<_> = documented.iter().cloned().collect();
    assert_eq!(unique.len(), documented.len(), "one stands there twice");
    assert_eq!(unique, accepted);
}
