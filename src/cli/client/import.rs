//! Registers many clients at once. Each line of the input is the entry of one client. Either all
//! clients are registered or none.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::client::file::{FIRST_LABEL, RegistryArgs};
use crate::cli::error::{CliError, complain};
use crate::cli::no_token;
use crate::cli::secret;
use crate::clock::Clock;
use crate::fault::text::{self, json_problem};
use crate::fault::{Fault, Position};
use crate::oauth::client::Client;
use crate::registry::client_file::edit::NewSecret;
use crate::registry::client_file::{self, edit};

pub(super) fn import(registry: &RegistryArgs, from: &Path) -> Result<(), CliError> {
    let (name, text) = secret::read_input(from, |file| text::read(file).map(Zeroizing::new))?;
    if text.lines().nth(1).is_some() && serde_json::from_str::<IgnoredAny>(&text).is_ok() {
        let problem = "is one JSON document: write one client a line (JSON Lines), without the \
                       {\"clients\": […]} of a registry around them";
        return Err(Fault::new(name, problem).into());
    }
    let (lines, without_token) = read_lines(name, &text)?;
    let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
    let entries = hash_secrets(name, lines)?;
    drop(text);
    let told = format!("{}\n", json!({ "imported": entries.len() }));
    let ids: Vec<_> = entries.iter().filter_map(|entry| edit::id_of(entry)).collect();
    let ids: Vec<_> = ids.iter().map(|id| &**id).collect();
    let change = |path: &Path, text: Option<&str>| {
        let known = known_clients(text.unwrap_or_default());
        let again = ids.iter().zip(&numbers).filter(|(id, _)| known.contains(**id));
        let faults = again.map(|(_, number)| {
            let registry = path.display();
            let problem =
                format!("is registered in {registry} already; `grantd client update` changes it");
            Fault::new(name, problem).at_line(*number).in_field("client_id")
        });
        let mut faults: Vec<_> = faults.take(MAX_FAULTS).collect();
        if faults.len() == MAX_FAULTS {
            faults.push(Fault::new(name, "has more faults; the rest was not checked"));
        }
        if faults.is_empty() { edit::append_entries(path, text, &entries) } else { Err(faults) }
    };
    registry.open()?.edit_or_create(&ids, change, Some(&told))?;
    if let Some((id, reason)) = without_token.first() {
        let more = match without_token.len() - 1 {
            0 => String::new(),
            more => format!("; {more} more of those imported cannot either"),
        };
        complain(&format!("warning: client {id}: it can get no token: {reason}{more}"));
    }
    Ok(())
}

/// Returns the ids of the clients in the text of a registry.
fn known_clients(text: &str) -> HashSet<Cow<'_, str>> {
    edit::entries(text).into_iter().flatten().filter_map(edit::id_of).collect()
}

/// One client of the input.
struct Line {
    number: usize,
    entry: String,
    secret: Option<Zeroizing<String>>,
}

/// The ids of the clients that can get no token, each with the reason.
type WithoutToken = Vec<(Box<str>, &'static str)>;

/// Reads every line and checks it like an entry of the registry.
fn read_lines(file: &Path, text: &str) -> Result<(Vec<Line>, WithoutToken), CliError> {
    let progress = progress("checked", text.lines().count());
    let now = Clock::system().now();
    let mut lines = Vec::new();
    let mut without_token = Vec::new();
    let mut ids: HashMap<Box<str>, usize> = HashMap::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        progress.inc(1);
        if line.trim().is_empty() {
            continue;
        }
        match read_line(file, number, line) {
            Ok((client, line)) => {
                let id: Box<str> = client.id.as_str().into();
                let reason = match line.secret {
                    Some(_) => no_token::reason_if(&client, true),
                    None => no_token::reason(&client, now),
                };
                if let Some(reason) = reason {
                    without_token.push((id.clone(), reason));
                }
                if let Some(first) = ids.insert(id, number) {
                    let problem = format!("is registered on line {first} too");
                    faults.push(Fault::new(file, problem).at_line(number).in_field("client_id"));
                }
                lines.push(line);
            }
            Err(found) => faults.extend(found),
        }
        // So many faults most likely have a single cause: stop here.
        if faults.len() >= MAX_FAULTS {
            faults.push(Fault::new(file, "has more faults; the rest was not checked"));
            break;
        }
    }
    progress.finish_and_clear();
    if faults.is_empty() { Ok((lines, without_token)) } else { Err(faults.into()) }
}

const MAX_FAULTS: usize = 100;

fn read_line(file: &Path, number: usize, line: &str) -> Result<(Client, Line), Vec<Fault>> {
    let plain = edit::take_client_secret(line).map_err(|error| {
        let problem = if error.is_data() {
            "must be an object whose client_secret, if it has one, is a string".to_owned()
        } else {
            json_problem(&error)
        };
        let begin = Position { line: number, column: 1 };
        let place = Position::of_json(line, &error).within(begin);
        vec![Fault::new(file, problem).at(place)]
    })?;
    let client = client_file::check_entry(file, number, plain.entry.trim())?;
    let secret = plain.secret.map(Zeroizing::new);
    if let Some(secret) = &secret {
        let has_first = client.secrets.iter().any(|known| *known.label == *FIRST_LABEL);
        let second = has_first.then_some("would be a second secret of the label \"first\"");
        if let Some(problem) = secret::check(secret).err().or(second) {
            return Err(vec![Fault::new(file, problem).at_line(number).in_field("client_secret")]);
        }
    }
    Ok((client, Line { number, entry: plain.entry.trim().to_owned(), secret }))
}

/// Returns the entries, each with the hash of its secret. The hashes are computed on all
/// processors.
fn hash_secrets(file: &Path, mut lines: Vec<Line>) -> Result<Vec<String>, CliError> {
    let progress = progress("hashed", lines.len());
    let left = Mutex::new(lines.iter_mut());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<(), CliError> {
        loop {
            let Some(line) = left.lock().next() else { return Ok(()) };
            hash_secret(file, line)?;
            progress.inc(1);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(CliError("hashing failed".to_owned())))
        })
    })?;
    progress.finish_and_clear();
    Ok(lines.into_iter().map(|line| line.entry).collect())
}

fn hash_secret(file: &Path, line: &mut Line) -> Result<(), CliError> {
    let Some(secret) = line.secret.take() else { return Ok(()) };
    let new = NewSecret { label: FIRST_LABEL.to_owned(), hash: secret::hash(&secret, None)? };
    line.entry = edit::with_secret(&line.entry, &new)
        .map_err(|_| Fault::new(file, "takes no secret").at_line(line.number))?;
    Ok(())
}

/// Returns a progress bar on standard error. It is shown only if standard error is a terminal.
fn progress(done: &str, total: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
    let template = format!("{{bar:40}} {{human_pos}} of {{human_len}} {done}, {{eta}} left");
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
