//! The queue in front of the threads: who waits, whose turn it is, and who has left.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::store::password_pool::{Answer, Job, Turn};
use crate::store::verdicts::Attempt;

/// The secrets that wait, and how many requests wait for each.
#[derive(Default)]
pub(super) struct Queue {
    known: Lane,
    unknown: Lane,
    /// Jobs in both lanes.
    pub(super) waiting: usize,
    /// Jobs of each network that many share, without those of clients that are known.
    by_network: HashMap<u64, usize>,
    /// What is waiting or being computed.
    asked: HashMap<Attempt, Asked>,
    pub(super) is_closed: bool,
}

/// One secret that requests wait for.
struct Asked {
    answer: Arc<Answer>,
    turn: Turn,
    /// How many requests wait for it.
    requests: usize,
}

impl Queue {
    fn lane(&mut self, is_known: bool) -> &mut Lane {
        if is_known { &mut self.known } else { &mut self.unknown }
    }

    /// The shared network that a job counts for.
    fn network(turn: Turn) -> Option<u64> {
        turn.shared_network.filter(|_| !turn.is_known)
    }

    pub(super) fn held_by_network(&self, turn: Turn) -> usize {
        Self::network(turn).and_then(|network| self.by_network.get(&network)).map_or(0, |it| *it)
    }

    /// How many places this source has.
    pub(super) fn held_by_source(&mut self, turn: Turn) -> usize {
        self.lane(turn.is_known).held_by(turn.source)
    }

    /// One request more for a secret that is there already.
    pub(super) fn join(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        let asked = self.asked.get_mut(attempt)?;
        asked.requests += 1;
        Some(Arc::clone(&asked.answer))
    }

    /// One request less that waits for this answer. The secret goes with the last, unless a thread
    /// has it.
    pub(super) fn leave(&mut self, attempt: &Attempt, answer: &Arc<Answer>) {
        let Some(asked) = self.asked.get_mut(attempt) else { return };
        // The same secret may have been asked for again since.
        if !Arc::ptr_eq(&asked.answer, answer) {
            return;
        }
        asked.requests -= 1;
        let (turn, is_last) = (asked.turn, asked.requests == 0);
        if is_last && let Some(job) = self.lane(turn.is_known).remove(turn.source, attempt) {
            self.left(&job);
            self.asked.remove(attempt);
        }
    }

    /// Adds a secret that one request waits for, and says where its verdict will be.
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

    /// Where the verdict has to be told.
    pub(super) fn finish(&mut self, attempt: &Attempt) -> Option<Arc<Answer>> {
        self.asked.remove(attempt).map(|asked| asked.answer)
    }

    pub(super) fn take(&mut self) -> Option<Job> {
        let job = self.known.pop().or_else(|| self.unknown.pop())?;
        self.left(&job);
        Some(job)
    }

    /// Makes room for a client that is known, and says which requests have to be told.
    pub(super) fn evict(&mut self) -> Option<Arc<Answer>> {
        let job = self.unknown.pop_newest()?;
        self.left(&job);
        self.finish(&job.attempt)
    }

    fn left(&mut self, job: &Job) {
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

/// Jobs of several sources, which take turns.
#[derive(Default)]
struct Lane {
    jobs: HashMap<u64, VecDeque<Job>>,
    /// The sources that have jobs here, each once.
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

    /// The oldest job of the source whose turn it is.
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

    /// The job of this source and attempt, out of its turn.
    fn remove(&mut self, source: u64, attempt: &Attempt) -> Option<Job> {
        let jobs = self.jobs.get_mut(&source)?;
        let job = jobs.remove(jobs.iter().position(|job| job.attempt == *attempt)?);
        if jobs.is_empty() {
            self.jobs.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        job
    }

    /// The newest job of the source whose turn is last.
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
