//! The dependencies: the rules of `deny.toml`, and the bill of materials.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{Ended, cargo, installed, run, run_with_input, succeed};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs cargo-deny with these rules. The advisories need their database, which is fetched with git.
fn deny(rules: &Path) -> Ended {
    let mut deny = Command::new(installed("packaging/bin/cargo-deny"));
    deny.args(["--locked", "--config"]).arg(rules);
    run(deny.args(["check", "bans", "licenses", "sources"]).current_dir(ROOT))
}

#[test]
fn the_dependencies_follow_the_rules() {
    let ended = deny(&Path::new(ROOT).join("deny.toml"));
    assert!(ended.code == Some(0), "{}{}", ended.stdout, ended.stderr);

    let rules = fs::read_to_string(Path::new(ROOT).join("deny.toml")).unwrap();
    let directory = TempDir::new().unwrap();
    for (right, wrong, says) in [
        ("\"Zlib\"", "\"0BSD\"", "license-not-encountered"),
        ("\"ISC\", ", "", "rejected"),
        ("{ crate = \"syn@2\"", "{ crate = \"serde@0\"", "duplicate"),
        ("\"https://github.com/rust-lang/crates.io-index\"", "", "source-not-allowed"),
    ] {
        assert!(rules.contains(right), "{right}");
        let file = directory.path().join("deny.toml");
        fs::write(&file, rules.replace(right, wrong)).unwrap();
        let ended = deny(&file);
        let said = ended.stdout + &ended.stderr;
        assert!(ended.code != Some(0) && said.contains(says), "{says} is not in {said}");
    }
}

/// Prints the bill of materials of the program.
fn sbom(time: &str) -> String {
    let mut make = Command::new(Path::new(ROOT).join("packaging/sbom"));
    succeed(make.env("SOURCE_DATE_EPOCH", time))
}

fn validate(sbom: &str) -> Ended {
    let mut python = Command::new(installed("packaging/bin/python"));
    python.arg(Path::new(ROOT).join("tests/packaging/valid_sbom.py"));
    run_with_input(python, sbom)
}

#[test]
fn the_bill_of_materials_is_valid_and_the_same_each_time() {
    let text = sbom("1790000000");
    validate(&text).assert_fine();
    let ended = validate(&text.replace("\"required\"", "\"needed\""));
    assert!(ended.code == Some(1) && ended.stderr.contains("'needed'"), "{ended:?}");
    assert!(text.contains("\"timestamp\": \"2026-09-21T14:13:20Z\""), "{text}");
    assert_eq!(sbom("1790000000"), text);
    assert_ne!(sbom("1790000001"), text);
}

/// The crates of `components` with this scope, as name and version.
fn crates(sbom: &Value, scope: &str) -> BTreeSet<(String, String)> {
    let components = sbom["components"].as_array().unwrap().iter();
    let text = |component: &Value, name: &str| component[name].as_str().unwrap().to_owned();
    let of_scope = components.filter(|component| component["scope"] == scope);
    of_scope.map(|component| (text(component, "name"), text(component, "version"))).collect()
}

/// Each linked crate has a line, whose numbers are those of texts.
#[test]
fn the_notices_have_the_texts_of_every_linked_crate() {
    let notices = || succeed(&mut Command::new(Path::new(ROOT).join("packaging/notices")));
    let printed = notices();
    assert_eq!(notices(), printed);
    let (list, texts) = printed.split_once(&format!("\n\n{}\n", "=".repeat(100))).unwrap();
    let texts: BTreeMap<_, _> = texts
        .split(&format!("\n{}\n", "=".repeat(100)))
        .map(|text| text.strip_prefix('[').unwrap().split_once("]\n\n").unwrap())
        .collect();
    let lines = list.rsplit("\n\n").next().unwrap().lines();
    let packages: BTreeMap<_, _> = lines
        .map(|line| {
            let (name, rest) = line.split_once(": ").unwrap();
            let (license, numbers) = rest.strip_suffix(']').unwrap().split_once(" [").unwrap();
            let texts: Vec<_> = numbers.split(", ").map(|number| texts[number]).collect();
            assert!(texts.iter().all(|text| !text.trim().is_empty()), "{line}");
            (name, (license, texts.concat()))
        })
        .collect();
    let sbom: Value = serde_json::from_str(&sbom("1790000000")).unwrap();
    for (name, version) in crates(&sbom, "required") {
        assert!(packages.contains_key(&*format!("{name} {version}")), "{name} {version}");
    }
    // A text of a licence that demands it, and one that stands below the directory of a crate.
    for (package, license, says) in [
        ("subtle 2", "BSD-3-Clause", "Copyright (c) 2016-2017 Isis Agora Lovecruft"),
        ("ring 0", "Apache-2.0 AND ISC", "Copyright 2015-2020 the fiat-crypto authors"),
        ("aws-lc-sys 0", "ISC AND", "The OpenSSL Project"),
        ("rsa-x8 0", "MIT OR Apache-2.0", "The grantd authors"),
        ("Rust standard library 1", "(MIT OR Apache-2.0)", "The Rust Project"),
        ("GNU C Library 2", "LGPL-2.1", "GNU LESSER GENERAL PUBLIC LICENSE"),
    ] {
        let (_, (of, texts)) =
            packages.iter().find(|(name, _)| name.starts_with(package)).expect(package);
        assert!(of.starts_with(license) && texts.contains(says), "{package}: {of}\n{texts}");
    }
}

/// The crates that `cargo tree` shows along these edges, without the program itself.
fn tree(edges: &str) -> BTreeSet<(String, String)> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--prefix", "none", "--format", "{p}", "--edges", edges]);
    let printed = succeed(&mut tree);
    let crates = printed.lines().map(|line| {
        let mut words = line.split(' ');
        let [name, version] = [(); 2].map(|()| words.next().unwrap());
        (name.to_owned(), version.trim_start_matches('v').to_owned())
    });
    crates.filter(|(name, _)| name != "grantd").collect()
}

#[test]
fn the_bill_of_materials_names_every_crate_of_the_program() {
    let sbom: Value = serde_json::from_str(&sbom("1790000000")).unwrap();
    let own = &sbom["metadata"]["component"];
    assert_eq!(
        (&own["name"], &own["version"]),
        (&"grantd".into(), &env!("CARGO_PKG_VERSION").into())
    );
    let [linked, others] = ["required", "excluded"].map(|scope| crates(&sbom, scope));
    assert_eq!(linked, tree("normal,no-proc-macro"));
    let all: BTreeSet<_> = linked.union(&others).cloned().collect();
    assert_eq!(all, tree("normal,build"));

    // The debug information of the program names the source files of most crates.
    let program = fs::read(env!("CARGO_BIN_EXE_grantd")).unwrap();
    let text = String::from_utf8_lossy(&program);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let sources = text.split("/registry/src/").skip(1).filter_map(|path| path.split('/').nth(1));
    let sources = sources.filter_map(|crate_| crate_.split(|c| !is_of_name(c)).next());
    let sources: BTreeSet<_> = sources.map(str::to_owned).collect();
    assert!(sources.len() > 50, "{sources:?}");
    let names: BTreeSet<_> =
        linked.iter().map(|(name, version)| format!("{name}-{version}")).collect();
    assert!(sources.is_subset(&names), "{:?}", sources.difference(&names));

    // Each crate of the registry has the checksum that the lock file has.
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let checksums = lock.split("[[package]]").skip(1).map(|package| {
        let value = |name: &str| {
            let start = format!("{name} = \"");
            package.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
        };
        (format!("{}@{}", value("name").unwrap(), value("version").unwrap()), value("checksum"))
    });
    let checksums: BTreeMap<_, _> = checksums.collect();
    for component in sbom["components"].as_array().unwrap() {
        let crate_ = component["bom-ref"].as_str().unwrap().strip_prefix("pkg:cargo/").unwrap();
        let hash = component["hashes"][0]["content"].as_str();
        assert_eq!(hash, checksums[crate_], "{crate_}");
        assert_eq!(hash.is_none(), crate_.starts_with("rsa-x8@"), "{crate_}");
        assert_eq!(hash.is_none(), component["purl"].is_null(), "{crate_}");
        assert!(component["licenses"][0]["expression"].is_string(), "{crate_}");
    }
}
