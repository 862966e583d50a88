//! The history of all uses that the clients of a test have tried, and what must hold of it.

use std::collections::HashMap;
use std::fmt::Write;

/// One use of an assertion or proof that a client has tried.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The `jti`.
    pub(super) id: String,
    /// The server that was asked.
    pub(super) node: usize,
    /// Whether no server was asked before with this `jti`.
    pub(super) is_first: bool,
    /// The `iat` (Unix seconds).
    pub(super) signed_at: u64,
    /// When it was sent and answered (Unix microseconds).
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// The status of the answer, and the error in it; `None` if the server has closed the connection
    /// or does not listen.
    pub(super) answer: Option<(u16, String)>,
}

impl Attempt {
    pub(super) fn is_accepted(&self) -> bool {
        self.answer.as_ref().is_some_and(|(status, _)| *status == 200)
    }
}

/// When what was away is back, in Unix microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    pub(super) at: u64,
    /// When the guard was born, by the database. On a slow machine, that may be long after `at`.
    pub(super) born: u64,
}

/// A time in which a fresh assertion may be refused.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) name: String,
    /// The server whose answers it is about; `None`: those of all servers.
    pub(super) node: Option<usize>,
    /// When it begins (Unix microseconds).
    pub(super) from: u64,
    /// `None` if the fault lasts.
    pub(super) back: Option<Back>,
}

/// The longest time for which a fresh assertion is refused after the database is back, in
/// microseconds.
pub(super) const LONGEST: u64 = 15_000_000;
/// The same after the birth of the guard: the tolerance for clocks, and a second, because an `iat` is
/// in whole seconds.
const AFTER_BIRTH: u64 = 11_000_000;

impl Window {
    fn covers(&self, attempt: &Attempt) -> bool {
        self.node.is_none_or(|node| node == attempt.node)
            && attempt.answered >= self.from
            && self.back.is_none_or(|Back { at, born }| {
                attempt.sent <= (at + LONGEST).max(born + AFTER_BIRTH)
            })
    }
}

/// The history of a test.
pub(super) struct History<'a> {
    pub(super) name: &'a str,
    pub(super) attempts: &'a [Attempt],
    pub(super) windows: &'a [Window],
    /// The number of servers.
    pub(super) nodes: usize,
    /// Whether a server has logged that a database that ran did not answer in time. Then a 503 is
    /// counted, no matter when.
    pub(super) is_slow: bool,
}

impl<'a> History<'a> {
    /// Checks the history, and returns a line for each window and one for the whole.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check(&self) -> Result<String, String> {
        let Self { name, attempts, windows, .. } = self;
        let mut accepted: HashMap<&str, Vec<&Attempt>> = HashMap::new();
        for attempt in attempts.iter().filter(|attempt| attempt.is_accepted()) {
            accepted.entry(&attempt.id).or_default().push(attempt);
        }
        if let Some(twice) = accepted.values().find(|uses| uses.len() > 1) {
            return Err(format!("{name}: accepted twice: {twice:#?}\nwindows: {windows:#?}"));
        }
        // Another client may have been faster with it.
        let is_used_up = |first: &Attempt| {
            let uses = accepted.get(&*first.id);
            uses.is_some_and(|uses| uses.iter().any(|used| used.sent < first.answered))
        };
        let is_refused = |one: &&Attempt| one.is_first && !one.is_accepted() && !is_used_up(one);
        let refused: Vec<_> = attempts.iter().filter(is_refused).collect();
        let slow = self.check_refused(&refused)?;
        let mut text = String::new();
        for window in *windows {
            writeln!(text, "{name}: {}", self.describe(window, &refused)?).unwrap();
        }
        let replays = attempts.iter().filter(|one| !one.is_first).count();
        let (fresh, accepted) = (attempts.len() - replays, accepted.len());
        write!(text, "{name}: {fresh} fresh, {accepted} accepted, {replays} replays").unwrap();
        if slow > 0 {
            write!(text, ", {slow} refused by 503 because the database was slow").unwrap();
        }
        Ok(text)
    }

    /// Checks what is fresh and was refused. Returns how much of it was because of a slow database.
    fn check_refused(&self, refused: &[&Attempt]) -> Result<usize, String> {
        let Self { name, windows, .. } = self;
        let mut slow = 0;
        for attempt in refused {
            let answer = attempt.answer.as_ref().map(|(status, error)| (*status, &**error));
            let is_away = answer == Some((503, "temporarily_unavailable"));
            if !windows.iter().any(|window| window.covers(attempt)) {
                if !(is_away && self.is_slow) {
                    return Err(format!("{name}: refused: {attempt:#?}\nwindows: {windows:#?}"));
                }
                slow += 1;
            }
            let known = [(400, "invalid_client"), (400, "invalid_dpop_proof")];
            if !is_away && answer.is_some_and(|answer| !known.contains(&answer)) {
                return Err(format!("{name}: refused in another way: {attempt:#?}"));
            }
        }
        Ok(slow)
    }

    /// Says how long the window was, and checks that it has ended.
    fn describe(&self, window: &Window, refused: &[&'a Attempt]) -> Result<String, String> {
        let back = window.back.ok_or_else(|| format!("{}: lasts", window.name))?;
        let is_of_a_later_one = |one: &Attempt| {
            self.windows.iter().any(|later| later.from > window.from && later.covers(one))
        };
        let of_this = refused.iter().filter(|one| window.covers(one) && !is_of_a_later_one(one));
        let last = of_this.max_by_key(|one| one.sent);
        let mut text = format!(
            "{}: away for {}, then refused for {}",
            window.name,
            seconds(back.at.saturating_sub(window.from)),
            seconds(last.map_or(0, |last| last.sent.saturating_sub(back.at))),
        );
        if let Some((status, error)) = last.and_then(|last| last.answer.as_ref()) {
            write!(text, ", last by {status} {error}").unwrap();
        }
        if back.born > back.at {
            write!(text, ", guard born after {}", seconds(back.born - back.at)).unwrap();
        }
        for node in window.node.map_or(0..self.nodes, |node| node..node + 1) {
            let is_later = |one: &Attempt| one.node == node && one.sent > back.at;
            let is_fresh = |one: &Attempt| one.is_first && one.is_accepted();
            if !self.attempts.iter().any(|one| is_later(one) && is_fresh(one)) {
                return Err(format!("{text}: node {node} accepts nothing afterwards"));
            }
        }
        Ok(text)
    }
}

/// Returns the text of a time that is in microseconds.
fn seconds(micros: u64) -> String {
    format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: &str, status: u16, sent: u64, is_first: bool) -> Attempt {
        let error = if status == 200 { "" } else { "invalid_client" };
        let answer = Some((status, error.to_owned()));
        let id = id.to_owned();
        Attempt { id, node: 0, is_first, signed_at: 0, sent, answered: sent + 1, answer }
    }

    #[test]
    fn a_second_accept_and_a_refusal_outside_of_the_windows_are_found() {
        let check = |attempts: &[Attempt], windows: &[Window], nodes, is_slow| {
            History { name: "", attempts, windows, nodes, is_slow }.check()
        };
        let once = attempt("a", 200, 1, true);
        let replayed = attempt("a", 400, 2, false);
        assert!(check(&[once.clone(), replayed], &[], 1, false).is_ok());
        let again = attempt("a", 200, 100, false);
        let found = check(&[once.clone(), again], &[], 1, true).unwrap_err();
        assert!(found.contains("accepted twice"), "{found}");

        let back = Some(Back { at: 20, born: 0 });
        let window = Window { name: "w".to_owned(), node: Some(0), from: 10, back };
        let of = |sent| [once.clone(), attempt("b", 400, sent, true), attempt("c", 200, 30, true)];
        let checked =
            |sent, window: &Window| check(&of(sent), std::slice::from_ref(window), 1, true);
        assert!(checked(8, &window).is_err() && checked(21 + LONGEST, &window).is_err());
        assert!(checked(9, &window).is_ok() && checked(20 + LONGEST, &window).is_ok());
        let born = Some(Back { at: 20, born: 5 + LONGEST });
        let late = Window { back: born, ..window.clone() };
        assert!(checked(5 + LONGEST + AFTER_BIRTH, &late).is_ok());
        assert!(checked(6 + LONGEST + AFTER_BIRTH, &late).is_err());
        let elsewhere = Window { node: Some(1), ..window.clone() };
        assert!(check(&of(15), &[elsewhere], 2, true).is_err());
        // Nothing is accepted after the window.
        assert!(check(&of(15)[..2], std::slice::from_ref(&window), 1, true).is_err());
        // A slow database excuses a 503.
        let mut slow = of(21 + LONGEST);
        slow[1].answer = Some((503, "temporarily_unavailable".to_owned()));
        assert!(check(&slow, std::slice::from_ref(&window), 1, true).is_ok());
        assert!(check(&slow, &[window], 1, false).is_err());
    }
}
