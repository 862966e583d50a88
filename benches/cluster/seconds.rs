//! Requests, sorted by second.

use crate::load::{Outcome, Sent};
use crate::nodes::at;

/// The requests of one kind that were due in one second.
#[derive(Default)]
pub(crate) struct Second {
    pub(crate) granted: usize,
    pub(crate) away: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// Assertions that were sent again.
    pub(crate) repeated: usize,
    /// Those of them that were granted again. There must be none.
    pub(crate) granted_again: usize,
    /// The times of those that were not repeated, in milliseconds.
    pub(crate) times: Vec<f64>,
}

impl Second {
    /// Returns the time that this share of the requests did not exceed, in milliseconds; `None` if
    /// there was no request.
    pub(crate) fn time(&self, share: f64) -> Option<f64> {
        (!self.times.is_empty()).then(|| at(&self.times, share))
    }

    fn add(&mut self, sent: &Sent) {
        if sent.is_repeated {
            self.repeated += 1;
            self.granted_again += usize::from(sent.outcome == Outcome::Granted);
            return;
        }
        *match sent.outcome {
            Outcome::Granted => &mut self.granted,
            Outcome::Away => &mut self.away,
            Outcome::Refused => &mut self.refused,
            Outcome::Failed => &mut self.failed,
        } += 1;
        self.times.push(sent.time);
    }
}

/// Sorts requests by the whole second in which they were due. The last second, which the end of the load
/// cut short, is left out.
pub(crate) fn seconds(sent: &[Sent]) -> Vec<Second> {
    let mut seconds = Vec::new();
    for one in sent {
        let second = one.due as usize;
        if seconds.len() <= second {
            seconds.resize_with(second + 1, Second::default);
        }
        seconds[second].add(one);
    }
    seconds.pop();
    seconds
}

/// Adds up a number over all seconds.
pub(crate) fn sum(seconds: &[Second], of: impl Fn(&Second) -> usize) -> usize {
    seconds.iter().map(of).sum()
}

/// Formats a time for a cell of a CSV file, which is empty if there is none.
pub(crate) fn cell(time: Option<f64>) -> String {
    time.map_or_else(String::new, |time| format!("{time:.2}"))
}
