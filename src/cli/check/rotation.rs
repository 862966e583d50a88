//! Checks the setting `keys.rotate_every`.

use crate::cli::check::files::can_create_in;
use crate::config::Config;
use crate::keys::life::Retention;
use crate::keys::rotation::Rotation;

/// Returns the fault of the setting, if it has one. `serve` starts all the same and counts a longer
/// time, because a change of the registry must not keep it from starting.
pub(super) fn fault(config: &Config, retention: &Retention) -> Option<String> {
    let problem = Rotation::problem(config.live.rotate_every?, retention)?;
    Some(format!("keys.rotate_every: {problem}"))
}

/// Returns a warning if keys rotate by themselves and their directory cannot be written.
pub(super) fn warning(config: &Config) -> Option<String> {
    let keys = &config.live.keys;
    if config.live.rotate_every.is_none() || config.startup.store.url.is_some() {
        return None;
    }
    let error = can_create_in(keys).err()?;
    Some(format!(
        "keys.rotate_every: {}: cannot be written, so no next key can be made: {error}: give the \
         server a directory that it can write, or remove the setting and rotate the keys by hand",
        keys.display()
    ))
}
