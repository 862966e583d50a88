//! A rate limit for warnings that a client could otherwise cause with every request.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::time::UnixTime;

/// Allows one warning per hour about each subject, for a bounded number of subjects per hour.
#[derive(Debug, Default)]
pub struct Hourly(Mutex<Warned>);

#[derive(Debug, Default)]
struct Warned {
    /// The hour in which the warnings about `subjects` were allowed, in hours since 1970.
    hour: u64,
    subjects: HashSet<[u8; 32]>,
}

impl Hourly {
    /// Whether the caller should warn at `now` about the subject with this hash. After this method
    /// has returned `true`, it returns `false` for the same subject until the next hour.
    pub fn is_due(&self, subject: [u8; 32], now: UnixTime) -> bool {
        let mut warned = self.0.lock();
        let hour = now.0 / 3600;
        if warned.hour != hour {
            *warned = Warned { hour, subjects: HashSet::new() };
        }
        warned.subjects.len() < MAX_SUBJECTS && warned.subjects.insert(subject)
    }
}

/// The maximum number of subjects for which a warning is allowed in one hour.
const MAX_SUBJECTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_subjects_is_due_once_an_hour() {
        let hourly = Hourly::default();
        for now in [3600, 7200, 3600] {
            assert!(hourly.is_due([1; 32], UnixTime(now)));
            assert!(!hourly.is_due([1; 32], UnixTime(now + 3599)));
            assert!(hourly.is_due([2; 32], UnixTime(now)));
        }
        let due = |subject: u8| hourly.is_due([subject; 32], UnixTime(0));
        assert_eq!((0..=255).filter(|subject| due(*subject)).count(), MAX_SUBJECTS);
    }
}
