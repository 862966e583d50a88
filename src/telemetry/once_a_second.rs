//! Log lines about what a stranger can cause as often as it likes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets one line a second through, and counts those that it held back.
#[derive(Debug, Default)]
pub struct OnceASecond {
    /// The last second (Unix) in which a line was written.
    last: AtomicU64,
    held_back: AtomicU64,
}

impl OnceASecond {
    /// Whether to write a line at `now` (Unix seconds): if so, how many were held back since the
    /// last one.
    pub fn is_due(&self, now: u64) -> Option<u64> {
        if self.last.swap(now, Ordering::Relaxed) == now {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_others_there_were() {
        let lines = OnceASecond::default();
        let due: Vec<_> = [7, 7, 7, 8, 9, 9, 6].map(|now| lines.is_due(now)).into();
        assert_eq!(due, [Some(0), None, None, Some(2), Some(0), None, Some(1)]);
    }
}
