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

/// A time in which a fresh assertion may be refused.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) name: String,
    /// The server whose answers it is about; `None`: those of all servers.
    pub(super) node: Option<usize>,
    /// When it begins (Unix microseconds).
    pub(super) from: u64,
    /// When what was away is back (Unix microseconds): the window ends [`LONGEST`] later.
    pub(super) back: u64,
}

/// The longest time for which a fresh assertion is refused after the database is back, in
/// microseconds.
pub(super) const LONGEST: u64 = 15_000_000;

impl Window {
    fn covers(&self, attempt: &Attempt) -> bool {
        self.node.is_none_or(|node| node == attempt.node)
            && attempt.answered >= self.from
            && attempt.sent <= self.back + LONGEST
    }
}

/// Checks the history, and returns a line for each window and one for the whole.
///
/// # Errors
///
/// What does not hold.
pub(super) fn check(
    name: &str,
    history: &[Attempt],
    windows: &[Window],
    nodes: usize,
) -> Result<String, String> {
    let mut accepted: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in history.iter().filter(|attempt| attempt.is_accepted()) {
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
    let refused = history.iter().filter(is_refused);
    for attempt in refused {
        if !windows.iter().any(|window| window.covers(attempt)) {
            return Err(format!("{name}: refused: {attempt:#?}\nwindows: {windows:#?}"));
        }
        if let Some((status, error)) = &attempt.answer {
            let known = [
                (400, "invalid_client"),
                (400, "invalid_dpop_proof"),
                (503, "temporarily_unavailable"),
            ];
            if !known.contains(&(*status, error)) {
                return Err(format!("{name}: refused in another way: {attempt:#?}"));
            }
        }
    }
    let mut text = String::new();
    for window in windows {
        let is_of_a_later_one = |one: &Attempt| {
            windows.iter().any(|later| later.from > window.from && later.covers(one))
        };
        let of_this = history
            .iter()
            .filter(|one| is_refused(one) && window.covers(one) && !is_of_a_later_one(one));
        let last = of_this.max_by_key(|one| one.sent);
        let after = last.map_or(0, |last| last.sent.saturating_sub(window.back));
        let (away, after) = (window.back.saturating_sub(window.from), after);
        writeln!(
            text,
            "{name}: {}: away for {}.{} s, then refused for {}.{} s{}",
            window.name,
            away / 1_000_000,
            away / 100_000 % 10,
            after / 1_000_000,
            after / 100_000 % 10,
            last.and_then(|last| last.answer.as_ref())
                .map_or_else(String::new, |(status, error)| format!(", last by {status} {error}")),
        )
        .unwrap();
        for node in window.node.map_or(0..nodes, |node| node..node + 1) {
            let is_later = |one: &&Attempt| one.node == node && one.sent > window.back;
            let is_fresh = |one: &&Attempt| one.is_first && one.is_accepted();
            if !history.iter().filter(is_later).any(|one| is_fresh(&one)) {
                return Err(format!("{name}: node {node} accepts nothing after {}", window.name));
            }
        }
    }
    let replays = history.iter().filter(|one| !one.is_first).count();
    let fresh = history.len() - replays;
    write!(text, "{name}: {fresh} fresh, {} accepted, {replays} replays", accepted.len()).unwrap();
    Ok(text)
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
        let once = attempt("a", 200, 1, true);
        let replayed = attempt("a", 400, 2, false);
        assert!(check("", &[once.clone(), replayed], &[], 1).is_ok());
        let again = attempt("a", 200, 100, false);
        let found = check("", &[once.clone(), again], &[], 1).unwrap_err();
        assert!(found.contains("accepted twice"), "{found}");

        let window = Window { name: "w".to_owned(), node: Some(0), from: 10, back: 20 };
        let of = |sent| [once.clone(), attempt("b", 400, sent, true), attempt("c", 200, 30, true)];
        let checked = |sent| check("", &of(sent), std::slice::from_ref(&window), 1);
        assert!(checked(8).is_err() && checked(21 + LONGEST).is_err());
        assert!(checked(9).is_ok() && checked(20 + LONGEST).is_ok());
        let elsewhere = Window { node: Some(1), ..window.clone() };
        assert!(check("", &of(15), &[elsewhere], 2).is_err());
        // Nothing is accepted after the window.
        assert!(check("", &of(15)[..2], &[window], 1).is_err());
    }
}
