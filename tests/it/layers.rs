//! Dependencies point one way: no module uses a module on a higher layer, and no two files depend on
//! each other. The tests read the dependencies from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module with its layer. A module may use modules on lower layers only.
const LAYERS: [(&str, u8); 28] = [
    ("main", 11),
    ("lib", 11),
    ("cli", 10),
    ("server", 9),
    ("http", 8),
    ("page", 7),
    ("dialect", 6),
    ("endpoint", 5),
    ("store", 5),
    ("snapshot", 4),
    ("guard", 3),
    ("issuer", 3),
    ("registry", 3),
    ("state", 3),
    ("keys", 2),
    ("oauth", 2),
    ("signing", 2),
    ("clock", 1),
    ("config", 1),
    ("fault", 1),
    ("form", 1),
    ("fs", 1),
    ("jose", 1),
    ("random", 1),
    ("telemetry", 1),
    ("cache", 0),
    ("tally", 0),
    ("time", 0),
];

/// The allowed dependencies between modules of the same layer. They form no cycle.
const SIDEWAYS: [(&str, &str); 9] = [
    ("registry", "issuer"),
    ("registry", "state"),
    ("state", "guard"),
    ("keys", "signing"),
    ("config", "fault"),
    ("tally", "time"),
    ("telemetry", "clock"),
    ("telemetry", "config"),
    ("telemetry", "fs"),
];

/// Modules that work only on the values passed to them. They must not use a name in [`IMPURE`].
const PURE: [&str; 3] = ["form", "jose", "oauth"];
const IMPURE: [&str; 10] = [
    "hyper",
    "tokio",
    "std::fs",
    "std::net",
    "SystemTime",
    "Instant",
    "Mutex",
    "RwLock",
    "atomic",
    "parking_lot",
];

/// The only modules that may name `hyper` and `tokio`.
const NETWORKED: [&str; 4] = ["cli", "http", "server", "store"];
/// Modules that may name `tokio::sync`, which needs no runtime, and nothing else of `tokio`.
const SYNCHRONIZED: [&str; 3] = ["guard", "signing", "state"];
/// The only module that may name `tokio::time::timeout`: no request waits for a disk that hangs.
const TIMED: &str = "state";

#[test]
fn no_module_uses_one_on_a_higher_layer() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (module, file, text) in sources() {
        seen.insert(module.clone());
        faults
            .extend(faults_of(&module, &text).into_iter().map(|fault| format!("{file}: {fault}")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let known: BTreeSet<_> = LAYERS.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(seen, known, "the table of layers and the source differ");
}

#[test]
fn the_scanner_finds_planted_edges() {
    for (module, text, fault) in [
        ("oauth", "use crate::http::service::Service;", "oauth uses http"),
        ("oauth", "pub(crate) use crate::snapshot;", "oauth uses snapshot"),
        ("oauth", "use crate::{form, issuer::TokenId};", "oauth uses issuer"),
        ("oauth", "use crate::{\n    form::{self},\n    dialect,\n};", "oauth uses dialect"),
        ("form", "fn f() { crate::oauth::scope::grant(); }", "form uses oauth"),
        ("issuer", "use crate::snapshot;", "issuer uses snapshot"),
        ("jose", "use tokio::sync::oneshot;", "jose names tokio"),
        ("form", "let file = std::fs::read(path);", "form names std::fs"),
        ("oauth", "use std::time::{Duration, SystemTime};", "oauth names SystemTime"),
        ("oauth", "let now = Instant::now();", "oauth names Instant"),
        ("oauth", "use std::sync::{Arc, Mutex};", "oauth names Mutex"),
        ("jose", "use std::sync::RwLock;", "jose names RwLock"),
        ("form", "use std::sync::atomic::AtomicU64;", "form names atomic"),
        ("oauth", "struct Used(parking_lot::RawMutex);", "oauth names parking_lot"),
        ("state", "use tokio::net::TcpStream;", "state names tokio"),
        ("dialect", "use hyper::Method;", "dialect names hyper"),
        ("dialect", "use tokio::sync::oneshot;", "dialect names tokio"),
        ("guard", "use tokio::sync::oneshot;\nuse tokio::net::TcpStream;", "guard names tokio"),
        ("signing", "use tokio::{net, sync};", "signing names tokio"),
        ("jose", "use crate::form;", "jose uses form"),
        ("cli", "use crate::novelty::Thing;", "novelty has no layer"),
        ("novelty", "", "novelty has no layer"),
        ("jose", "#[cfg(test)]\nmod tests {\n}\n\nuse crate::cli;\n", "jose uses cli"),
    ] {
        assert_eq!(faults_of(module, text), [fault], "{text}");
    }
    for (module, text) in [
        ("oauth", "use crate::form::parameters::Parameters;\nuse crate::oauth::error::Cause;"),
        ("registry", "use crate::issuer::RESERVED_CLAIMS;"),
        ("oauth", "/// As [`crate::http`] and tokio do.\n// crate::cli\n"),
        ("oauth", "#[cfg(test)]\nmod tests {\n    use crate::cli;\n    use tokio::net;\n}\n"),
        ("form", "struct InstantCoffee;"),
        ("http", "use hyper::Request;\nuse tokio::net::TcpStream;"),
        ("guard", "use tokio::sync::oneshot;"),
    ] {
        assert_eq!(faults_of(module, text), [] as [&str; 0], "{text}");
    }
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let files = sources().into_iter().map(|(_, file, text)| (module_of(&file), text)).collect();
    let circles = circles_in(&files);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_scanner_finds_planted_circles() {
    let circles = |files: &[(&str, &str)]| {
        let owned = |(module, text): &(&str, &str)| ((*module).to_owned(), (*text).to_owned());
        circles_in(&files.iter().map(owned).collect())
    };
    let planted: [&[(&str, &str)]; 7] = [
        &[("a", "use crate::b::B;"), ("b", "use crate::{c, a::{A, X}};")],
        &[("a", "use crate::b;"), ("b", "use crate::c::C;"), ("c", "fn f() { crate::a::f() }")],
        &[("a", "mod b;\nuse b::B;"), ("a::b", "use super::A;")],
        &[("a", "mod b;\npub use self::b::B;"), ("a::b", "use super::{A, X};")],
        &[("a", "mod b;\nfn f() { b::f() }"), ("a::b", "use crate::a::A;")],
        &[("a::b", "use super::c::C;"), ("a::c", "fn f() { super::b::f() }"), ("a", "")],
        &[
            ("a", "use crate::a::b::B;"),
            ("a::b", "use crate::{a::b::c};"),
            ("a::b::c", "super::super::f()"),
        ],
    ];
    for files in planted {
        let [circle] = &circles(files)[..] else { panic!("{files:?}") };
        let members = files.iter().map(|(module, _)| (*module).to_owned());
        assert!(circle.is_subset(&members.collect()) && circle.len() > 1, "{circle:?}");
    }
    for files in [
        &[("a", "mod b;\nuse b::B;"), ("a::b", "use super::super::c;"), ("c", "")][..],
        &[("a", "pub mod b;"), ("a::b", "use crate::a::A;")],
        &[("a", "// use crate::b;\nuse x::crate::b;"), ("b", "use crate::a;")],
        &[("a", "#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n"), ("b", "use crate::a;")],
    ] {
        assert_eq!(circles(files), [], "{files:?}");
    }
}

/// Returns the module that a file of the source contains.
fn module_of(file: &str) -> String {
    file.trim_end_matches(".rs").replace('/', "::")
}

/// Returns each largest set of modules that all depend on each other. The modules are given with
/// their text. A module that only declares another one (`mod child;`) does not depend on it.
fn circles_in(files: &BTreeMap<String, String>) -> Vec<BTreeSet<String>> {
    let edges: BTreeMap<_, _> =
        files.iter().map(|(module, text)| (module, uses(module, text, files))).collect();
    let reached: BTreeMap<_, _> = edges
        .keys()
        .map(|start| {
            let (mut reached, mut next) = (BTreeSet::new(), vec![*start]);
            while let Some(module) = next.pop() {
                next.extend(edges[module].iter().filter(|used| reached.insert(**used)));
            }
            (*start, reached)
        })
        .collect();
    let circle_of = |module: &&String| -> BTreeSet<String> {
        let all = reached[*module].iter();
        all.filter(|other| reached[**other].contains(*module)).map(|it| (*it).clone()).collect()
    };
    let circles: BTreeSet<_> = edges.keys().map(circle_of).filter(|all| !all.is_empty()).collect();
    circles.into_iter().collect()
}

/// Returns the modules, other than itself, that a module names.
fn uses<'f>(module: &str, text: &str, files: &'f BTreeMap<String, String>) -> BTreeSet<&'f String> {
    let code = without_tests(text);
    let children = code.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'));
    let mut named = BTreeSet::new();
    for first in children.chain(["crate", "self", "super"]) {
        for path in paths(&code, first) {
            let mut from: Vec<_> = module.split("::").collect();
            for name in path.split("::") {
                match name {
                    "crate" => from.clear(),
                    "self" => {}
                    "super" => drop(from.pop()),
                    name => from.push(name),
                }
            }
            let known = (1..=from.len())
                .rev()
                .find_map(|names| files.get_key_value(&from[..names].join("::")));
            named.extend(known.map(|(used, _)| used).filter(|used| *used != module));
        }
    }
    named
}

/// Resource limits and process attributes belong to the program, so the library does not set them.
#[test]
fn only_the_command_line_sets_limits_and_attributes_of_the_process() {
    let set = ["setrlimit", "prlimit", "set_dumpable_behavior"];
    let names_one = |text: &str| set.iter().any(|name| names(&without_tests(text), name));
    let setters: BTreeSet<_> =
        sources().into_iter().filter(|(_, _, text)| names_one(text)).map(|it| it.0).collect();
    assert_eq!(setters, BTreeSet::from(["cli".to_owned()]));
}

/// Returns each source file: its top-level module, its path and its text.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 40, "these are not all: {files:?}");
    files
        .into_iter()
        // A `tests.rs` is a module of tests, as `mod tests { … }` is.
        .filter(|file| file.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|file| {
            let inner = file.strip_prefix(&root).unwrap();
            let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_owned();
            (module, inner.display().to_string(), fs::read_to_string(&file).unwrap())
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Returns the forbidden dependencies in a file of `module`.
fn faults_of(module: &str, text: &str) -> Vec<String> {
    let Some(layer) = layer_of(module) else {
        return vec![format!("{module} has no layer")];
    };
    let code = without_tests(text);
    let mut faults = Vec::new();
    for used in used_modules(&code) {
        match layer_of(&used) {
            _ if used == module => {}
            None => faults.push(format!("{used} has no layer")),
            Some(below) if below < layer => {}
            Some(_) if SIDEWAYS.contains(&(module, &used)) => {}
            Some(_) => faults.push(format!("{module} uses {used}")),
        }
    }
    let code = match SYNCHRONIZED.contains(&module) {
        true => code.replace("tokio::sync::", ""),
        false => code,
    };
    let code = if module == TIMED { code.replace("tokio::time::timeout", "") } else { code };
    let networks: &[&str] = if NETWORKED.contains(&module) { &[] } else { &["hyper", "tokio"] };
    let banned: &[&str] = if PURE.contains(&module) { &IMPURE } else { networks };
    let named = banned.iter().filter(|name| names(&code, name));
    faults.extend(named.map(|name| format!("{module} names {name}")));
    faults
}

/// Returns the code without comments and without test modules. A test module ends at the first line
/// that is only `}`, because rustfmt indents everything inside the module.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens =
            lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && opens {
            lines.by_ref().find(|line| *line == "}");
        } else if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Returns every top-level module that the code names after `crate::`.
fn used_modules(code: &str) -> BTreeSet<String> {
    let top = |path: String| path.split("::").nth(1).map(str::to_owned);
    paths(code, "crate").into_iter().filter_map(top).collect()
}

/// Returns every path in the code that begins with `first`. A path that ends in a list
/// `{a, b::c}` counts as one path for each name in the list.
fn paths(code: &str, first: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(first) {
        let rest = &code[at + first.len()..];
        if rest.starts_with("::") && !code[..at].ends_with(|c| is_name(c) || c == ':') {
            follow(first.to_owned(), rest, &mut found);
        }
    }
    found
}

/// Adds the paths that begin with `path` and continue with `rest`. Returns the text after them.
fn follow<'t>(path: String, rest: &'t str, found: &mut BTreeSet<String>) -> &'t str {
    let Some(rest) = rest.strip_prefix("::") else {
        found.insert(path);
        return rest;
    };
    let Some(mut list) = rest.strip_prefix('{') else {
        let name = name_at(rest);
        return if name.is_empty() {
            follow(path, rest, found)
        } else {
            follow(format!("{path}::{name}"), &rest[name.len()..], found)
        };
    };
    loop {
        list = list.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        let name = name_at(list);
        if name.is_empty() {
            return &list[list.len().min(1)..];
        }
        list = follow(format!("{path}::{name}"), &list[name.len()..], found);
        list = &list[list.find([',', '}']).unwrap_or(list.len())..];
    }
}

fn name_at(text: &str) -> &str {
    &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())]
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the code contains `name` as a whole word.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        !code[..at].ends_with(is_name) && !code[at + name.len()..].starts_with(is_name)
    })
}
