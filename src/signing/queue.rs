//! Tokens that wait for a signing thread.
//!
//! Each event loop has a queue. Each signing thread prefers the queue of one event loop. So the
//! tokens that a thread finishes together mostly belong to one event loop, which is woken only
//! once. If that queue has too few tokens for a batch, the thread also takes tokens from the other
//! queues, so that no token waits while a thread is idle.

use std::collections::VecDeque;
use std::sync::Arc;

use rsa_x8::BATCH;
use tokio::sync::oneshot;

use crate::jose::jws::SigningInput;
use crate::signing::completion::Delivery;
use crate::signing::private_key::PrivateKey;

/// A token to sign.
pub(super) struct Job {
    pub(super) key: Arc<PrivateKey>,
    pub(super) input: SigningInput,
    /// The future that waits for the token. If the sender is dropped, the future gets an error.
    pub(super) sender: oneshot::Sender<Delivery>,
    /// The number of the event loop that polls the future.
    pub(super) event_loop: usize,
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
        self.jobs[job.event_loop].push_back(job);
    }

    /// Moves the next tokens for the thread that prefers the queue of `event_loop` to `taken`: a
    /// batch, or else the first token alone. `least` returns the smallest number of tokens for
    /// which a batch with a key is worthwhile; `None` if the key does not sign in batches.
    ///
    /// A batch has only tokens for the key of the first token. It takes them from the fronts of the
    /// queues, so that no token overtakes another token of its event loop.
    pub(super) fn take(
        &mut self,
        event_loop: usize,
        least: impl Fn(&PrivateKey) -> Option<usize>,
        taken: &mut Vec<Job>,
    ) {
        let Some(first) = self.in_turn(event_loop).find(|&index| !self.jobs[index].is_empty())
        else {
            return;
        };
        let key = Arc::clone(&self.jobs[first][0].key);
        let front = |jobs: &VecDeque<Job>, most: usize| {
            jobs.iter().take(most).take_while(|job| Arc::ptr_eq(&job.key, &key)).count()
        };
        let mut found = 0;
        let is_batch = least(&key).is_some_and(|least| {
            self.in_turn(event_loop).any(|index| {
                found += front(&self.jobs[index], BATCH);
                found.min(BATCH) >= least
            })
        });
        let most = if is_batch { BATCH } else { 1 };
        for index in self.in_turn(event_loop) {
            let jobs = &mut self.jobs[index];
            let count = front(jobs, most - taken.len());
            taken.extend(jobs.drain(..count));
            self.length -= count;
        }
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

    /// Returns a queue with these tokens, each given as its event loop, key and text.
    fn queue(jobs: &[(usize, &Arc<PrivateKey>, &str)]) -> Queue {
        let mut queue = Queue::new(2, 64);
        for &(event_loop, key, header) in jobs {
            let input = PayloadWriter::begin(Vec::new(), header).finish();
            let (sender, _) = oneshot::channel();
            queue.push(Job { key: Arc::clone(key), input, sender, event_loop });
        }
        queue
    }

    /// Takes the next tokens and returns their texts, in order.
    fn take(queue: &mut Queue, event_loop: usize, least: usize) -> String {
        let mut taken = Vec::new();
        let before = queue.length();
        queue.take(event_loop, |_| Some(least), &mut taken);
        assert_eq!(queue.length(), before - taken.len());
        let text = |job: &Job| String::from_utf8(job.input.as_bytes().to_vec()).unwrap();
        taken.iter().map(text).collect()
    }

    #[test]
    fn a_thread_takes_from_its_own_event_loop_first_and_then_from_others() {
        let key = Arc::new(PrivateKey::generate());
        let of =
            |event_loop| ["a", "b", "c", "d", "e", "f"].map(|header| (event_loop, &key, header));
        let mut queue = queue(&[of(0), of(1)].concat());
        assert_eq!(take(&mut queue, 1, 8), "a.b.c.d.e.f.a.b.");
        assert_eq!(take(&mut queue, 1, 5), "c.", "four tokens are left");
        assert_eq!(take(&mut queue, 0, 1), "d.e.f.");
        assert_eq!(queue.length(), 0);
        assert_eq!(take(&mut queue, 0, 1), "");
    }

    #[test]
    fn a_batch_is_as_large_as_it_must_be_and_at_most_eight() {
        let key = Arc::new(PrivateKey::generate());
        let mut queue = queue(&[(0, &key, "a"); 20]);
        assert_eq!(take(&mut queue, 0, BATCH + 1), "a.", "a batch of more than eight");
        assert_eq!(take(&mut queue, 0, 2), "a.".repeat(8));
        let mut alone = Vec::new();
        queue.take(0, |_| None, &mut alone);
        assert_eq!((alone.len(), queue.length()), (1, 10));
    }

    #[test]
    fn a_batch_has_one_key_and_overtakes_no_token() {
        let [old, new] = [(); 2].map(|()| Arc::new(PrivateKey::generate()));
        let mut queue = queue(&[
            (0, &old, "a"),
            (0, &old, "b"),
            (0, &new, "c"),
            (0, &old, "d"),
            (1, &old, "e"),
            (1, &new, "f"),
        ]);
        assert_eq!(take(&mut queue, 0, 4), "a.", "d is behind c");
        assert_eq!(take(&mut queue, 0, 2), "b.e.");
        assert_eq!(take(&mut queue, 0, 1), "c.f.");
        assert_eq!(take(&mut queue, 1, 1), "d.");
    }
}
