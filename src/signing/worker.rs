//! The signing threads: their shared state and their loop.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use ring::rand::SystemRandom;
use rsa_x8::BATCH;
use tracing::error;

use crate::clock::Clock;
use crate::signing::admission::{Admission, Window};
use crate::signing::completion::{self, Completion, Signed};
use crate::signing::private_key::PrivateKey;
use crate::signing::queue::{Job, Queue};
use crate::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner, blinding};

/// The state that all signing threads share.
pub(super) struct Shared {
    /// Locked for each push and pop, and never while a signature is made. Not a generic queue: a
    /// signing thread takes a batch for one key, tokens of its own event loop first, and measures
    /// its share under the same lock.
    pub(super) waiting: Mutex<Waiting>,
    arrival: Condvar,
    pub(super) single: SingleSigner,
    /// The number of threads, and so of event loops.
    pub(super) threads: usize,
    /// The number of batch signatures that failed their check.
    pub(super) faults: AtomicU32,
    clock: Clock,
}

pub(super) struct Waiting {
    pub(super) queue: Queue,
    pub(super) admission: Admission,
    is_closed: bool,
}

impl Waiting {
    pub(super) fn has_room(&self) -> bool {
        self.queue.length() < self.admission.limit()
    }
}

impl Shared {
    pub(super) fn new(single: SingleSigner, threads: usize, capacity: usize, clock: Clock) -> Self {
        let waiting = Waiting {
            queue: Queue::new(threads, capacity),
            admission: Admission::new(threads, capacity),
            is_closed: false,
        };
        let (waiting, arrival) = (Mutex::new(waiting), Condvar::new());
        Self { waiting, arrival, single, threads, faults: AtomicU32::new(0), clock }
    }

    /// Adds `job` to the queue. Returns `false` if the job is not admitted.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.has_room() {
            return false;
        }
        waiting.queue.push(job);
        drop(waiting);
        // Makes no system call if no thread waits.
        self.arrival.notify_one();
        true
    }

    /// Makes the threads end as soon as the queue is empty.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.arrival.notify_all();
    }

    /// Signs until the queue is closed and empty. Takes tokens of `event_loop` first. `held_back`
    /// holds the completions that have not been sent yet.
    pub(super) fn work(&self, event_loop: usize, held_back: &mut Vec<Completion>) {
        let random = blinding();
        let mut jobs: Vec<Job> = Vec::with_capacity(BATCH);
        let mut window = Window::first();
        while let Some(are_many_left) = self.take(event_loop, &mut window, &mut jobs, held_back) {
            jobs.retain(|job| !job.sender.is_closed());
            let taken = self.clock.instant();
            let batch = self.sign_batch(&jobs, taken);
            let send_after = if batch.is_some() { SEND_AFTER } else { SEND_AFTER_SINGLE };
            match batch {
                Some(batch) => self.finish_batch(&mut jobs, &batch, &random, held_back),
                None => held_back
                    .extend(jobs.drain(..).filter_map(|job| self.sign_alone(job, taken, &random))),
            }
            if held_back.len() >= send_after || !are_many_left {
                completion::send(held_back, self.threads);
            }
        }
    }

    /// Waits for tokens, and moves a batch or a single token from the queue to `jobs`. Returns
    /// whether completions are held back, because enough tokens still wait. Returns `None` if the
    /// queue is closed and empty.
    fn take(
        &self,
        event_loop: usize,
        window: &mut Window,
        jobs: &mut Vec<Job>,
        held_back: &mut Vec<Completion>,
    ) -> Option<bool> {
        let share = window.end();
        let mut waiting = self.waiting.lock();
        if let Some(share) = share {
            waiting.admission.record(event_loop, share);
        }
        while waiting.queue.length() == 0 {
            if !held_back.is_empty() {
                MutexGuard::unlocked(&mut waiting, || completion::send(held_back, self.threads));
            } else if waiting.is_closed {
                return None;
            } else {
                waiting.admission.forget(event_loop);
                self.arrival.wait(&mut waiting);
                *window = Window::first();
            }
        }
        waiting.queue.take(event_loop, |key| self.batch_pays_from(key), jobs);
        let many = (HOLD_BACK_FROM * self.threads).min(waiting.admission.limit() / 2);
        Some(waiting.queue.length() >= many)
    }

    /// The smallest number of tokens for which a batch with `key` is faster than single signatures.
    /// `None` if there are no batches with `key`.
    pub(super) fn batch_pays_from(&self, key: &PrivateKey) -> Option<usize> {
        let may_batch = self.faults.load(Ordering::Relaxed) < MAX_FAULTS;
        key.batch_pays_from().filter(|_| may_batch)
    }

    /// Signs `jobs`, which were taken out of the queue at `taken`, in one batch. `None` if single
    /// signatures are better.
    pub(super) fn sign_batch(&self, jobs: &[Job], taken: Instant) -> Option<SignedBatch> {
        let key = &jobs.first()?.key;
        let least = self.batch_pays_from(key)?;
        let batch = key.batch.as_ref().filter(|_| jobs.len() >= least)?;
        let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let mut messages = [&[][..]; BATCH];
        for (message, job) in messages.iter_mut().zip(jobs) {
            *message = job.input.as_bytes();
        }
        let passed = batch.sign(&messages[..jobs.len()], &mut signatures);
        let (length, done) = (batch.signature_bytes(), self.clock.instant());
        Some(SignedBatch { signatures, length, passed, taken, done })
    }

    /// Adds those signatures of a batch that passed their check to `held_back`. Signs the other
    /// tokens again, one by one.
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
                held_back.push(job.complete(&signature[..*length], *taken, *done));
            } else {
                self.note_fault(&job.key);
                held_back.extend(self.sign_alone(job, *taken, random));
            }
        }
    }

    /// Signs a single token. `None` if the library fails: the future then gets an error, because
    /// its sender is dropped.
    fn sign_alone(&self, job: Job, taken: Instant, random: &SystemRandom) -> Option<Completion> {
        let mut signature = [0; MAX_SIGNATURE_BYTES];
        let signed = self.single.sign(&job.key, job.input.as_bytes(), random, &mut signature);
        let Some(length) = signed else {
            error!(key_id = job.key.thumbprint, "the signing library has refused to sign a token");
            return None;
        };
        Some(job.complete(&signature[..length], taken, self.clock.instant()))
    }

    /// Counts and logs a fault. A single fault may be a flipped bit. A second one means that the
    /// processor is unreliable.
    fn note_fault(&self, key: &PrivateKey) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        error!(
            key_id = key.thumbprint,
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

impl Job {
    fn complete(self, signature: &[u8], taken: Instant, done: Instant) -> Completion {
        let Self { input, sender, event_loop, .. } = self;
        Completion {
            signed: Signed { buffer: input.finish(signature), taken, done },
            sender,
            event_loop,
        }
    }
}

/// The signatures of a batch of jobs, in the order of the jobs.
pub(super) struct SignedBatch {
    pub(super) signatures: [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    /// The length of each signature, in bytes.
    length: usize,
    /// For each signature, whether it passed its check.
    pub(super) passed: [bool; BATCH],
    taken: Instant,
    done: Instant,
}

/// Lowers the priority of the current thread, as a signing thread's, below that of the event loop on the
/// same processor. On a busy server, a signing thread never sleeps. With equal priority, it would
/// get half of the processor, and answers that take only microseconds, such as refusals, would wait
/// for milliseconds.
pub(crate) fn lower_priority() {
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
pub(super) const SEND_AFTER: usize = 3 * BATCH;

/// The number of completions of single signatures that are held back. It is smaller than
/// [`SEND_AFTER`], because a single signature takes longer than a signature in a batch.
const SEND_AFTER_SINGLE: usize = 8;

/// Completions are held back while at least this number of tokens per thread waits. If half of the
/// admission limit is a smaller number, that half applies. With so many tokens, each token waits
/// long anyway, and the time that a few more signatures take hardly matters. All threads also have
/// enough work until the clients whose completions were held back send new requests.
const HOLD_BACK_FROM: usize = 2 * BATCH;
