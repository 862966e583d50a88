//! The queue of the pool: the order of jobs, the shares of their sources, and the requests that
//! wait for each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::store::password_pool::{Answer, Job, Turn};
use crate::store::verdicts::Attempt;

/// The queued jobs, and the attempts that are queued or being computed.
#[derive(Default)]
pub(super) struct Queue {
    known: Lane,
    unknown: Lane,
    /// The number of jobs in both lanes.
    pub(super) waiting: usize,
    /// The number of jobs per shared network, without those of known clients.
    by_network: HashMap<u64, usize>,
    /// The attempts that are queued or being computed.
    asked: HashMap<Attempt, Asked>,
    pub(super) is_closed: bool,
}

/// An attempt that requests wait for.
struct Asked {
    answer: Arc<Answer>,
    turn: Turn,
    /// The number of requests that wait for it.
    requests: usize,
}

impl Queue {
    fn lane(&mut self, is_known: bool) -> &mut Lane {
        if is_known { &mut self.known } else { &mut self.unknown }
    }

    /// Returns the shared network whose share the job counts for.
    fn network(turn: Turn) -> Option<u64> {
        turn.shared_network.filter(|_| !turn.is_known)
    }

    /// The number of jobs that count for the share of this network.
    pub(super) fn held_by_network(&self, turn: Turn) -> usize {
        Self::network(turn).and_then(|network| self.by_network.get(&network)).map_or(0, |it| *it)
    }

    /// The number of jobs of this source.
    pub(super) fn held_by_source(&mut self, turn: Turn) -> usize {
        self.lane(turn.is_known).held_by(turn.source)
    }

    /// Adds a request to a known attempt. `None` if the attempt is new.
    pub(super) fn join(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        let asked = self.asked.get_mut(attempt)?;
        asked.requests += 1;
        Some(Arc::clone(&asked.answer))
    }

    /// Removes a request that waits for `answer`, and with the last one the job, unless a thread
    /// has taken it.
    pub(super) fn leave(&mut self, attempt: &Attempt, answer: &Arc<Answer>) {
        let Some(asked) = self.asked.get_mut(attempt) else { return };
        // The attempt may have been submitted again since.
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

    /// Adds a job that one request waits for.
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

    /// Removes a finished attempt and returns its answer, for the caller to complete.
    pub(super) fn finish(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        self.asked.remove(attempt).map(|asked| asked.answer)
    }

    /// Takes the next job.
    pub(super) fn take(&mut self) -> Option<Job> {
        let job = self.known.pop().or_else(|| self.unknown.pop())?;
        self.uncount(&job);
        Some(job)
    }

    /// Evicts a job of an unknown client and returns its answer, for the caller to complete.
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

/// Jobs of several sources, which are served round-robin.
#[derive(Default)]
struct Lane {
    jobs: HashMap<u64, VecDeque<Job>>,
    /// The sources that have jobs in this lane, each once.
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

    /// Takes the oldest job of the source whose turn it is.
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

    /// Removes the job of this source and attempt.
    fn remove(&mut self, source: u64, attempt: &Attempt) -> Option<Job> {
        let jobs = self.jobs.get_mut(&source)?;
        let job = jobs.remove(jobs.iter().position(|job| job.attempt == *attempt)?);
        if jobs.is_empty() {
            self.jobs.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        job
    }

    /// Takes the newest job of the source whose turn is last.
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
