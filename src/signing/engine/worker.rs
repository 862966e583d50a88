//! The loop of a signing thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ring::rand::SystemRandom;
use rsa_x8::BATCH;
use tracing::error;

use super::batched::{Batched, SignedBatch};
use super::{Shared, SignError, Signed};
use crate::clock::Clock;
use crate::keys::key_set::SigningKey;
use crate::signing::admission::Window;
use crate::signing::completion::Completion;
use crate::signing::queue::Job;
use crate::signing::single::{MAX_SIGNATURE_BYTES, blinding};

/// The key of the last single signature, and the [`Batched`] of this key if it can sign in batches.
type LastKey = (Arc<SigningKey>, Option<Arc<Batched>>);

impl Shared {
    /// Signs until the engine is closed and the queue is empty. Takes tokens of `event_loop` first.
    /// `held_back` holds the completions whose futures have not been woken yet.
    pub(super) fn work(&self, event_loop: usize, held_back: &mut Vec<Completion>) {
        let random = blinding();
        let mut jobs: Vec<Job> = Vec::with_capacity(BATCH);
        let mut last_key: Option<LastKey> = None;
        let mut window = Window::first();
        while let Some(Taken { batched, are_many_left }) =
            self.take(event_loop, last_key.as_ref(), &mut window, &mut jobs, held_back)
        {
            jobs.retain(|job| job.sender.is_awaited());
            let taken = Clock::instant();
            let group = if batched.is_some() { WAKE_AFTER } else { WAKE_AFTER_SINGLE };
            match batched {
                Some(batched) => {
                    let batch = batched.sign(&jobs, taken);
                    self.finish_batch(&mut jobs, &batch, &random, held_back);
                }
                None => {
                    if let Some(job) = jobs.pop() {
                        if last_key.as_ref().is_none_or(|(key, _)| !job.is_of(key)) {
                            let batched = self.batched.lock().get(job.key.key_id()).cloned();
                            last_key = Some((Arc::clone(&job.key), batched));
                        }
                        self.sign_alone(job, taken, &random, held_back);
                    }
                }
            }
            if held_back.len() >= group || !are_many_left {
                self.outboxes.wake(held_back);
            }
        }
    }

    /// Waits for tokens, and moves a batch or a single token from the queue to `jobs`. Returns
    /// `None` if the engine is closed and the queue is empty.
    fn take(
        &self,
        event_loop: usize,
        last_key: Option<&LastKey>,
        window: &mut Window,
        jobs: &mut Vec<Job>,
        held_back: &mut Vec<Completion>,
    ) -> Option<Taken> {
        let share = window.end();
        let mut waiting = self.waiting.lock();
        if let Some(share) = share {
            waiting.admission.record(event_loop, share);
        }
        while waiting.queue.length() == 0 {
            if !held_back.is_empty() {
                drop(waiting);
                self.outboxes.wake(held_back);
                waiting = self.waiting.lock();
            } else if waiting.closed {
                return None;
            } else {
                waiting.admission.forget(event_loop);
                self.arrival.wait(&mut waiting);
                *window = Window::first();
            }
        }
        let batched = last_key.filter(|_| self.may_batch()).and_then(|(key, batched)| {
            let batched = batched.as_ref()?;
            waiting.queue.take_batch(event_loop, key, batched.pays_from, jobs).then_some(batched)
        });
        if batched.is_none() {
            jobs.extend(waiting.queue.take_first(event_loop));
        }
        let many = self.hold_back_from.min(waiting.admission.limit() / 2);
        let are_many_left = waiting.queue.length() >= many;
        drop(waiting);
        Some(Taken { batched: batched.cloned(), are_many_left })
    }

    pub(super) fn may_batch(&self) -> bool {
        self.faults.load(Ordering::Relaxed) < MAX_FAULTS
    }

    fn sign_alone(
        &self,
        job: Job,
        taken: Instant,
        random: &SystemRandom,
        held_back: &mut Vec<Completion>,
    ) {
        let Job { key, input, sender } = job;
        let mut signature = [0; MAX_SIGNATURE_BYTES];
        let signed = self
            .single
            .sign(&key, input.as_bytes(), random, &mut signature)
            .map(|length| Signed {
                buffer: input.finish(&signature[..length]),
                taken,
                done: Clock::instant(),
            })
            .ok_or(SignError::Failed);
        held_back.extend(sender.send(signed));
    }

    /// Sends those signatures of a batch that passed their check. Signs the other tokens again, one
    /// by one.
    pub(super) fn finish_batch(
        &self,
        jobs: &mut Vec<Job>,
        batch: &SignedBatch,
        random: &SystemRandom,
        held_back: &mut Vec<Completion>,
    ) {
        let SignedBatch { signatures, length, passed, taken, done } = batch;
        for ((job, signature), passed) in jobs.drain(..).zip(signatures).zip(passed) {
            if *passed {
                let buffer = job.input.finish(&signature[..*length]);
                held_back.extend(job.sender.send(Ok(Signed {
                    buffer,
                    taken: *taken,
                    done: *done,
                })));
            } else {
                self.note_fault(&job.key);
                self.sign_alone(job, *taken, random, held_back);
            }
        }
    }

    /// Counts and logs a fault. A single fault may be a flipped bit. A second one means that the
    /// processor is unreliable.
    fn note_fault(&self, key: &SigningKey) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        error!(
            key_id = key.key_id(),
            faults, "a signature of a batch failed its check and is made again singly"
        );
        if faults >= MAX_FAULTS {
            error!(
                "the processor has made {faults} errors: grantd signs without batches until it is \
                 restarted; check the hardware"
            );
        }
    }
}

/// The result of [`Shared::take`].
struct Taken {
    /// The key of the batch. `None` if a single token was taken.
    batched: Option<Arc<Batched>>,
    /// Whether completions are held back, because enough tokens still wait.
    are_many_left: bool,
}

/// Lowers the priority of the current thread, a signing thread, below that of the event loop on the
/// same processor. On a busy server, a signing thread never sleeps. With equal priority, it would
/// get half of the processor, and answers that take only microseconds, such as refusals, would wait
/// for milliseconds.
pub(super) fn lower_priority() {
    // On Linux each thread has its own niceness. If the system refuses the change, all threads keep
    // equal priority.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

/// The niceness of a signing thread. It gives the thread a third of the event loop's weight in
/// Linux's scheduler.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// After this number of faults there are no more batches.
const MAX_FAULTS: u32 = 2;

/// The number of completions of batches that are held back: three batches. If the thread woke the
/// event loop after each batch, the event loop would preempt the thread three times as often, and
/// the two threads would evict each other's cache lines three times as often.
pub(super) const WAKE_AFTER: usize = 3 * BATCH;

/// The number of completions of single signatures that are held back. It is smaller than
/// [`WAKE_AFTER`], because a single signature takes longer than a signature in a batch.
const WAKE_AFTER_SINGLE: usize = 8;

/// Completions are held back while at least this number of tokens per thread waits. If half of the
/// admission limit is a smaller number, that half applies. With so many tokens, each token waits
/// long anyway, and the time that a few more signatures take hardly matters. All threads also have
/// enough work until the clients whose completions were held back send new requests.
pub(super) const HOLD_BACK_FROM: usize = 2 * BATCH;
