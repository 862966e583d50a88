//! The tables of settings and of registry fields, compared with what the program accepts: an error
//! about an unknown name lists all known names.

use std::collections::{BTreeMap, BTreeSet};

use grantd::config::{Config, FailureLimits, Limits};

use crate::support::Home;
use crate::support::command::run;

const TABLES: &str = include_str!("../../docs/settings.md");

/// The rows of the table below a heading; each cell without its backquotes.
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

/// The names that this command's error says it expected.
fn expected(home: &Home, arguments: &[&str]) -> Vec<String> {
    let stderr = run(home.command(arguments)).stderr;
    match stderr.split_once("expected ") {
        Some((_, names)) if stderr.contains("unknown field") => {
            names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Every setting of the configuration file; those of its tables by their path.
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
        let inside = [format!("[{name}]\nunheard = 1"), format!("[[{name}]]\nunheard = 1")];
        let inside: BTreeSet<_> = inside.iter().flat_map(|toml| of(toml)).collect();
        if inside.is_empty() {
            settings.insert(name);
        } else {
            settings.extend(inside.iter().map(|field| format!("{name}.{field}")));
        }
    }
    settings
}

#[test]
fn the_table_lists_exactly_the_settings() {
    let documented: Vec<_> =
        rows("Settings").iter().map(|row| row[0]).filter(|it| !it.is_empty()).collect();
    let unique: BTreeSet<_> = documented.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(unique.len(), documented.len(), "one stands there twice");
    assert_eq!(unique, accepted_settings());
}

#[test]
fn the_table_lists_exactly_the_flags_and_variables() {
    let home = Home::new();
    let help = run(home.command(&["serve", "--help"])).stdout;
    let mut flags = BTreeMap::new();
    let mut last = String::new();
    for line in help.lines().map(str::trim_start) {
        if let Some(flag) =
            line.split(' ').find(|word| word.starts_with("--")).filter(|_| line.starts_with('-'))
        {
            // An optional value follows its flag without a space.
            flag.split('[').next().unwrap().clone_into(&mut last);
        }
        if let Some((_, variable)) = line.split_once("[env: ") {
            flags.insert(last.clone(), variable.split('=').next().unwrap().to_owned());
        }
    }
    assert!(flags.len() > 10, "{help}");
    let documented: BTreeMap<_, _> = rows("Settings")
        .iter()
        .filter(|row| !row[1].is_empty())
        .map(|row| (row[1].to_owned(), row[2].to_owned()))
        .collect();
    assert_eq!(documented, flags);
}

/// Defaults that are a number or a word are compared.
#[test]
fn every_default_in_the_table_is_true() {
    let Config { jwks_max_age, dpop_nonce, allow_demo_clients, admin_listen, listen, .. } =
        Config::default();
    let Config { clients, keys, state, client_certificate, .. } = Config::default();
    let mut defaults = BTreeMap::from([
        ("jwks_max_age".to_owned(), jwks_max_age.to_string()),
        ("dpop_nonce".to_owned(), dpop_nonce.to_string()),
        ("allow_demo_clients".to_owned(), allow_demo_clients.to_string()),
        ("admin_listen".to_owned(), admin_listen.to_string()),
        ("listen".to_owned(), listen[0].to_string()),
        ("clients".to_owned(), clients.display().to_string()),
        ("keys".to_owned(), keys.display().to_string()),
        ("state".to_owned(), state.display().to_string()),
        ("client_certificate.verify_header".to_owned(), client_certificate.verify_header),
        ("client_certificate.certificate_header".to_owned(), client_certificate.certificate_header),
    ]);
    // `Limits { body_bytes: 16384, … }`
    for (table, shown) in [
        ("limits", format!("{:?}", Limits::default())),
        ("failures", format!("{:?}", FailureLimits::default())),
    ] {
        let fields = shown.split(['{', '}']).nth(1).unwrap().split(", ");
        for (name, value) in fields.filter_map(|field| field.trim().split_once(": ")) {
            defaults.insert(format!("{table}.{name}"), value.to_owned());
        }
    }
    // This default depends on the machine.
    defaults.insert("limits.password_threads".to_owned(), "half of the cores".to_owned());
    let documented: BTreeMap<_, _> =
        rows("Settings").iter().map(|row| (row[0].to_owned(), row[3].to_owned())).collect();
    for (name, value) in defaults {
        assert_eq!(documented.get(&name), Some(&value), "{name}");
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
    // These fields are objects; their errors list the members.
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
