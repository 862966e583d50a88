//! The job queue of the password pool. The queue decides the order of the jobs. It counts the jobs
//! of each source, the jobs of each shared network, and the requests that wait for each job.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::oneshot::{self, Receiver, Sender};
use zeroize::Zeroizing;

use crate::guard::verdicts::Attempt;
use crate::oauth::error::Cause;
use crate::oauth::password_hash::PasswordHash;

/// The source and priority of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// A hash that identifies the source.
    pub source: u64,
    /// A hash that identifies the client's network. `None` if the network is not shared.
    pub shared_network: Option<u64>,
    /// Whether the client is known: it has authenticated from this network in the last 24 hours.
    pub is_known: bool,
}

/// A hash to compute.
pub(super) struct Job {
    pub(super) attempt: Attempt,
    pub(super) turn: Turn,
    pub(super) client_id: CompactString,
    pub(super) hash: Arc<PasswordHash>,
    pub(super) secret: Zeroizing<String>,
}

/// The queued jobs, and the attempts that are queued or being computed.
#[derive(Default)]
pub(super) struct Queue {
    known: Lane,
    unknown: Lane,
    /// The number of jobs of known clients that were taken since a job of an unknown client.
    known_in_a_row: usize,
    /// The number of queued jobs per shared network. Jobs of known clients are not counted.
    by_network: HashMap<u64, usize>,
    /// The attempts that are queued or being computed.
    asked: HashMap<Attempt, Asked>,
    /// The number of requests so far.
    requests: RequestId,
    pub(super) is_closed: bool,
}

/// An attempt that is queued or being computed.
struct Asked {
    turn: Turn,
    requests: Requests,
}

/// The number of a request, different for each request.
pub(super) type RequestId = u64;

/// One sender for each request that waits for a verdict.
#[derive(Default)]
#[must_use = "the requests wait for their answer"]
pub(super) struct Requests(HashMap<RequestId, Sender<Verdict>>);

impl Requests {
    /// Answers the requests. Must be called without the lock of the queue: an executor may run or
    /// drop a woken request at once, and a request that is dropped takes this lock.
    pub(super) fn answer(self, verdict: Verdict) {
        for request in self.0.into_values() {
            // An error means that the request no longer waits.
            let _ = request.send(verdict);
        }
    }
}

/// Whether the secret matches, or why the job is refused.
type Verdict = Result<bool, Cause>;

impl Queue {
    /// The number of queued jobs, of known clients and of unknown clients.
    pub(super) fn waiting(&self) -> usize {
        self.known.waiting + self.unknown.waiting
    }

    fn lane(&mut self, is_known: bool) -> &mut Lane {
        if is_known { &mut self.known } else { &mut self.unknown }
    }

    /// Returns the network under which `by_network` counts a job with this turn. `None` if the
    /// network is not shared or the client is known.
    fn network(turn: Turn) -> Option<u64> {
        turn.shared_network.filter(|_| !turn.is_known)
    }

    /// Returns the number of jobs that `by_network` counts for the network of `turn`. Returns 0 if
    /// that network is not shared or the client is known.
    pub(super) fn held_by_network(&self, turn: Turn) -> usize {
        Self::network(turn).and_then(|network| self.by_network.get(&network)).map_or(0, |it| *it)
    }

    /// The number of queued jobs of the source of `turn`.
    pub(super) fn held_by_source(&mut self, turn: Turn) -> usize {
        self.lane(turn.is_known).held_by(turn.source)
    }

    /// Adds a request to an attempt that is queued or being computed. `None` if the attempt is not
    /// queued and is not being computed.
    pub(super) fn join(&mut self, attempt: &Attempt) -> Option<(RequestId, Receiver<Verdict>)> {
        let asked = self.asked.get_mut(attempt)?;
        let (sender, receiver) = oneshot::channel();
        self.requests += 1;
        asked.requests.0.insert(self.requests, sender);
        Some((self.requests, receiver))
    }

    /// Removes a request for an attempt, because it no longer waits. If no request is left, removes
    /// the job from the queue, unless a thread has already taken the job.
    pub(super) fn leave(&mut self, attempt: &Attempt, request: RequestId) {
        let Some(asked) = self.asked.get_mut(attempt) else { return };
        asked.requests.0.remove(&request);
        let (turn, is_last) = (asked.turn, asked.requests.0.is_empty());
        let is_it = |job: &Job| job.attempt == *attempt;
        let own = |jobs: &mut VecDeque<Job>| jobs.remove(jobs.iter().position(is_it)?);
        if is_last && let Some(job) = self.lane(turn.is_known).remove(turn.source, own) {
            self.uncount(&job);
            self.asked.remove(attempt);
        }
    }

    /// Adds a job with one waiting request.
    pub(super) fn push(&mut self, job: Job) -> (RequestId, Receiver<Verdict>) {
        let turn = job.turn;
        if let Some(network) = Self::network(turn) {
            *self.by_network.entry(network).or_default() += 1;
        }
        let (sender, receiver) = oneshot::channel();
        self.requests += 1;
        let requests = Requests(HashMap::from([(self.requests, sender)]));
        self.asked.insert(job.attempt, Asked { turn, requests });
        self.lane(turn.is_known).push(turn.source, job);
        (self.requests, receiver)
    }

    /// Removes a finished attempt. Returns the requests that wait for it.
    pub(super) fn finish(&mut self, attempt: &Attempt) -> Requests {
        self.asked.remove(attempt).map(|asked| asked.requests).unwrap_or_default()
    }

    /// Removes and returns the next job. Jobs of known clients come first, except that one of an
    /// unknown client comes after [`KNOWN_IN_A_ROW`] of them.
    pub(super) fn take(&mut self) -> Option<Job> {
        let is_known_first = self.known_in_a_row < KNOWN_IN_A_ROW;
        let first = self.lane(is_known_first).pop();
        let job = first.or_else(|| self.lane(!is_known_first).pop())?;
        self.known_in_a_row = if job.turn.is_known { self.known_in_a_row + 1 } else { 0 };
        self.uncount(&job);
        Some(job)
    }

    /// Makes room for a job with this turn in a full queue of `capacity` jobs: if the other clients
    /// (unknown or known ones) hold more than their share, evicts a job of theirs; otherwise one of
    /// the source in the same lane with the most jobs, if it has more than the source of `turn`
    /// would have. Returns the requests that wait for the evicted job. `None` if there is none.
    pub(super) fn evict_for(&mut self, turn: Turn, capacity: usize) -> Option<Requests> {
        let share_of_unknown = capacity / (KNOWN_IN_A_ROW + 1);
        let share = if turn.is_known { share_of_unknown } else { capacity - share_of_unknown };
        let wanted = self.held_by_source(turn) + 1;
        let others = self.lane(!turn.is_known);
        let job = if others.waiting > share {
            others.pop_newest()
        } else {
            self.lane(turn.is_known).pop_of_longest(wanted)
        }?;
        self.uncount(&job);
        Some(self.finish(&job.attempt))
    }

    fn uncount(&mut self, job: &Job) {
        if let Some(network) = Self::network(job.turn)
            && let Some(held) = self.by_network.get_mut(&network)
        {
            *held -= 1;
            if *held == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

/// The jobs of several sources, which are served round-robin.
#[derive(Default)]
struct Lane {
    jobs: HashMap<u64, VecDeque<Job>>,
    /// The sources that have jobs in this lane, in the order in which they are served. Each source
    /// is listed once.
    turns: VecDeque<u64>,
    /// The number of jobs of all sources.
    waiting: usize,
}

impl Lane {
    fn held_by(&self, source: u64) -> usize {
        self.jobs.get(&source).map_or(0, VecDeque::len)
    }

    fn push(&mut self, source: u64, job: Job) {
        let jobs = self.jobs.entry(source).or_default();
        if jobs.is_empty() {
            self.turns.push_back(source);
        }
        jobs.push_back(job);
        self.waiting += 1;
    }

    /// Removes and returns the oldest job of the first source in `turns`. If the source has more
    /// jobs, it moves to the end of `turns`.
    fn pop(&mut self) -> Option<Job> {
        let source = *self.turns.front()?;
        self.turns.rotate_left(1);
        self.remove(source, VecDeque::pop_front)
    }

    /// Removes and returns the newest job of the last source in `turns`.
    fn pop_newest(&mut self) -> Option<Job> {
        self.remove(*self.turns.back()?, VecDeque::pop_back)
    }

    /// Removes and returns the newest job of the source with the most jobs. `None` if it has at most
    /// `few`.
    fn pop_of_longest(&mut self, few: usize) -> Option<Job> {
        let (source, jobs) = self.jobs.iter().max_by_key(|(_, jobs)| jobs.len())?;
        let source = (jobs.len() > few).then_some(*source)?;
        self.remove(source, VecDeque::pop_back)
    }

    /// Removes and returns the job of this source that `take` takes.
    fn remove(
        &mut self,
        source: u64,
        take: impl FnOnce(&mut VecDeque<Job>) -> Option<Job>,
    ) -> Option<Job> {
        let jobs = self.jobs.get_mut(&source)?;
        let job = take(jobs)?;
        if jobs.is_empty() {
            self.jobs.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        self.waiting -= 1;
        Some(job)
    }
}

/// After this number of jobs of known clients comes a job of an unknown client, if one waits. A full
/// queue is divided in the same proportion.
const KNOWN_IN_A_ROW: usize = 3;
