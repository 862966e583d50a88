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
use crate::config::value::{Problem, Reader, Strings};
use crate::fault::{Fault, Position, text};

/// The settings of one source: a file, a variable or a flag. All of them are valid. A setting that
/// a layer does not contain keeps its value from the earlier layers.
#[derive(Clone, Debug)]
pub struct Layer(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The text of a TOML file.
    File(String),
    /// The path of one setting, and the text of its value.
    Setting(String, String),
}

impl Layer {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// The first [`Fault`], with its line, column and setting.
    pub fn from_file(file: &Path) -> Result<Self, Fault> {
        let text = text::read(file)?;
        let fault = |problem: &str, offset: Option<usize>| {
            let fault = Fault::new(file, problem);
            match offset {
                Some(offset) => fault.at(Position::of(&text, offset)),
                None => fault,
            }
        };
        let table = DeTable::parse(&text).map_err(|error| {
            let offset = error.span().map(|span| span.start);
            let is_twice = offset.is_some_and(|offset| sets_keys_twice(&text, offset));
            fault(if is_twice { KEYS_TWICE } else { error.message() }, offset)
        })?;
        let table = table.into_inner();
        let mut known = setting_names();
        known.push(format!("{KEYS}.{DIRECTORY}"));
        known.sort();
        let mut problems = unknown_names(&table, "", &known);
        let table = with_flat_keys(table);
        problems.extend(read_parts(&table, Strings::OfFile).err().into_iter().flatten());
        match problems.into_iter().min_by_key(|problem| problem.offset) {
            Some(problem) => {
                Err(Fault { field: problem.setting(), ..fault(&problem.text, problem.offset) })
            }
            None => Ok(Self(Source::File(text))),
        }
    }

    /// Reads the value of one setting from the text of a variable or a flag. `setting` is a path,
    /// as in `limits.body_bytes`. The elements of a list are separated by commas.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that says what the value must be.
    pub fn from_text(setting: &str, text: &str) -> Result<Self, ConfigError> {
        read_parts(&with_flat_keys(table_of(setting, text)), Strings::Texts).map_err(
            |problems| problems.into_iter().map(|it| it.text).next().unwrap_or_default(),
        )?;
        Ok(Self(Source::Setting(setting.to_owned(), text.to_owned())))
    }

    /// Returns where the value of `setting` stands; `None` if the layer is no file or does not set
    /// it.
    pub fn position_of(&self, setting: &str) -> Option<Position> {
        let Source::File(text) = &self.0 else { return None };
        let table = self.table();
        let inner = || {
            let (outer, name) = setting.split_once('.')?;
            table.get(outer)?.get_ref().get(name)
        };
        let value = table.get(setting).or_else(inner)?;
        Some(Position::of(text, value.span().start))
    }

    fn table(&self) -> DeTable<'_> {
        with_flat_keys(match &self.0 {
            // `from_file` has parsed the text.
            Source::File(text) => DeTable::parse(text).map(Spanned::into_inner).unwrap_or_default(),
            Source::Setting(setting, text) => table_of(setting, text),
        })
    }
}

/// Returns the table that holds nothing but `text` at the path `setting`.
fn table_of<'t>(setting: &'t str, text: &'t str) -> DeTable<'t> {
    let (name, value) = match setting.split_once('.') {
        Some((name, inner)) => (name, DeValue::Table(table_of(inner, text))),
        None => (setting, DeValue::String(text.into())),
    };
    DeTable::from_iter([(Spanned::new(0..0, name.into()), Spanned::new(0..0, value))])
}

/// Returns the table with the settings in its table `keys`, if it has one, beside that: `directory`
/// as `keys`, and each other one with a dot in its name, as in `keys.rotate_every`. `keys` alone is
/// the directory, so that its setting is one name, as its flag and its variable.
fn with_flat_keys(mut table: DeTable<'_>) -> DeTable<'_> {
    if !matches!(table.get(KEYS).map(Spanned::get_ref), Some(DeValue::Table(_))) {
        return table;
    }
    if let Some((_, keys)) = table.remove_entry(KEYS)
        && let DeValue::Table(keys) = keys.into_inner()
    {
        for (name, value) in keys {
            let span = name.span();
            let name = match &**name.get_ref() {
                DIRECTORY => KEYS.to_owned(),
                name => format!("{KEYS}.{name}"),
            };
            table.insert(Spanned::new(span, name.into()), value);
        }
    }
    table
}

/// Whether `text` has a line `keys = …` and a table of keys, and the fault at `offset` is in one of
/// them.
fn sets_keys_twice(text: &str, offset: usize) -> bool {
    let (mut is_line, mut is_table, mut is_here) = (false, false, false);
    let (mut end, mut is_top) = (0, true);
    for line in text.split_inclusive('\n') {
        let begin = end;
        end += line.len();
        let line = line.trim();
        let is_header = line.starts_with('[');
        is_top &= !is_header;
        let inner = line.strip_prefix('[').unwrap_or(line).trim_start();
        let Some(after) = inner.strip_prefix(KEYS).map(str::trim_start) else { continue };
        let is_one_line = is_top
            && after.strip_prefix('=').is_some_and(|value| !value.trim_start().starts_with('{'));
        let is_of_table =
            if is_header { after.starts_with(']') } else { is_top && after.starts_with('.') };
        is_line |= is_one_line;
        is_table |= is_of_table;
        is_here |= (is_one_line || is_of_table) && (begin..end).contains(&offset);
    }
    is_line && is_table && is_here
}

const KEYS_TWICE: &str = "`keys` is set twice: in a table `[keys]`, the directory is `directory`";
/// The setting of the directory of keys, and the table of the settings of keys.
const KEYS: &str = "keys";
/// The name of that setting in the table.
const DIRECTORY: &str = "directory";

impl Config {
    /// Applies `layers` to the defaults, in the given order. A later layer overrides an earlier
    /// layer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the faulty settings and says what they must be.
    pub fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let layers: Vec<_> = layers.into_iter().collect();
        let mut all = DeTable::new();
        for layer in &layers {
            lay_over(&mut all, layer.table());
        }
        read_parts(&all, Strings::Texts).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n").into()
        })
    }
}

fn lay_over<'t>(lower: &mut DeTable<'t>, upper: DeTable<'t>) {
    for (name, value) in upper {
        let span = value.span();
        match (lower.get_mut(&name).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(lower)), DeValue::Table(upper)) => lay_over(lower, upper),
            (_, value) => {
                lower.insert(name, Spanned::new(span, value));
            }
        }
    }
}

/// Reads [`Startup`] and [`Live`] from the same table. Each of these types ignores the settings of
/// the other. The error contains at most three problems: one for each type and one for the routes.
fn read_parts(table: &DeTable<'_>, strings: Strings) -> Result<Config, Vec<Problem>> {
    let startup = Startup::deserialize(Reader::of_table(table, strings));
    let live = Live::deserialize(Reader::of_table(table, strings));
    let routes = live.as_ref().ok().and_then(|live| route::problems(&live.routes).next());
    let of_routes = routes.map(|(index, problem)| {
        let problem = Problem::new(problem).within("path").within("route");
        let route = table.get("route").and_then(|routes| routes.get_ref().get(index));
        match route.and_then(|route| route.get_ref().get("path")) {
            Some(path) => problem.at(path),
            None => problem,
        }
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
fn unknown_names(table: &DeTable<'_>, outer: &str, known: &[String]) -> Vec<Problem> {
    let known_here = || known.iter().filter_map(|setting| setting.strip_prefix(outer));
    let mut problems = Vec::new();
    for (key, value) in table {
        let name = &**key.get_ref();
        let inside = format!("{name}.");
        let has_inside = known_here().any(|setting| setting.starts_with(&inside));
        if let (true, DeValue::Table(inner)) = (has_inside, value.get_ref()) {
            problems.extend(unknown_names(inner, &format!("{outer}{inside}"), known));
        } else if !known_here().any(|setting| setting == name || setting.starts_with(&inside)) {
            let mut names: Vec<_> = known_here().filter_map(|it| it.split('.').next()).collect();
            names.dedup();
            problems.push(Problem::unknown(name, &names).at(key));
        }
    }
    problems
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
        let mut names = differences(self, running);
        // The password is in no text, so a change of it alone is not among the differences of the
        // texts.
        let url = "store.url";
        if self.store.url != running.store.url && !names.iter().any(|name| name == url) {
            names.push(url.to_owned());
        }
        names
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
