//! Decides when keys that rotate by themselves are made and when they begin to sign.
//!
//! There is always a next key, which is published long before it signs: it is made when its
//! predecessor begins to sign. So a server that reaches no other one at the moment of a change knows the
//! next key already, and its key set has it. It begins to sign with it a little later, because the
//! others may have postponed it.
//!
//! The decision is made from values alone. Servers that share the keys may all decide: the store
//! makes sure that one of them acts.

use crate::keys::key_set::KeySet;
use crate::keys::life::{KeyTimes, Retention, signs_since};
use crate::keys::signing_key::SigningKey;
use crate::time::UnixTime;

/// The rules of a rotation. All times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The time for which each key signs; `None` if keys are made by hand.
    pub every: Option<u64>,
    /// How long verifiers may use key sets and tokens.
    pub retention: Retention,
    /// The least time before a key begins to sign at which the servers must have published it, so
    /// that all of them learn in time if it begins later.
    pub lead: u64,
}

/// A key as the rotation sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedKey {
    /// The `kid`.
    pub id: String,
    /// Its times.
    pub times: KeyTimes,
    /// Whether it begins to sign even if key sets lack it, because older keys have leaked.
    pub is_immediate: bool,
}

/// A server that shares the keys, and that may be answering requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The name of the server in the log.
    pub name: String,
    /// The keys in the key set of the server, each with the time since which it is there; 0 if the
    /// server has answered with no key set that lacks it.
    pub published: Vec<(String, UnixTime)>,
    /// How long verifiers may use a key set of this server.
    pub max_age: u64,
}

/// The step that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// A key must be made, with these times.
    Make(KeyTimes),
    /// A key must begin to sign later.
    Postpone {
        /// The `kid`.
        key_id: String,
        /// When it begins to sign.
        to: UnixTime,
        /// The servers that have not published it, or not for long enough.
        because_of: Vec<String>,
    },
}

impl PlannedKey {
    /// Returns all keys of `keys`, with the times in their documents: a server that holds a key back
    /// must not take that for the time at which the others begin.
    pub fn all(keys: &KeySet) -> Vec<Self> {
        keys.iter().map(Self::of).collect()
    }

    pub(super) fn of(key: &SigningKey) -> Self {
        let (id, is_immediate) = (key.key_id().to_owned(), key.is_immediate);
        Self { id, times: key.times, is_immediate }
    }
}

impl Publisher {
    /// Returns when every key set of this server that a verifier may still use has the key. `None`
    /// if the server has not published it.
    fn known_to_verifiers(&self, key_id: &str) -> Option<UnixTime> {
        let (_, since) = self.published.iter().find(|(id, _)| id == key_id)?;
        Some(if *since == UnixTime(0) { *since } else { *since + 2 * self.max_age })
    }
}

impl Rotation {
    /// The shortest time for which a key may sign. A shorter `every` counts as this: a longer
    /// lifetime of some client's tokens must not stop the rotation.
    pub fn shortest(retention: &Retention) -> u64 {
        2 * retention.jwks_max_age + retention.token_lifetime + MARGIN
    }

    /// Returns a text that says why `every` is too short; `None` if it is not.
    pub fn problem(every: u64, retention: &Retention) -> Option<String> {
        let shortest = Self::shortest(retention);
        let Retention { jwks_max_age, token_lifetime } = retention;
        (every < shortest).then(|| {
            format!(
                "{every} s are too short: a key has to sign for at least {shortest} s, which is \
                 twice jwks_max_age ({jwks_max_age} s), the time for which a token of a retired key \
                 may be valid ({token_lifetime} s), and {MARGIN} s; set it to \"{shortest}s\" or \
                 more, or give tokens a shorter lifetime"
            )
        })
    }

    /// Returns what is to be done at `now` with `keys`, which `publishers` share. Without
    /// publishers, every server publishes a key as soon as it is made.
    pub fn step(&self, keys: &[PlannedKey], publishers: &[Publisher], now: UnixTime) -> Step {
        let Some(signs_since) = signs_since(keys.iter().map(|key| key.times.signs_from), now)
        else {
            // The first key is made at the start of a server.
            return Step::None;
        };
        let later = keys.iter().filter(|key| key.times.signs_from > signs_since);
        match later.min_by_key(|key| key.times.signs_from) {
            None => self.make(signs_since, publishers, now),
            Some(next) if next.is_immediate || next.times.signs_from > now + self.lead(next) => {
                Step::None
            }
            Some(next) => postpone(next, publishers, now),
        }
    }

    /// How long before `key` begins to sign the servers must have published it: some minutes, so
    /// that operators have time, but not so soon after its publication that servers may not know it.
    fn lead(&self, key: &PlannedKey) -> u64 {
        let KeyTimes { published_at, signs_from } = key.times;
        self.lead.max(LONGEST_LEAD.min(signs_from.since(published_at) / 4))
    }

    fn make(&self, signs_since: UnixTime, publishers: &[Publisher], now: UnixTime) -> Step {
        let Some(every) = self.every else { return Step::None };
        let max_age = publishers.iter().map(|publisher| publisher.max_age);
        let max_age = max_age.chain([self.retention.jwks_max_age]).max().unwrap_or(0);
        let planned = signs_since + every.max(Self::shortest(&self.retention));
        let earliest = now + 2 * max_age + MARGIN;
        Step::Make(KeyTimes { published_at: now, signs_from: planned.max(earliest) })
    }
}

fn postpone(key: &PlannedKey, publishers: &[Publisher], now: UnixTime) -> Step {
    let (to, because_of) = ready(&key.id, publishers, now);
    // A key that is made by hand is read by each server a moment after its time of publication. At
    // least one age of a key set must pass, for verifiers that have it from the server itself.
    let shortest = publishers.iter().map(|publisher| publisher.max_age).min().unwrap_or(0);
    if to <= key.times.signs_from + MARGIN.min(shortest) {
        return Step::None;
    }
    Step::Postpone { key_id: key.id.clone(), to, because_of }
}

/// Returns when every key set that a verifier may still use has the key, and the servers whose key
/// sets are the last. A server that has not published it counts as publishing it soon.
fn ready(key_id: &str, publishers: &[Publisher], now: UnixTime) -> (UnixTime, Vec<String>) {
    let times = publishers.iter().map(|publisher| {
        let postponed = now + longest_postponement(publisher.max_age);
        (publisher.known_to_verifiers(key_id).unwrap_or(postponed), publisher)
    });
    let times: Vec<_> = times.collect();
    let last = times.iter().map(|(time, _)| *time).max().unwrap_or_default();
    let of_last = times.iter().filter(|(time, _)| *time == last);
    (last, of_last.map(|(_, publisher)| publisher.name.clone()).collect())
}

/// Returns for how many seconds at most a key is postponed at a time, if verifiers may use key sets for
/// `max_age` seconds: until a server that has not published it has read it, and no verifier has an older
/// key set.
pub fn longest_postponement(max_age: u64) -> u64 {
    2 * max_age + 2 * MARGIN
}

/// Returns the earliest time at which the published key `key` may begin to sign, which may be `now`.
///
/// # Errors
///
/// The names of the servers that have not published it.
pub fn earliest_start(
    key: &PlannedKey,
    publishers: &[Publisher],
    retention: &Retention,
    now: UnixTime,
) -> Result<UnixTime, Vec<String>> {
    let lacks = |publisher: &&Publisher| publisher.known_to_verifiers(&key.id).is_none();
    let lacking: Vec<_> =
        publishers.iter().filter(lacks).map(|publisher| publisher.name.clone()).collect();
    if !lacking.is_empty() {
        return Err(lacking);
    }
    let published = key.times.published_at + 2 * retention.jwks_max_age;
    Ok(ready(&key.id, publishers, now).0.max(published).max(now))
}

/// The seconds before a key begins to sign at which the servers must have published it, if that is
/// late enough after its publication.
const LONGEST_LEAD: u64 = 300;
/// The seconds by which the clocks of two servers may differ.
pub const MARGIN: u64 = 10;

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    const DAY: u64 = 86_400;
    const ROTATION: Rotation = Rotation { every: Some(DAY), retention: RETENTION, lead: 30 };

    fn key(id: &str, published_at: u64, signs_from: u64) -> PlannedKey {
        let times =
            KeyTimes { published_at: UnixTime(published_at), signs_from: UnixTime(signs_from) };
        PlannedKey { id: id.to_owned(), times, is_immediate: false }
    }

    fn server(name: &str, published: &[(&str, u64)]) -> Publisher {
        let published = published.iter().map(|(id, since)| ((*id).to_owned(), UnixTime(*since)));
        Publisher { name: name.to_owned(), published: published.collect(), max_age: 300 }
    }

    fn made(published_at: u64, signs_from: u64) -> Step {
        Step::Make(key("", published_at, signs_from).times)
    }

    fn postponed(to: u64, because_of: &[&str]) -> Step {
        let because_of = because_of.iter().map(|name| (*name).to_owned()).collect();
        Step::Postpone { key_id: "next".to_owned(), to: UnixTime(to), because_of }
    }

    #[test]
    fn the_next_key_is_made_as_soon_as_its_predecessor_signs() {
        let at = |keys: &[PlannedKey], now| ROTATION.step(keys, &[], UnixTime(now));
        assert_eq!(at(&[], 5), Step::None);
        let first = key("first", 1000, 1000);
        assert_eq!(at(from_ref(&first), 1000), made(1000, 1000 + DAY));
        let next = key("next", 1000, 1000 + DAY);
        let both = [first, next];
        assert_eq!(at(&both, 1001), Step::None);
        assert_eq!(at(&both, 999 + DAY), Step::None);
        assert_eq!(at(&both, 1000 + DAY), made(1000 + DAY, 1000 + 2 * DAY));
        // Late, but never without time for the verifiers.
        assert_eq!(at(&both, 900 + 2 * DAY), made(900 + 2 * DAY, 900 + 2 * DAY + 610));
        // A key without times counts as one of 1970.
        assert_eq!(at(&[key("old", 0, 0)], 2 * DAY), made(2 * DAY, 2 * DAY + 610));
        let by_hand = Rotation { every: None, ..ROTATION };
        assert_eq!(by_hand.step(&both, &[], UnixTime(3 * DAY)), Step::None);
    }

    #[test]
    fn what_is_too_short_is_refused_and_does_not_stop_the_rotation() {
        assert_eq!(Rotation::shortest(&RETENTION), 4210);
        assert_eq!(Rotation::problem(4210, &RETENTION), None);
        let problem = Rotation::problem(4209, &RETENTION).unwrap();
        assert!(problem.contains("4209 s are too short") && problem.contains("4210"), "{problem}");
        let hasty = Rotation { every: Some(60), ..ROTATION };
        let first = key("first", 1000, 1000);
        assert_eq!(hasty.step(&[first], &[], UnixTime(1000)), made(1000, 5210));
        let slow = Publisher { max_age: 3000, ..server("slow", &[]) };
        let first = key("first", 1000, 1000);
        assert_eq!(hasty.step(&[first], &[slow], UnixTime(1000)), made(1000, 7010));
    }

    #[test]
    fn a_key_signs_only_when_every_live_server_has_published_it() {
        let keys = [key("first", 0, 1000), key("next", 1000, 10_000)];
        let at = |servers: &[Publisher], now| ROTATION.step(&keys, servers, UnixTime(now));
        let has = server("a", &[("first", 0), ("next", 1001)]);
        let lacks = server("b", &[("first", 0)]);
        assert_eq!(at(from_ref(&has), 9_999), Step::None);
        // Until five minutes before, a server may still come.
        assert_eq!(at(&[has.clone(), lacks.clone()], 9_699), Step::None);
        assert_eq!(at(&[has.clone(), lacks.clone()], 9_700), postponed(10_320, &["b"]));
        assert_eq!(at(&[has.clone(), lacks], 9_970), postponed(10_590, &["b"]));
        // A late server is waited for until no verifier can have its older key sets.
        let late = server("c", &[("next", 9_500)]);
        assert_eq!(at(&[has.clone(), late], 9_970), postponed(10_100, &["c"]));
        // One that has begun with the key has never answered without it.
        let new = server("d", &[("next", 0)]);
        assert_eq!(at(&[has.clone(), new], 9_970), Step::None);
        // The clocks of the servers may differ a little.
        let skewed = server("e", &[("next", 9_410)]);
        assert_eq!(at(&[has.clone(), skewed], 9_970), Step::None);
        // But not by more than an age of a key set.
        let brief = Publisher { max_age: 2, ..server("f", &[("next", 9_998)]) };
        assert_eq!(at(&[brief], 9_999), Step::None);
        let brief = Publisher { max_age: 2, ..server("g", &[("next", 9_999)]) };
        assert_eq!(at(&[has.clone(), brief.clone()], 9_999), postponed(10_003, &["g"]));
        // Keys that replace leaked keys wait for no server.
        let immediate = PlannedKey { is_immediate: true, ..keys[1].clone() };
        let none = [server("b", &[])];
        let step = ROTATION.step(&[keys[0].clone(), immediate], &none, UnixTime(9_999));
        assert_eq!(step, Step::None);
        // Keys that are made by hand are waited for, too.
        let by_hand = Rotation { every: None, ..ROTATION };
        assert_eq!(by_hand.step(&keys, &none, UnixTime(9_999)), postponed(10_619, &["b"]));
    }

    #[test]
    fn a_published_key_may_begin_once_all_key_sets_have_it() {
        let next = key("next", 1000, 90_000);
        let start = |servers: &[Publisher], now| {
            earliest_start(&next, servers, &RETENTION, UnixTime(now)).map(|start| start.0)
        };
        assert_eq!(start(&[], 1100), Ok(1600));
        assert_eq!(start(&[], 5000), Ok(5000));
        let late = server("late", &[("next", 4900)]);
        assert_eq!(start(&[server("a", &[("next", 0)]), late], 5000), Ok(5500));
        assert_eq!(start(&[server("b", &[])], 5000), Err(vec!["b".to_owned()]));
    }
}
