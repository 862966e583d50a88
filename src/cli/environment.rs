//! `GRANTD_*` in the environment: an empty variable is an unset one, and a fault of one names the
//! variable, not the flag that was not given.

use std::env::{args_os, var_os};

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

/// The command line in which no argument takes an empty variable.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::<OsStr>::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The same fault in the name of the variable that it came from, if it did.
pub(super) fn named_by_variable(error: Error, program: &mut Command) -> Error {
    let is_of_a_value =
        [ErrorKind::InvalidValue, ErrorKind::ValueValidation].contains(&error.kind());
    let text_of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(shown), true) = (text_of(ContextKind::InvalidArg), is_of_a_value) else {
        return error;
    };
    // Only then do arguments know how they are shown.
    program.build();
    let Some((flag, variable)) = source_of(program, &shown) else { return error };
    let value = text_of(ContextKind::InvalidValue).unwrap_or_default();
    let reason = match (error.get(ContextKind::ValidValue), std::error::Error::source(&error)) {
        (Some(ContextValue::Strings(words)), _) => {
            format!("it must be one of {}", words.join(", "))
        }
        (_, Some(reason)) => reason.to_string(),
        _ => "it is not understood".to_owned(),
    };
    let kind = error.kind();
    program.error(kind, format!("{variable}: invalid value '{value}' (for {flag}): {reason}"))
}

/// The flag and the variable of the argument that is shown so, if its value came from there.
fn source_of(command: &Command, shown: &str) -> Option<(String, String)> {
    let own = command.get_arguments().find(|arg| arg.to_string() == shown).and_then(|arg| {
        let variable = arg.get_env()?;
        let flag = format!("--{}", arg.get_long()?);
        let is_given = args_os().skip(1).any(|given| {
            let given = given.to_string_lossy();
            given.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        (!is_given && var_os(variable).is_some())
            .then(|| (flag, variable.to_string_lossy().into_owned()))
    });
    own.or_else(|| command.get_subcommands().find_map(|command| source_of(command, shown)))
}

/// A switch as operators write it.
pub(super) fn parse_switch(word: &str) -> Result<bool, String> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false, 1 or 0, yes or no, on or off".to_owned()),
    }
}
