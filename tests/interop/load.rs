//! The load generators' scripts, each run against the real program with both encodings.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::cargo;
use crate::support::{DEMO, Encoding, Home, Program, Request, TOKEN};

const ENCODINGS: [&str; 2] = ["urlencoded", "multipart"];

const SCRIPTS: [&str; 4] = ["autocannon", "hey", "oha", "wrk"];

/// The number of answers by status.
type Statuses = BTreeMap<String, u64>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the search path with the directory of the pinned tools in front.
fn search_path() -> String {
    format!("{}:{}", root().join("target/load/bin").display(), std::env::var("PATH").unwrap())
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("it starts");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let text = format!("{out}\n{err}");
    (output, text)
}

/// Runs one script for a second over four connections and returns its report.
#[track_caller]
fn run(script: &str, encoding: &str, program: &Program, more: &[&str]) -> String {
    let url = format!("http://{}{TOKEN}", program.address);
    let mut command = Command::new(root().join("benches/load").join(script));
    command.args([encoding, "1", "4", &url]).args(more).env("PATH", search_path());
    let (output, text) = output(&mut command);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Runs one script with each encoding. Every answer that the tool counts must have status 200, and
/// the server must have issued at least that number of tokens.
#[track_caller]
fn only_tokens(script: &str, more: &[&str], statuses: fn(&str) -> Statuses) {
    let program = Program::start(Home::new(), &[]);
    for encoding in ENCODINGS {
        let before = program.issued();
        let report = run(script, encoding, &program, more);
        let statuses = statuses(&report);
        assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{report}");
        let counted = statuses["200"];
        let issued = program.issued() - before;
        assert!(0 < counted && counted <= issued, "{counted} of {issued}\n{report}");
    }
}

/// `wrk`'s scripts for validation and introspection: every answer says that the token is valid, and
/// the server counts the requests.
#[test]
fn wrk_scripts_about_a_token_get_valid_answers_only() {
    let program = Program::start(Home::new(), &[]);
    let answer = program.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    for (script, outcome) in [("validate", "served"), ("introspect", "introspected")] {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c4", "-d1s", "-s"]);
        wrk.arg(root().join("benches/load").join(script).with_extension("lua"));
        wrk.arg(format!("http://{}/connect/{script}", program.address));
        let (output, text) = output(wrk.env("TOKEN", answer["access_token"].as_str().unwrap()));
        assert!(output.status.success(), "{text}");
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        let good = format!(r#"outcome="{outcome}",route="{script}"}}"#);
        let metrics = program.metrics();
        let counted =
            metrics.lines().find_map(|line| line.split_once(&good)?.1.trim().parse().ok());
        assert!(counted.is_some_and(|count: u64| count > 0), "{metrics}");
    }
}

/// Parses the lines below the headings of `hey` and `oha`, such as `[200] 31 responses`, up to the
/// first line that does not have this form. Errors are below a separate heading, because a request
/// without an answer has no status.
fn bracketed(report: &str) -> Statuses {
    let mut statuses = Statuses::new();
    for heading in ["Status code distribution:\n", "Error distribution:\n"] {
        let Some((_, lines)) = report.split_once(heading) else { continue };
        for line in lines.lines() {
            let Some((first, rest)) = line.trim().strip_prefix('[').and_then(|l| l.split_once(']'))
            else {
                break;
            };
            // In a line about an error, the count is in the brackets.
            let (status, count) = match rest.trim().strip_suffix(" responses") {
                Some(count) => (first, count),
                None => (rest, first),
            };
            *statuses.entry(status.to_owned()).or_default() += count.trim().parse::<u64>().unwrap();
        }
    }
    statuses
}

/// Parses `wrk`'s report, which does not name statuses. If some answers had a status other than
/// 2xx, one line of the report has their number. If a socket failed, another line says so.
fn of_wrk(report: &str) -> Statuses {
    let number = |line: &str| line.split_whitespace().find_map(|word| word.parse().ok());
    let mut statuses = Statuses::new();
    for line in report.lines() {
        if line.contains(" requests in ") {
            statuses.insert("200".to_owned(), number(line).unwrap());
        } else if line.contains("Non-2xx") || line.contains("Socket errors") {
            statuses.insert(line.trim().to_owned(), 1);
        }
    }
    statuses
}

/// Parses autocannon's report. It has a table of statuses and, if there were errors, a line with
/// the number of errors.
fn of_autocannon(report: &str) -> Statuses {
    let table = report.split_once("│ Code │ Count").expect("a table of codes").1;
    let rows = table.lines().take_while(|line| !line.starts_with('└'));
    let cells = rows.filter_map(|row| row.strip_prefix('│')?.strip_suffix('│')?.split_once('│'));
    let mut statuses: Statuses = cells
        .filter_map(|(code, count)| Some((code.trim().to_owned(), count.trim().parse().ok()?)))
        .collect();
    if let Some(errors) = table.lines().find(|line| line.contains("errors")) {
        statuses.insert(errors.to_owned(), 1);
    }
    statuses
}

#[test]
fn wrk_gets_only_tokens() {
    only_tokens("wrk", &[], of_wrk);
}

#[test]
fn hey_gets_only_tokens() {
    only_tokens("hey", &[], bracketed);
}

#[test]
fn autocannon_gets_only_tokens() {
    only_tokens("autocannon", &[], of_autocannon);
}

#[test]
fn oha_gets_only_tokens() {
    only_tokens("oha", &[], bracketed);
}

#[test]
fn oha_gets_only_tokens_at_a_rate() {
    only_tokens("oha", &["50"], bracketed);
}

/// The parsers above find refusals in every tool's report.
#[test]
fn refusals_are_recognised_in_every_report() {
    let program = Program::shared();
    let url = format!("http://{}/nowhere", program.address);
    for (script, statuses) in
        [("wrk", of_wrk as fn(&str) -> _), ("hey", bracketed), ("oha", bracketed)]
            .into_iter()
            .chain([("autocannon", of_autocannon as fn(&str) -> _)])
    {
        let mut command = Command::new(root().join("benches/load").join(script));
        command.args(["urlencoded", "1", "1", &url]).env("PATH", search_path());
        let (_, report) = output(&mut command);
        let statuses: Statuses = statuses(&report);
        assert!(statuses.keys().any(|status| status != "200"), "{report}");
    }
}

#[test]
fn invalid_arguments_are_refused() {
    for script in SCRIPTS {
        for (arguments, said) in [
            (&["json"][..], "'json' is no encoding"),
            (&["multipart", "0"], "seconds must be"),
            (&["multipart", "1.5"], "seconds must be"),
            (&["multipart", "1", "many"], "connections must be"),
        ] {
            let mut command = Command::new(root().join("benches/load").join(script));
            let (output, text) = output(command.args(arguments).env("PATH", search_path()));
            assert_eq!(output.status.code(), Some(2), "{command:?} {text}");
            assert!(text.contains(said), "{command:?} {text}");
        }
    }
}

/// Runs the scripts from a copy of their directory. There is no `target` with installed tools
/// beside the copy.
#[test]
fn a_missing_tool_is_named_with_its_source() {
    let elsewhere = TempDir::new().unwrap();
    let load: PathBuf = elsewhere.path().join("benches/load");
    fs::create_dir_all(&load).unwrap();
    for file in fs::read_dir(root().join("benches/load")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), load.join(file.file_name())).unwrap();
    }
    for (script, source) in [
        ("autocannon", "npm ci"),
        ("hey", "apt-get install hey"),
        ("oha", "cargo install oha --locked"),
        ("wrk", "apt-get install wrk"),
    ] {
        let (output, text) = output(Command::new(load.join(script)).env("PATH", "/nowhere"));
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("{script} is neither")) && text.contains(source), "{text}");
    }
}

/// The lock file pins hashes and names no registry, because users choose their registry.
#[test]
fn the_lock_file_names_no_registry() {
    let lock = fs::read_to_string(root().join("benches/load/package-lock.json")).unwrap();
    assert!(lock.contains("\"integrity\": \"sha512-") && !lock.contains("\"resolved\""));
}

/// Runs the program that signs assertions and proofs, with the command of the load README, but
/// without `--release`.
fn signed(directory: &Path, arguments: &[&str]) {
    let mut run = cargo();
    run.args(["run", "--locked", "--quiet", "--example", "signed", "--"]).args(arguments);
    let (output, text) = output(run.env("SIGNED", directory));
    assert!(output.status.success(), "{text}");
}

/// Each assertion and each proof may be used only once. `wrk` uses none of them twice, so every
/// request gets a token.
#[test]
fn assertions_and_proofs_signed_beforehand_get_only_tokens() {
    let home = Home::new();
    let directory = home.path("signed");
    signed(&directory, &["client"]);
    fs::copy(directory.join("clients.json"), home.clients()).unwrap();
    home.write_uses();
    let program = Program::start(home, &[]);
    let url = format!("http://{}{TOKEN}", program.address);
    for (what, label) in [("assertion", "assertion"), ("dpop", "dpop")] {
        signed(&directory, &[what, "300", &url]);
        let before = program.issued();
        let mut command = Command::new(root().join("benches/load/wrk"));
        command.args([what, "2", "4", &url]).env("PATH", search_path()).env("SIGNED", &directory);
        let (output, text) = output(&mut command);
        assert!(output.status.success(), "{label}: {text}");
        assert!(text.starts_with("wrk: without token_reuse"), "{text}");
        let statuses = of_wrk(&text);
        assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{text}");
        let issued = program.issued() - before;
        assert!((200..=300).contains(&issued), "{issued} of 300\n{text}");
    }
    // Only `wrk`'s scripts read the files of assertions and proofs.
    let (output, text) = output(Command::new(root().join("benches/load/hey")).arg("dpop"));
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("'dpop' is for wrk"), "{text}");
    let elsewhere = TempDir::new().unwrap();
    let mut command = Command::new(root().join("benches/load/wrk"));
    let (output, text) = self::output(command.arg("assertion").env("SIGNED", elsewhere.path()));
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cargo run --release --example signed -- assertion"), "{text}");
}

/// The first line of each report says whether tokens are reused, because the rate of reused tokens
/// is not comparable with that of new tokens.
#[test]
fn the_first_line_says_whether_tokens_are_reused() {
    let home = Home::new();
    let shipped = fs::read_to_string(home.clients()).unwrap();
    let mut registry: Value = serde_json::from_str(&shipped).unwrap();
    registry["clients"][0]["token_reuse"] = 600.into();
    home.write("reuse.json", &registry.to_string());
    let reusing = Program::start(home, &["--clients", "reuse.json"]);
    let fresh = Program::shared();
    for script in SCRIPTS {
        for (program, says) in
            [(&reusing, "with token_reuse: "), (&*fresh, "without token_reuse: ")]
        {
            let report = run(script, "multipart", program, &[]);
            assert!(report.starts_with(&format!("{script}: {says}")), "{report}");
        }
        let url = format!("http://{}/nowhere", fresh.address);
        let mut command = Command::new(root().join("benches/load").join(script));
        command.args(["urlencoded", "1", "1", &url]).env("PATH", search_path());
        let (_, report) = output(&mut command);
        assert!(report.starts_with(&format!("{script}: the first answer was 404")), "{report}");
    }
}

#[test]
fn too_few_descriptors_are_reported_before_the_load() {
    for script in SCRIPTS {
        let path = root().join("benches/load").join(script);
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 64; exec \"$0\" urlencoded 1 64"]).arg(path);
        let (output, text) = output(shell.env("PATH", search_path()));
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("ulimit -n 96"), "{text}");
    }
}
