//! Dependencies point one way: no module uses a module on a higher layer. The test reads the
//! dependencies from the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module with its layer. A module may use modules on lower layers only.
const LAYERS: [(&str, u8); 24] = [
    ("main", 10),
    ("lib", 10),
    ("cli", 9),
    ("server", 8),
    ("http", 7),
    ("dialect", 6),
    ("endpoint", 5),
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
    ("tally", 0),
];

/// The allowed dependencies between modules of the same layer. They form no cycle.
const SIDEWAYS: [(&str, &str); 5] = [
    ("registry", "issuer"),
    ("signing", "keys"),
    ("config", "fault"),
    ("telemetry", "clock"),
    ("telemetry", "config"),
];

/// Modules that work only on the values passed to them. They must not use a name in [`IMPURE`].
const PURE: [&str; 3] = ["form", "jose", "oauth"];
const IMPURE: [&str; 6] = ["hyper", "tokio", "std::fs", "std::net", "SystemTime", "Instant"];

/// The only modules that may name `hyper` and `tokio`.
const NETWORKED: [&str; 5] = ["cli", "http", "server", "signing", "state"];

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
        ("jose", "use tokio::sync::Mutex;", "jose names tokio"),
        ("form", "let file = std::fs::read(path);", "form names std::fs"),
        ("oauth", "use std::time::{Duration, SystemTime};", "oauth names SystemTime"),
        ("oauth", "let now = Instant::now();", "oauth names Instant"),
        ("registry", "use tokio::net::TcpStream;", "registry names tokio"),
        ("dialect", "use hyper::Method;", "dialect names hyper"),
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
    ] {
        assert_eq!(faults_of(module, text), [] as [&str; 0], "{text}");
    }
}

/// Returns each source file: its top-level module, its path and its text.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 40, "these are not all: {files:?}");
    files
        .into_iter()
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

/// Returns every top-level module whose name follows `crate::` or begins a path in a list
/// `crate::{…}`.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(is_name) {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(first_names(list)),
            None => modules.extend(name_at(rest)),
        }
    }
    modules
}

/// Returns the first name of each path in a `use` list. `list` begins after the opening brace.
fn first_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut begins) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && is_name(c) => {
                names.extend(name_at(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> Option<String> {
    let name = &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())];
    (!name.is_empty()).then(|| name.to_owned())
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
