//! Tokens that wait for a signing thread.
//!
//! Each event loop has a queue. Each signing thread prefers the queue of one event loop. So the
//! tokens that a thread finishes together mostly belong to one event loop, which is woken only
//! once. If that queue has too few tokens for a batch, the thread also takes tokens from the other
//! queues, so that no token waits while a thread is idle.

use std::collections::VecDeque;
use std::sync::Arc;

use rsa_x8::BATCH;

use crate::jose::jws::SigningInput;
use crate::keys::key_set::SigningKey;
use crate::signing::completion::Sender;

/// A token to sign.
pub(super) struct Job {
    pub(super) key: Arc<SigningKey>,
    pub(super) input: SigningInput,
    pub(super) sender: Sender,
}

impl Job {
    pub(super) fn is_of(&self, key: &Arc<SigningKey>) -> bool {
        Arc::ptr_eq(&self.key, key)
    }
}

/// The queues of all event loops.
pub(super) struct Queue {
    /// One queue for each event loop; its jobs are in order of arrival.
    jobs: Vec<VecDeque<Job>>,
    length: usize,
}

impl Queue {
    /// Allocates memory for `capacity` tokens. The queue does not limit the number of tokens: that
    /// is the task of `Admission`.
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
        self.jobs[job.sender.event_loop()].push_back(job);
    }

    /// Takes the next token for the thread that prefers the queue of `event_loop`.
    pub(super) fn take_first(&mut self, event_loop: usize) -> Option<Job> {
        let job = self.in_turn(event_loop).find_map(|index| self.jobs[index].pop_front())?;
        self.length -= 1;
        Some(job)
    }

    /// Moves a batch of tokens that are to be signed with `key` to `taken`. Returns `false` and
    /// moves no token in two cases: the fronts of the queues have fewer than `least` such tokens,
    /// or [`Queue::take_first`] would take a token for another key.
    pub(super) fn take_batch(
        &mut self,
        event_loop: usize,
        key: &Arc<SigningKey>,
        least: usize,
        taken: &mut Vec<Job>,
    ) -> bool {
        // Take only from the front of a queue, so that no token overtakes another token of its
        // event loop.
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

    /// The indices of all event loops, `event_loop` first: the order in which the thread of
    /// `event_loop` takes tokens from their queues.
    fn in_turn(&self, event_loop: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.jobs.len();
        (0..count).map(move |step| (event_loop + step) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::jws::PayloadWriter;
    use crate::keys::directory;
    use crate::keys::life::Retention;
    use crate::signing::completion::Outboxes;
    use crate::time::UnixTime;

    fn key() -> Arc<SigningKey> {
        let directory = tempfile::tempdir().unwrap();
        let retention = Retention { jwks_max_age: 1, token_lifetime: 1 };
        Arc::new(directory::generate(directory.path(), 2048, &retention, UnixTime(1)).unwrap())
    }

    /// Returns a queue with these tokens, each given as its event loop, key and text.
    fn queue(jobs: &[(usize, &Arc<SigningKey>, &str)]) -> Queue {
        let mut queue = Queue::new(2, 64);
        let outboxes = Outboxes::new(2);
        for (event_loop, key, header) in jobs {
            let input = PayloadWriter::begin(Vec::new(), header).finish();
            let (sender, _) = outboxes.channel_to(*event_loop);
            queue.push(Job { key: Arc::clone(key), input, sender });
        }
        queue
    }

    /// Takes a batch and returns the texts of its tokens, in order.
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
    fn a_thread_takes_from_its_own_event_loop_first_and_then_from_others() {
        let key = key();
        let of =
            |event_loop| ["a", "b", "c", "d", "e", "f"].map(|header| (event_loop, &key, header));
        let mut queue = queue(&[of(0), of(1)].concat());
        assert_eq!(batch(&mut queue, 1, &key, BATCH + 1), None, "a batch of more than eight");
        assert_eq!(queue.length(), 12);
        assert_eq!(batch(&mut queue, 1, &key, 8).unwrap(), "a.b.c.d.e.f.a.b.");
        assert_eq!(queue.take_first(1).unwrap().input.as_bytes(), b"c.");
        assert_eq!(batch(&mut queue, 0, &key, 1).unwrap(), "d.e.f.");
        assert_eq!(queue.length(), 0);
        assert!(queue.take_first(0).is_none());
        assert_eq!(batch(&mut queue, 0, &key, 1), None);
    }

    #[test]
    fn a_batch_has_one_key_and_overtakes_no_token() {
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
