//! Tokens that wait for a signing thread.
//!
//! Each signing thread sees first to the tokens of one event loop: those that it tells of together
//! are then told of at one place, which is woken once. One that finds too few there for a batch adds
//! others', so that none waits where a thread has time.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::jose::jws::SigningInput;
use crate::jose::key_set::SigningKey;
use crate::signing::batch::BATCH;
use crate::signing::delivery::Debt;

/// A token to sign.
pub(super) struct Job {
    pub(super) key: Arc<SigningKey>,
    pub(super) input: SigningInput,
    pub(super) debt: Debt,
}

impl Job {
    pub(super) fn is_of(&self, key: &Arc<SigningKey>) -> bool {
        Arc::ptr_eq(&self.key, key)
    }
}

/// All that wait.
pub(super) struct Queue {
    /// By event loop, each in the order in which they came.
    jobs: Vec<VecDeque<Job>>,
    length: usize,
}

impl Queue {
    /// With room for `capacity` tokens of `event_loops` loops.
    pub(super) fn new(event_loops: usize, capacity: usize) -> Self {
        let each = capacity.div_ceil(event_loops);
        let jobs = (0..event_loops).map(|_| VecDeque::with_capacity(each)).collect();
        Self { jobs, length: 0 }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, job: Job) {
        self.length += 1;
        self.jobs[job.debt.event_loop()].push_back(job);
    }

    /// What is next for the thread that sees to `event_loop`.
    pub(super) fn take_first(&mut self, event_loop: usize) -> Option<Job> {
        let job = self.in_turn(event_loop).find_map(|index| self.jobs[index].pop_front())?;
        self.length -= 1;
        Some(job)
    }

    /// The same for as many as are signed with `key` and fit into a batch, if they are at least
    /// `least` and the first is one of them.
    pub(super) fn take_batch(
        &mut self,
        event_loop: usize,
        key: &Arc<SigningKey>,
        least: usize,
        taken: &mut Vec<Job>,
    ) -> bool {
        let next = |jobs: &VecDeque<Job>, most: usize| {
            jobs.iter().take(most).take_while(|job| job.is_of(key)).count()
        };
        let mut fronts = self.in_turn(event_loop).filter_map(|index| self.jobs[index].front());
        let is_first = fronts.next().is_some_and(|first| first.is_of(key));
        let mut found = 0;
        let is_enough = self.in_turn(event_loop).any(|index| {
            found += next(&self.jobs[index], BATCH);
            found.min(BATCH) >= least
        });
        if !is_first || !is_enough {
            return false;
        }
        for index in self.in_turn(event_loop) {
            let jobs = &mut self.jobs[index];
            let count = next(jobs, BATCH - taken.len());
            taken.extend(jobs.drain(..count));
            self.length -= count;
        }
        true
    }

    fn in_turn(&self, event_loop: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.jobs.len();
        (0..count).map(move |step| (event_loop + step) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::jws::PayloadWriter;
    use crate::jose::key_life::Retention;
    use crate::signing::delivery::Deliveries;
    use crate::store::key_directory;

    fn key() -> Arc<SigningKey> {
        let directory = tempfile::tempdir().unwrap();
        let retention = Retention { jwks_max_age: 1, token_lifetime: 1 };
        Arc::new(key_directory::generate(directory.path(), 2048, &retention, 1).unwrap())
    }

    /// A queue with these tokens, each of an event loop and to be signed with a key.
    fn queue(jobs: &[(usize, &Arc<SigningKey>, &str)]) -> Queue {
        let mut queue = Queue::new(2, 64);
        let deliveries = Deliveries::new(2);
        for (event_loop, key, header) in jobs {
            let input = PayloadWriter::begin(Vec::new(), header).finish();
            let (debt, _) = deliveries.promise_to(*event_loop);
            queue.push(Job { key: Arc::clone(key), input, debt });
        }
        queue
    }

    /// What is taken as a batch of at least `least`, in its order.
    fn batch(
        queue: &mut Queue,
        event_loop: usize,
        key: &Arc<SigningKey>,
        least: usize,
    ) -> Option<String> {
        let mut taken = Vec::new();
        let text = |job: &Job| String::from_utf8(job.input.as_bytes().to_vec()).unwrap();
        let is_batch = queue.take_batch(event_loop, key, least, &mut taken);
        assert_eq!(is_batch, !taken.is_empty());
        is_batch.then(|| taken.iter().map(text).collect())
    }

    #[test]
    fn a_thread_sees_to_its_own_event_loop_first_and_then_to_others() {
        let key = key();
        let of =
            |event_loop| ["a", "b", "c", "d", "e", "f"].map(|header| (event_loop, &key, header));
        let mut queue = queue(&[of(0), of(1)].concat());
        assert_eq!(batch(&mut queue, 1, &key, BATCH + 1), None, "it never pays");
        assert_eq!(queue.length(), 12);
        assert_eq!(batch(&mut queue, 1, &key, 8).unwrap(), "a.b.c.d.e.f.a.b.");
        assert_eq!(queue.take_first(1).unwrap().input.as_bytes(), b"c.");
        assert_eq!(batch(&mut queue, 0, &key, 1).unwrap(), "d.e.f.");
        assert_eq!(queue.length(), 0);
        assert!(queue.take_first(0).is_none());
        assert_eq!(batch(&mut queue, 0, &key, 1), None);
    }

    #[test]
    fn a_batch_is_of_one_key_and_overtakes_nobody() {
        let (old, new) = (key(), key());
        let mut queue = queue(&[
            (0, &old, "a"),
            (0, &new, "b"),
            (0, &old, "c"),
            (1, &old, "d"),
            (1, &new, "e"),
        ]);
        assert_eq!(batch(&mut queue, 0, &new, 1), None);
        assert_eq!(batch(&mut queue, 0, &old, 3), None);
        assert_eq!(batch(&mut queue, 0, &old, 2).unwrap(), "a.d.");
        assert_eq!(batch(&mut queue, 0, &old, 1), None, "b is first");
        assert_eq!(batch(&mut queue, 0, &new, 1).unwrap(), "b.e.");
        assert_eq!(batch(&mut queue, 1, &old, 1).unwrap(), "c.");
    }
}
