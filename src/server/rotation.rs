//! Rotates the signing keys in files, and says if `keys.rotate_every` is too short.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::endpoint::Context;
use crate::keys::change;
use crate::keys::directory::KeyDirectory;
use crate::keys::rotation::{PlannedKey, Rotation, Step};
use crate::snapshot::Snapshot;

/// The memory of the rotation between two looks.
#[derive(Debug, Default)]
pub(super) struct FileRotation {
    /// No key is made before this time, because the last attempt failed.
    paused_until: Option<Instant>,
    /// Why the setting in force is too short.
    too_short: Option<String>,
}

impl FileRotation {
    /// Makes the next key in the directory of keys, if it is due. A process that reads the directory
    /// again then publishes it; so do the other processes with the same directory.
    pub(super) fn look(this: &Mutex<Self>, context: &Context, snapshot: &Snapshot) {
        let Some(mut this) = this.try_lock() else { return };
        let live = &snapshot.config.live;
        let retention = snapshot.keys.retention;
        let too_short = live.rotate_every.and_then(|every| Rotation::problem(every, &retention));
        if let Some(problem) = too_short.as_ref().filter(|it| this.too_short.as_ref() != Some(*it))
        {
            warn!("keys.rotate_every: {problem}; until then, this shortest time counts");
        }
        this.too_short = too_short;
        if snapshot.config.startup.store.url.is_some() {
            return;
        }
        let rotation = Rotation { every: live.rotate_every, retention, lead: 0 };
        let now = context.clock.now();
        let step = rotation.step(&PlannedKey::all(&snapshot.keys), &[], now);
        if !matches!(step, Step::Make(_)) {
            context.key_rotation.note(None);
            this.paused_until = None;
            return;
        }
        let instant = context.clock.instant();
        if this.paused_until.is_some_and(|until| instant < until) {
            return;
        }
        match change::make_when_due(&mut KeyDirectory::new(&live.keys), &rotation, now) {
            Ok(Some(key)) => {
                let times = key.times();
                info!(
                    kid = key.key_id(),
                    signs_from = times.signs_from.0,
                    "made the next signing key"
                );
                context.key_rotation.note(None);
            }
            // It is published when the directory has been read again.
            Ok(None) => {}
            Err(faults) => {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                let problem = format!(
                    "keys.rotate_every has no effect: no next key can be made: {}; until then, the \
                     present key signs",
                    faults.join("; ")
                );
                if context.key_rotation.note(Some(problem.clone())) {
                    error!("{problem}");
                }
                this.paused_until = Some(instant + PAUSE);
            }
        }
    }
}

/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(60);
