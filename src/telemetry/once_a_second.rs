//! A rate limit for log lines that a peer could otherwise cause at any rate.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::UnixTime;

/// Allows one log line per second, and counts the lines that it suppresses.
#[derive(Debug, Default)]
pub struct OnceASecond {
    /// The time of the last call.
    last: AtomicU64,
    suppressed: AtomicU64,
}

impl OnceASecond {
    /// Returns `None` if no line may be written at `now`. Otherwise returns the number of lines
    /// that were suppressed since the last line was written.
    pub fn is_due(&self, now: UnixTime) -> Option<u64> {
        if self.last.swap(now.0, Ordering::Relaxed) == now.0 {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_line_a_second_has_the_number_of_suppressed_ones() {
        let lines = OnceASecond::default();
        let due: Vec<_> = [7, 7, 7, 8, 9, 9, 6].map(|now| lines.is_due(UnixTime(now))).into();
        assert_eq!(due, [Some(0), None, None, Some(2), Some(0), None, Some(1)]);
    }
}
