//! Notices at the start that the state directory or the keys of the server are gone.
//!
//! The only evidence is times: a key file says when the key was published, and the file `decoy.key`
//! is written once, when a server first uses the state directory. A key file of an operator's own
//! says nothing: its modification time may be the time at which it was mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::config::Config;
use crate::fault::Fault;
use crate::keys::signing_key::SigningKey;
use crate::time::UnixTime;

/// The loss of a file or directory, and until when tokens may be affected.
pub struct Loss {
    /// The loss and its consequences, for the log.
    pub text: String,
    /// When the last token that may be affected has expired.
    pub until: UnixTime,
}

impl Loss {
    /// Looks for a loss at `now`. `trace` is the [`trace_of_use`] that was looked for before the
    /// keys were read, `keys` are all keys, each with its file, and `longest` is the longest
    /// lifetime of a token in seconds.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if there is no key, although the state directory shows that a server has been
    /// here: a new key must not be made without being asked for, because the keys may only be
    /// missing for a while, as with a mount that comes late.
    pub fn find(
        config: &Config,
        trace: Option<PathBuf>,
        keys: &[(PathBuf, SigningKey)],
        longest: u64,
        now: UnixTime,
    ) -> Result<Option<Self>, Fault> {
        let (state, directory) = (&config.startup.state, &config.live.keys);
        if keys.is_empty() {
            return match trace {
                None => Ok(None),
                Some(trace) => Err(Fault::new(
                    directory,
                    format!(
                        "holds no key, but {} shows that a server has signed here: mount or restore \
                         its keys, or run `grantd key generate` if they are lost",
                        trace.display()
                    ),
                )),
            };
        }
        let published = keys.iter().map(|(_, key)| (key.times().published_at, key.key_id()));
        let published = published.filter(|(time, _)| time.0 > 0);
        let all_say_when = published.clone().count() == keys.len();
        let Some((oldest, key)) = published.min_by_key(|(time, _)| *time) else { return Ok(None) };
        let since = match trace {
            None => now,
            // A state directory without this file is from an earlier version.
            Some(_) => match modified(&state.join(DECOY_KEY)) {
                Some(since) => since,
                None => return Ok(None),
            },
        };
        let found = if oldest + SLACK < since {
            let text = format!(
                "{}: the state directory is from {}, but the key {key} is older: if tokens were \
                 revoked before, they are valid again; if this key was never used before, nothing \
                 is lost",
                state.display(),
                since.seconds_and_date(),
            );
            Self { text, until: since + longest }
        } else if all_say_when
            && since + SLACK < oldest
            && oldest <= now
            && !has_retired_keys(directory)
        {
            let text = format!(
                "{}: every key is newer than the state directory {}, which is from {}: tokens of \
                 the earlier keys are refused",
                directory.display(),
                state.display(),
                since.seconds_and_date(),
            );
            Self { text, until: oldest + longest }
        } else {
            return Ok(None);
        };
        Ok(Some(found).filter(|found| now < found.until))
    }
}

/// Returns a file in the state directory that shows that a server has used it; `None` if there is
/// none. This must be called before the keys are read: another server that starts at the same time
/// makes the first key before such a file.
pub fn trace_of_use(state: &Path) -> Option<PathBuf> {
    [DECOY_KEY, "revocations", "uses"]
        .map(|name| state.join(name))
        .into_iter()
        .find(|path| path.exists())
}

const DECOY_KEY: &str = "decoy.key";

fn modified(file: &Path) -> Option<UnixTime> {
    let modified = fs::metadata(file).ok()?.modified().ok()?;
    Some(UnixTime(modified.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

/// Whether the directory holds a key that a command has retired. Then the keys were replaced on
/// purpose.
fn has_retired_keys(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().as_encoded_bytes().ends_with(b".pem.retired"))
}

/// At a first start, the state directory is made within this number of seconds after the key, even if
/// an operator has generated the key with a command.
const SLACK: u64 = 600;
