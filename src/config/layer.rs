//! Settings come in layers: the configuration file, environment variables, flags. A setting in a
//! later layer overrides the same setting in an earlier one.
//!
//! Each layer is first checked by itself, so that the error can name the line of the file, the
//! variable or the flag that has the fault.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::address::ConfigError;
use crate::config::route;
use crate::config::settings::{Config, Live, Startup};
use crate::config::value::{Problem, Reader, Table, Value, table_of};
use crate::fault::{Fault, Position, text};

/// The settings of one source: a file, a variable or a flag. All of them are valid. A setting that
/// a layer does not contain keeps its value from the earlier layers.
#[derive(Clone, Debug, Default)]
pub struct Layer(Table);

impl Layer {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// The first [`Fault`], with its line, column and setting.
    pub fn from_file(file: &Path) -> Result<Self, Fault> {
        let text = text::read(file)?;
        let at = |fault: Fault, offset| fault.at(Position::of(&text, offset));
        let document = DeTable::parse(&text).map_err(|error| {
            let fault = Fault::new(file, error.message());
            match error.span() {
                Some(span) => at(fault, span.start),
                None => fault,
            }
        })?;
        let document = document.get_ref();
        let table = table_of(document);
        let known = setting_names();
        let problems = unknown_name(&table, "", &known).into_iter();
        let problems = problems.chain(read_parts(&table).err().into_iter().flatten());
        let first =
            problems.map(|problem| (offset_of(document, &problem), problem)).min_by_key(|it| it.0);
        let Some((offset, problem)) = first else { return Ok(Self(table)) };
        let fault = at(Fault::new(file, &*problem.text), offset);
        Err(match problem.setting() {
            Some(setting) => fault.in_field(setting),
            None => fault,
        })
    }

    /// Reads the value of one setting from the text of a variable or a flag. `setting` is a path,
    /// as in `limits.body_bytes`. The elements of a list are separated by commas.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that says what the value must be.
    pub fn from_text(setting: &str, text: &str) -> Result<Self, ConfigError> {
        let mut names = setting.rsplit('.');
        let innermost = names.next().unwrap_or(setting).to_owned();
        let mut table = Table::from([(innermost, Value::Text(text.to_owned()))]);
        for name in names {
            table = Table::from([(name.to_owned(), Value::Table(table))]);
        }
        match read_parts(&table) {
            Ok(_) => Ok(Self(table)),
            Err(problems) => Err(ConfigError::from(
                problems.into_iter().next().map_or_else(String::new, |it| it.text),
            )),
        }
    }
}

impl Config {
    /// Applies `layers` to the defaults, in the given order. A later layer overrides an earlier
    /// layer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the faulty settings and says what they must be.
    pub fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let mut all = Table::new();
        for Layer(table) in layers {
            lay_over(&mut all, table);
        }
        read_parts(&all).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            ConfigError::from(lines.join("\n"))
        })
    }
}

fn lay_over(lower: &mut Table, upper: Table) {
    for (name, value) in upper {
        match (lower.get_mut(&name), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => lay_over(lower, upper),
            (_, value) => {
                lower.insert(name, value);
            }
        }
    }
}

/// Reads [`Startup`] and [`Live`] from the same table. Each of these types ignores the settings of
/// the other. The error contains at most three problems: one for each type and one for the routes.
fn read_parts(table: &Table) -> Result<Config, Vec<Problem>> {
    let startup = Startup::deserialize(Reader::of_table(table));
    let live = Live::deserialize(Reader::of_table(table));
    let routes = live.as_ref().ok().and_then(|live| route::problems(&live.routes).next());
    let of_routes = routes.map(|(index, problem)| {
        Problem::new(problem).within("path").within(index.to_string()).within("route")
    });
    match (startup, live, of_routes) {
        (Ok(startup), Ok(live), None) => Ok(Config { startup, live }),
        (startup, live, of_routes) => {
            Err([startup.err(), live.err(), of_routes].into_iter().flatten().collect())
        }
    }
}

/// Returns a problem for each name in `table` that is neither a setting nor a table of settings.
/// `outer` is the path of `table`, with a dot at its end.
fn unknown_name(table: &Table, outer: &str, known: &[String]) -> Vec<Problem> {
    let known_here = || known.iter().filter_map(|setting| setting.strip_prefix(outer));
    let mut problems = Vec::new();
    for (name, value) in table {
        if known_here().any(|setting| setting == name) {
            continue;
        }
        if !known_here().any(|setting| setting.split('.').next() == Some(name)) {
            let mut names: Vec<_> = known_here().filter_map(|it| it.split('.').next()).collect();
            names.dedup();
            problems.push(Problem::unknown(name, &names));
        } else if let Value::Table(inner) = value {
            let inner = unknown_name(inner, &format!("{outer}{name}."), known);
            problems.extend(inner.into_iter().map(|problem| problem.within(name)));
        }
    }
    problems
}

/// Returns the offset of a problem in the file: the offset of the wrong name or of the wrong value.
/// If the value is missing, returns the offset of the innermost table or list that should contain
/// it and that exists in the file.
fn offset_of(document: &DeTable<'_>, problem: &Problem) -> usize {
    let mut names = problem.path().peekable();
    let mut offset = 0;
    let mut table = Some(document);
    let mut list: Option<&[Spanned<DeValue<'_>>]> = None;
    while let Some(name) = names.next() {
        let entry = table.and_then(|table| table.get_key_value(name));
        if let (Some((key, _)), true, None) = (entry, problem.is_of_name, names.peek()) {
            return key.span().start;
        }
        let value = match (entry, list) {
            (Some((_, value)), _) => value,
            (None, Some(list)) => {
                match name.parse().ok().and_then(|index: usize| list.get(index)) {
                    Some(value) => value,
                    None => return offset,
                }
            }
            (None, None) => return offset,
        };
        offset = value.span().start;
        table = value.get_ref().as_table();
        list = value.get_ref().as_array().map(|array| &**array);
    }
    offset
}

/// Returns the paths of all settings, as in `limits.body_bytes`, in alphabetical order. Every
/// setting has a default, so the paths are taken from the default configuration.
pub fn setting_names() -> Vec<String> {
    let Config { startup, live } = Config::default();
    let mut names: Vec<_> =
        values_of(&startup).into_iter().chain(values_of(&live)).map(|it| it.0).collect();
    names.sort();
    names
}

impl Startup {
    /// Returns the names of the settings that differ from those of the server that is `running`. A
    /// change of them takes effect only after a restart.
    pub fn differences(&self, running: &Self) -> Vec<String> {
        differences(self, running)
    }
}

/// Returns the paths of the settings whose values differ between `one` and `other`.
pub(super) fn differences<T: Serialize>(one: &T, other: &T) -> Vec<String> {
    let pairs = values_of(one).into_iter().zip(values_of(other));
    pairs.filter(|(one, other)| one != other).map(|((name, _), _)| name).collect()
}

/// Returns the path and the value of each setting.
fn values_of(settings: &impl Serialize) -> Vec<(String, serde_json::Value)> {
    let mut values = Vec::new();
    // Serializing fails only if a file path is not UTF-8. Only an embedder can set such a path.
    collect("", serde_json::to_value(settings).unwrap_or_default(), &mut values);
    values
}

fn collect(path: &str, value: serde_json::Value, values: &mut Vec<(String, serde_json::Value)>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                collect(&path, value, values);
            }
        }
        value => values.push((path.to_owned(), value)),
    }
}
