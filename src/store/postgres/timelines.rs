//! The highest timeline that was seen of each database system.
//!
//! A standby that is promoted begins a new timeline, which the primary from before does not know. If
//! that primary is started again, it accepts writes, and it knows nothing of the uses and revocations
//! since. So a server uses no database whose timeline is lower than the highest one that it has seen
//! of the same system. The snapshot keeps them for the next start.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use crate::clock::Clock;

/// A timeline of a database system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The identifier of the system, which its replicas share.
    pub system: String,
    /// The number of the timeline.
    pub number: u32,
}

/// The highest timelines that a server has seen.
#[derive(Debug)]
pub(super) struct Timelines {
    /// The highest timeline of each system, the one that was seen first at the front.
    seen: Mutex<Vec<Timeline>>,
    /// The file in which they are kept; `None` if they are not.
    file: Option<PathBuf>,
    clock: Clock,
    logged: Mutex<Option<Instant>>,
}

impl Timeline {
    /// Reads the beginning of an epoch: the system's identifier, and the timeline in hexadecimal.
    pub(super) fn of_epoch(epoch: &str) -> Option<Self> {
        let mut parts = epoch.split('/');
        let (system, number) = (parts.next()?, parts.next()?);
        Some(Self { system: system.to_owned(), number: u32::from_str_radix(number, 16).ok()? })
    }
}

impl Timelines {
    /// Begins with `seen`, which the snapshot in `file` has kept, if one is kept.
    pub(super) fn new(seen: Vec<Timeline>, file: Option<PathBuf>, clock: &Clock) -> Self {
        let (seen, clock) = (Mutex::new(seen), clock.clone());
        Self { seen, file, clock, logged: Mutex::default() }
    }

    /// Returns the highest timelines.
    pub(super) fn seen(&self) -> Vec<Timeline> {
        self.seen.lock().clone()
    }

    /// Whether no higher timeline of the same system was seen.
    pub(super) fn is_highest(&self, timeline: &Timeline) -> bool {
        let seen = self.seen.lock();
        seen.iter().all(|it| it.system != timeline.system || it.number <= timeline.number)
    }

    /// Notes the timeline of a database that is about to be used.
    ///
    /// # Errors
    ///
    /// The advice for an operator if a higher timeline of the same system was seen. It is logged, too:
    /// if another host of the URL can be used, no caller shows it.
    pub(super) fn admit(&self, host: &str, timeline: &Timeline) -> Result<(), String> {
        let mut seen = self.seen.lock();
        let known = seen.iter_mut().find(|known| known.system == timeline.system);
        match known {
            None => {
                if seen.len() >= MOST_SYSTEMS {
                    seen.remove(0);
                }
                seen.push(timeline.clone());
            }
            Some(known) if known.number <= timeline.number => known.number = timeline.number,
            Some(known) => {
                let problem = self.problem(timeline.number, known.number);
                drop(seen);
                self.log(host, &problem);
                return Err(problem);
            }
        }
        Ok(())
    }

    fn problem(&self, number: u32, highest: u32) -> String {
        let forget = match &self.file {
            Some(file) => {
                format!("stop all servers and remove their snapshots (here {})", file.display())
            }
            None => "restart all servers".to_owned(),
        };
        format!(
            "is on timeline {number}, and this server has seen timeline {highest} of this database: \
             stop it if it is the primary from before a failover; if a standby was promoted by \
             mistake or a backup restored, start it once in recovery (recovery.signal, \
             restore_command = 'false') to raise its timeline; last resort: {forget}, losing \
             revocations only there"
        )
    }

    /// Logs that a host is not used, at most once a minute.
    fn log(&self, host: &str, problem: &str) {
        let now = self.clock.instant();
        let mut logged = self.logged.lock();
        if logged.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY) {
            *logged = Some(now);
            warn!(host, problem, "an old primary of the database is not used");
        }
    }
}

/// The most systems that are kept.
const MOST_SYSTEMS: usize = 16;
const LOG_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_timeline_of_the_same_system_is_not_used() {
        let timeline = |system: &str, number| Timeline { system: system.to_owned(), number };
        let file = Some("state/snapshot".into());
        let timelines = Timelines::new(Vec::new(), file, &Clock::manual(0).0);
        let admit = |system: &str, number| timelines.admit("host", &timeline(system, number));
        for (system, number) in [("7", 2), ("8", 1), ("7", 2), ("7", 11)] {
            assert_eq!(admit(system, number), Ok(()));
        }
        let refused = admit("7", 10).unwrap_err();
        for part in
            ["timeline 10", "timeline 11", "stop it", "(here state/snapshot)", "recovery.signal"]
        {
            assert!(refused.contains(part), "{refused}");
        }
        assert!(
            !timelines.is_highest(&timeline("7", 10)) && timelines.is_highest(&timeline("9", 1))
        );
        assert_eq!(timelines.seen(), [timeline("7", 11), timeline("8", 1)]);
        for number in 0..30 {
            assert_eq!(admit(&format!("s{number}"), 1), Ok(()));
        }
        assert_eq!(timelines.seen().len(), MOST_SYSTEMS);
        assert_eq!(Timeline::of_epoch("7/0000000A/1/2/x"), Some(timeline("7", 10)));
        assert_eq!(Timeline::of_epoch("7"), None);
    }
}
