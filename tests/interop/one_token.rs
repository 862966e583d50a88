//! The files that one token passes through, as `docs/architecture.md` lists them.
//!
//! valgrind's callgrind records which lines the server runs. It knows neither AVX-512 nor the clock
//! that rustix reads, so the traced program has the batch signer in plain code and calls libc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::command::{cargo, succeed};
use crate::support::{DEMO, Encoding, Home, Program, Request};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

#[test]
fn one_request_enters_every_file_listed_for_a_token() {
    let listed = listed();
    assert!((10..=24).contains(&listed.len()), "{} files: {listed:?}", listed.len());
    for file in &listed {
        let lines = fs::read_to_string(format!("{SOURCE}{file}")).unwrap().lines().count();
        assert!(lines <= 500, "{file} has {lines} lines");
    }

    let home = Home::new();
    let trace = home.path("trace");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .current_dir(home.path("."))
        .args(["--quiet", "--tool=callgrind", "--instr-atstart=no"])
        .arg(format!("--log-file={}", home.path("valgrind.log").display()))
        .arg(format!("--callgrind-out-file={}", trace.display()))
        .arg(traced_program());
    let server = Program::start_by(home, valgrind, &["--signer", "batch"]);
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let control = |arguments: &[&str]| {
        let server = server.id().to_string();
        succeed(Command::new("callgrind_control").args(arguments).arg(server));
    };
    // The first request fills what is filled once.
    assert_eq!(server.ask(&request).status, 200);
    control(&["-i", "on"]);
    assert_eq!(server.ask(&request).status, 200);
    control(&["-d"]);

    let entered = entered_in(&fs::read_to_string(trace.with_extension("1")).unwrap());
    let missing: Vec<_> = listed.difference(&entered).collect();
    assert!(missing.is_empty(), "not entered: {missing:?}; entered: {entered:?}");
    for other in ["dialect/vision.rs", "form/multipart.rs", "oauth/client_assertion.rs"] {
        assert!(!entered.contains(other), "{other} is entered, so the trace shows too much");
    }
}

/// Returns the files that `docs/architecture.md` lists: the first block after the numbered steps.
fn listed() -> BTreeSet<String> {
    let text = include_str!("../../docs/architecture.md");
    let (_, after) = text.split_once("tests/interop/one_token.rs").unwrap();
    after.split("```").nth(1).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Builds the program that valgrind can run, and returns its path.
fn traced_program() -> std::path::PathBuf {
    let features = "rsa-x8/portable,rustix/use-libc";
    let build = ["build", "--locked", "--quiet", "--example", "traced", "--features", features];
    succeed(cargo().args(build));
    Path::new(env!("CARGO_BIN_EXE_grantd")).with_file_name("examples").join("traced")
}

/// Returns the files of `src` of which a trace has lines that were run. A trace gives each file a
/// number where it names the file first: `fl=(7) /path/to/src/clock.rs`, and then `fl=(7)`.
fn entered_in(trace: &str) -> BTreeSet<String> {
    let mut names = BTreeMap::new();
    let (mut file, mut entered) = ("", BTreeSet::new());
    for line in trace.lines() {
        let is_cost =
            line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first));
        if is_cost {
            entered.extend(file.strip_prefix(SOURCE).map(str::to_owned));
        }
        let Some((key, value)) = line.split_once("=(") else { continue };
        if !["fl", "fi", "fe", "cfi", "cfl"].contains(&key) {
            continue;
        }
        let (number, name) = value.split_once(')').unwrap();
        if !name.is_empty() {
            names.insert(number, name.trim_start());
        }
        if key.starts_with('f') {
            file = names[number];
        }
    }
    entered
}
