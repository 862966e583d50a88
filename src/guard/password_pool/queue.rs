//! The job queue of the password pool. The queue decides the order of the jobs. It counts the jobs
//! of each source, the jobs of each shared network, and the requests that wait for each job.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::guard::password_pool::{Answer, Job, Turn};
use crate::guard::verdicts::Attempt;

/// The queued jobs, and the attempts that are queued or being computed.
#[derive(Default)]
pub(super) struct Queue {
    known: Lane,
    unknown: Lane,
    /// The total number of queued jobs, of known clients and of unknown clients.
    pub(super) waiting: usize,
    /// The number of queued jobs per shared network. Jobs of known clients are not counted.
    by_network: HashMap<u64, usize>,
    /// The attempts that are queued or being computed.
    asked: HashMap<Attempt, Asked>,
    pub(super) is_closed: bool,
}

/// An attempt that is queued or being computed.
struct Asked {
    answer: Arc<Answer>,
    turn: Turn,
    /// The number of requests that wait for `answer`.
    requests: usize,
}

impl Queue {
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

    /// Adds a request to an attempt that is queued or being computed, and returns the attempt's
    /// answer. `None` if the attempt is not queued and is not being computed.
    pub(super) fn join(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        let asked = self.asked.get_mut(attempt)?;
        asked.requests += 1;
        Some(Arc::clone(&asked.answer))
    }

    /// Removes a request that waits for `answer`. If no other request waits for `answer`, removes
    /// the job from the queue, unless a thread has already taken the job.
    pub(super) fn leave(&mut self, attempt: &Attempt, answer: &Arc<Answer>) {
        let Some(asked) = self.asked.get_mut(attempt) else { return };
        // If the answers differ, the job of `answer` is finished and a new job for the same attempt
        // is queued or being computed. The removed request did not wait for the new job, so the
        // request count of the new job is not reduced.
        if !Arc::ptr_eq(&asked.answer, answer) {
            return;
        }
        asked.requests -= 1;
        let (turn, is_last) = (asked.turn, asked.requests == 0);
        if is_last && let Some(job) = self.lane(turn.is_known).remove(turn.source, attempt) {
            self.uncount(&job);
            self.asked.remove(attempt);
        }
    }

    /// Adds a job with one waiting request, and returns the job's answer.
    pub(super) fn push(&mut self, job: Job) -> Arc<Answer> {
        self.waiting += 1;
        let turn = job.turn;
        if let Some(network) = Self::network(turn) {
            *self.by_network.entry(network).or_default() += 1;
        }
        let answer = Arc::<Answer>::default();
        let asked = Asked { answer: Arc::clone(&answer), turn, requests: 1 };
        self.asked.insert(job.attempt, asked);
        self.lane(turn.is_known).push(turn.source, job);
        answer
    }

    /// Removes a finished attempt and returns its answer, which the caller must complete.
    pub(super) fn finish(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        self.asked.remove(attempt).map(|asked| asked.answer)
    }

    /// Removes and returns the next job. Jobs of known clients come first.
    pub(super) fn take(&mut self) -> Option<Job> {
        let job = self.known.pop().or_else(|| self.unknown.pop())?;
        self.uncount(&job);
        Some(job)
    }

    /// Evicts a job of an unknown client and returns the job's answer, which the caller must
    /// complete.
    pub(super) fn evict(&mut self) -> Option<Arc<Answer>> {
        let job = self.unknown.pop_newest()?;
        self.uncount(&job);
        self.finish(&job.attempt)
    }

    fn uncount(&mut self, job: &Job) {
        self.waiting -= 1;
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
    }

    /// Removes and returns the oldest job of the first source in `turns`. If the source has more
    /// jobs, it moves to the end of `turns`.
    fn pop(&mut self) -> Option<Job> {
        let source = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&source)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        job
    }

    /// Removes and returns the job of this source and attempt.
    fn remove(&mut self, source: u64, attempt: &Attempt) -> Option<Job> {
        let jobs = self.jobs.get_mut(&source)?;
        let job = jobs.remove(jobs.iter().position(|job| job.attempt == *attempt)?);
        if jobs.is_empty() {
            self.jobs.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        job
    }

    /// Removes and returns the newest job of the last source in `turns`.
    fn pop_newest(&mut self) -> Option<Job> {
        let source = *self.turns.back()?;
        let jobs = self.jobs.get_mut(&source)?;
        let job = jobs.pop_back();
        if jobs.is_empty() {
            self.jobs.remove(&source);
            self.turns.pop_back();
        }
        job
    }
}
