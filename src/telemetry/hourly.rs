//! Warnings about what every request may repeat.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Lets a warning about each thing through once an hour, and about a bounded number of things.
#[derive(Debug, Default)]
pub struct Hourly(Mutex<Warned>);

#[derive(Debug, Default)]
struct Warned {
    /// The hour that `things` belong to, counted from 1970.
    hour: u64,
    things: HashSet<[u8; 32]>,
}

impl Hourly {
    /// Whether to warn of the thing with this hash at `now` (Unix seconds). If so, it was.
    pub fn is_due(&self, thing: [u8; 32], now: u64) -> bool {
        // Whole between any two statements, so a panic elsewhere cannot have broken it.
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = now / 3600;
        if warned.hour != hour {
            *warned = Warned { hour, things: HashSet::new() };
        }
        warned.things.len() < MOST && warned.things.insert(thing)
    }
}

/// Things in an hour.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_due_once_an_hour_and_not_too_many_of_them() {
        let hourly = Hourly::default();
        for now in [3600, 7200, 3600] {
            assert!(hourly.is_due([1; 32], now));
            assert!(!hourly.is_due([1; 32], now + 3599));
            assert!(hourly.is_due([2; 32], now));
        }
        let due = |thing: u8| hourly.is_due([thing; 32], 0);
        assert_eq!((0..=255).filter(|thing| due(*thing)).count(), MOST);
    }
}
