//! Reads settings from the environment variables `GRANTD_*`. An empty variable counts as unset.

use std::collections::BTreeMap;
use std::env::{var_os, vars_os};
use std::ffi::OsString;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, Command};

use crate::cli::error::CliError;
use crate::config::{Layer, nearest, setting_names};

/// Returns `command`, changed so that no argument takes its value from an empty environment
/// variable.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::<OsStr>::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// Returns the settings in the environment of this process, one layer for each setting. `flags` has
/// the flags of the settings.
///
/// # Errors
///
/// One line for each fault. Each names the variable but not its value, which may be a secret that
/// was set in the wrong variable.
pub(super) fn layers(flags: &Command) -> Result<Vec<Layer>, CliError> {
    let variables = vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = variables.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty());
    read(ours.collect(), flags)
}

/// Reads the settings in `variables`.
fn read(
    mut variables: BTreeMap<String, OsString>,
    flags: &Command,
) -> Result<Vec<Layer>, CliError> {
    let (mut layers, mut faults, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for setting in setting_names() {
        let names = names_of(&setting, flags);
        let given = names.iter().filter_map(|name| Some((name, variables.remove(name)?)));
        let given: Vec<_> = given.collect();
        if let [(short, one), (long, other)] = &given[..]
            && one != other
        {
            faults.push(format!(
                "{long}: is different from {short}, and both set {setting}: unset one of them"
            ));
        }
        if let Some((name, value)) = given.first() {
            match value.to_str().map(|value| Layer::from_text(&setting, value)) {
                Some(Ok(layer)) => layers.push(layer),
                Some(Err(problem)) => faults.push(format!("{name}: {problem}")),
                None => faults.push(format!("{name}: is not UTF-8")),
            }
        }
        known.extend(names);
    }
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    // Ignore unknown names without `__`: Kubernetes sets `GRANTD_PORT` for a service named grantd.
    for name in variables.keys().filter(|name| name.contains("__")) {
        let meant = nearest(name, &known).map(|name| format!(": did you mean `{name}`?"));
        faults.push(format!("{name}: unknown setting{}", meant.unwrap_or_default()));
    }
    if faults.is_empty() { Ok(layers) } else { Err(CliError(faults.join("\n"))) }
}

const PREFIX: &str = "GRANTD_";

/// Returns the names of the variables that set `setting`. A nested setting that has a flag has two
/// variables: one is named like the flag, the other like the path of the setting.
fn names_of(setting: &str, flags: &Command) -> Vec<String> {
    let variable = |name: &str| format!("{PREFIX}{}", name.to_ascii_uppercase());
    // In the configuration file, each route is a table `[[route]]`. The variable contains all
    // routes, so the name of the variable is plural.
    let path = if setting == "route" { "routes" } else { setting };
    let long = variable(&path.replace('.', "__"));
    let short = variable(&path.replace('.', "_"));
    let has_two = flag_of(setting, flags).is_some() && short != long;
    if has_two { vec![short, long] } else { vec![long] }
}

/// Returns the name of the variable that sets `setting` in the environment of this process.
pub(super) fn variable_of(setting: &str, flags: &Command) -> Option<String> {
    let is_set = |name: &String| var_os(name).is_some_and(|value| !value.is_empty());
    names_of(setting, flags).into_iter().find(is_set)
}

/// Returns the flag that sets `setting`, if there is one.
pub(super) fn flag_of<'c>(setting: &str, flags: &'c Command) -> Option<&'c str> {
    let id = setting.replace('.', "_");
    flags.get_arguments().find(|arg| arg.get_id() == id.as_str())?.get_long()
}

/// Returns a text that names the environment variable that sets `setting`. If `setting` also has a
/// flag, the text names the flag, too.
pub(super) fn how_to_set(setting: &str, flags: &Command) -> String {
    let variable = names_of(setting, flags).swap_remove(0);
    match flag_of(setting, flags) {
        Some(flag) => format!("--{flag}, {variable}"),
        None => variable,
    }
}
