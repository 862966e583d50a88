//! Signing threads behind a bounded queue.
//!
//! A signature takes 99 % of a token's time. On the event loop it would hold up every other
//! connection for 0.65 ms, so it runs on threads of its own; and since nothing may wait longer than
//! the queue is long, what does not fit is refused at once.
//!
//! Messages that wait for the same key are signed together, eight at a time, where the processor can
//! and so many wait that it pays.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use ring::rand::SystemRandom;
use tracing::error;

use crate::clock::Clock;
use crate::jose::jws::SigningInput;
use crate::jose::key_set::{KeySet, SigningKey};
use crate::signing::batch::{BATCH, BatchKey};
use crate::signing::delivery::{Deliveries, Finished};
pub use crate::signing::delivery::{SignError, Signed};
use crate::signing::queue::{Job, Queue};
use crate::signing::room::{Room, Window};
use crate::signing::single::{MAX_SIGNATURE_BYTES, Single, blinding};

/// Signs on its own threads until it is dropped.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts `threads` threads that sign with `single`, in front of which at most `capacity` tokens
    /// wait: half as many until the threads have been busy for some milliseconds, and fewer where they
    /// have only a share of their processors. Keys that [`Engine::prepare`] has been shown are signed
    /// with in batches too.
    ///
    /// # Errors
    ///
    /// The operating system's, if it grants no more threads.
    pub fn start(single: Single, threads: usize, capacity: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting {
                queue: Queue::new(threads, capacity),
                room: Room::new(threads, capacity),
                idle_threads: 0,
                closed: false,
            }),
            arrival: Condvar::new(),
            deliveries: Deliveries::new(threads),
            batched: Mutex::default(),
            faults: AtomicU32::new(0),
            keep_from: KEEP_FROM * threads,
            single,
        });
        let mut engine = Self { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&engine.shared);
            let builder = thread::Builder::new().name(format!("sign-{index}"));
            engine.threads.push(builder.spawn(move || {
                step_back();
                let mut kept = Vec::with_capacity(GROUP);
                // Jobs that it had taken are dropped, and so told that they failed. `Shared` and `kept`
                // are whole between any two statements: nothing else is lost.
                while catch_unwind(AssertUnwindSafe(|| shared.work(index, &mut kept))).is_err() {
                    error!("a bug: a signing thread panicked, and begins anew");
                }
            })?);
        }
        Ok(engine)
    }

    /// Makes `key` ready to be signed with in batches, which takes some 0.1 s the first time. `false`
    /// if it cannot be: the CPU lacks AVX-512 IFMA, the key has an unusual shape, or what batches of
    /// it make is not what ring makes.
    pub fn prepare(&self, key: &SigningKey) -> bool {
        if self.shared.batched().contains_key(key.key_id()) {
            return true;
        }
        let batched = Batched::of(key, self.shared.single);
        let can = batched.is_some();
        if let Some(batched) = batched {
            self.shared.batched().insert(key.key_id().to_owned(), Arc::new(batched));
        }
        can
    }

    /// Forgets how to sign in batches with every key but these.
    pub fn keep_only(&self, keys: &KeySet) {
        let is_kept = |key_id: &str| keys.iter().any(|key| key.key_id() == key_id);
        self.shared.batched().retain(|key_id, _| is_kept(key_id));
    }

    /// Signatures that failed their check before they left, and were made again one at a time.
    pub fn faults(&self) -> u32 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// Signs `input` with `key` and gives back its buffer with the signature appended.
    ///
    /// If the caller stops waiting, the work is left undone.
    ///
    /// # Errors
    ///
    /// [`SignError`]; nothing was issued then.
    pub async fn sign(
        &self,
        key: Arc<SigningKey>,
        input: SigningInput,
    ) -> Result<Signed, SignError> {
        let (debt, delivery) = self.shared.deliveries.promise();
        self.shared.push(Job { key, input, debt })?;
        delivery.await
    }

    /// What signs.
    pub fn single(&self) -> Single {
        self.shared.single
    }

    /// Whether one more token may wait. The next moment may say otherwise, and [`Engine::sign`] does
    /// then; asking first spares who is refused the way there.
    pub fn has_room(&self) -> bool {
        self.shared.waiting().has_room()
    }

    /// How many tokens wait at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.waiting().queue.length()
    }

    /// How many tokens may wait at this moment.
    pub fn open(&self) -> usize {
        self.shared.waiting().room.open()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.arrival.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was caught and logged inside the thread.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

struct Shared {
    /// Held for a push or a pop, never while signing.
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    deliveries: Deliveries,
    /// By `kid`.
    batched: Mutex<HashMap<String, Arc<Batched>>>,
    faults: AtomicU32,
    /// See [`KEEP_FROM`].
    keep_from: usize,
    single: Single,
}

struct Waiting {
    queue: Queue,
    room: Room,
    /// Threads that wait for a job. Waking costs a system call even if nobody sleeps.
    idle_threads: usize,
    closed: bool,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.queue.length() < self.room.open()
    }
}

/// A key that batches were found to be right for.
struct Batched {
    key: BatchKey,
    /// From so many messages on, a batch is quicker than one signature after the other.
    pays_from: usize,
}

impl Batched {
    fn of(key: &SigningKey, single: Single) -> Option<Self> {
        let random = blinding();
        let batch = BatchKey::new(key.document())?;
        if !batch.agrees_with(key.ring(), &random) {
            error!(key_id = key.key_id(), "batches do not sign as ring does: not used");
            return None;
        }
        // The best of a few: whatever else the machine does only ever adds.
        let best = |sign: &mut dyn FnMut()| {
            let times = (0..TRIALS).map(|_| {
                let start = Clock::instant();
                sign();
                start.elapsed().as_nanos()
            });
            times.min().unwrap_or(u128::MAX)
        };
        let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let together = best(&mut || {
            batch.sign(&[&b"trial"[..]; BATCH], &mut signatures);
        });
        let alone = best(&mut || {
            single.sign(key, b"trial", &random, &mut signatures[0]);
        });
        let pays_from = usize::try_from(together / alone.max(1)).unwrap_or(BATCH) + 1;
        Some(Self { key: batch, pays_from })
    }
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), SignError> {
        let mut waiting = self.waiting();
        if !waiting.has_room() {
            return Err(SignError::QueueFull);
        }
        waiting.queue.push(job);
        let is_awaited = waiting.idle_threads > 0;
        drop(waiting);
        if is_awaited {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Signs until the engine is closed and the queue is empty, those of `event_loop` first. `kept` are
    /// those that are signed and have not been told.
    fn work(&self, event_loop: usize, kept: &mut Vec<Finished>) {
        let random = blinding();
        let mut taken: Vec<Job> = Vec::with_capacity(BATCH);
        // The key of the last job, and what it takes to sign with it in batches.
        let mut known: Option<(Arc<SigningKey>, Option<Arc<Batched>>)> = None;
        let mut window = Window::first();
        loop {
            let share = window.end();
            let mut waiting = self.waiting();
            if let Some(share) = share {
                waiting.room.measured(event_loop, share);
            }
            while waiting.queue.length() == 0 {
                if !kept.is_empty() {
                    drop(waiting);
                    self.deliveries.tell(kept);
                    waiting = self.waiting();
                } else if waiting.closed {
                    return;
                } else {
                    waiting.room.idle(event_loop);
                    waiting.idle_threads += 1;
                    waiting = self.arrival.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    waiting.idle_threads -= 1;
                    window = Window::first();
                }
            }
            let batched = known.as_ref().filter(|_| self.may_batch()).and_then(|(key, batched)| {
                let batched = batched.as_ref()?;
                let queue = &mut waiting.queue;
                queue.take_batch(event_loop, key, batched.pays_from, &mut taken).then_some(batched)
            });
            let batched = batched.cloned();
            if batched.is_none() {
                taken.extend(waiting.queue.take_first(event_loop));
            }
            let are_many = waiting.queue.length() >= self.keep_from.min(waiting.room.open() / 2);
            drop(waiting);

            taken.retain(|job| job.debt.is_awaited());
            let now = Clock::instant();
            let group = if batched.is_some() { GROUP } else { SINGLE_GROUP };
            match batched {
                Some(batched) => self.sign_together(&batched, &mut taken, now, &random, kept),
                None => {
                    if let Some(job) = taken.pop() {
                        if known.as_ref().is_none_or(|(key, _)| !job.is_of(key)) {
                            let batched = self.batched().get(job.key.key_id()).cloned();
                            known = Some((Arc::clone(&job.key), batched));
                        }
                        self.sign_alone(job, now, &random, kept);
                    }
                }
            }
            if kept.len() >= group || !are_many {
                self.deliveries.tell(kept);
            }
        }
    }

    fn may_batch(&self) -> bool {
        self.faults.load(Ordering::Relaxed) < MAX_FAULTS
    }

    fn sign_alone(
        &self,
        job: Job,
        taken: Instant,
        random: &SystemRandom,
        kept: &mut Vec<Finished>,
    ) {
        let Job { key, input, debt } = job;
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
        kept.extend(debt.pay(signed));
    }

    fn sign_together(
        &self,
        batched: &Batched,
        jobs: &mut Vec<Job>,
        taken: Instant,
        random: &SystemRandom,
        kept: &mut Vec<Finished>,
    ) {
        let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let mut messages = [&[][..]; BATCH];
        for (message, job) in messages.iter_mut().zip(&*jobs) {
            *message = job.input.as_bytes();
        }
        let passed = batched.key.sign(&messages[..jobs.len()], &mut signatures);
        let done = Clock::instant();
        let length = batched.key.signature_bytes();
        for ((job, signature), passed) in jobs.drain(..).zip(&signatures).zip(passed) {
            if passed {
                let buffer = job.input.finish(&signature[..length]);
                kept.extend(job.debt.pay(Ok(Signed { buffer, taken, done })));
            } else {
                self.note_fault(&job.key);
                self.sign_alone(job, taken, random, kept);
            }
        }
    }

    /// One fault may be a cosmic ray; two are a machine that cannot be trusted with batches.
    fn note_fault(&self, key: &SigningKey) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        error!(key_id = key.key_id(), faults, "a signature failed its check and is made again");
        if faults >= MAX_FAULTS {
            error!("batches are off until the next start: this processor makes mistakes");
        }
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken them.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batched(&self) -> MutexGuard<'_, HashMap<String, Arc<Batched>>> {
        self.batched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the event loop go first where they share a processor. Signing never sleeps on a busy server:
/// with equal rights it would have half the processor, and answers, refusals above all, would wait
/// for milliseconds while they take microseconds.
fn step_back() {
    // On Linux each thread has its own niceness. If it may not be raised, all are equal.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

/// A third of the event loop's weight.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// How often the start times a batch and a single signature.
const TRIALS: usize = 5;

/// So many faults turn batches off.
const MAX_FAULTS: u32 = 2;

/// How many finished tokens are told of at a time, about: with three batches at a time the event loop
/// takes the processor a third as often as with one, and finds its caches as cold a third as often.
const GROUP: usize = 3 * BATCH;

/// The same of tokens that are signed one at a time, which takes longer.
const SINGLE_GROUP: usize = 8;

/// With so many waiting for each thread, or half as many as may wait, a token has waited long enough for
/// a few more signatures not to matter, and all threads have something to do until those come back that
/// are told.
const KEEP_FROM: usize = 2 * BATCH;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::task::JoinSet;

    use super::*;
    use crate::jose::jws::PayloadWriter;
    use crate::jose::key_life::Retention;
    use crate::store::key_directory;

    fn key() -> Arc<SigningKey> {
        let directory = tempfile::tempdir().unwrap();
        let retention = Retention { jwks_max_age: 1, token_lifetime: 1 };
        Arc::new(key_directory::generate(directory.path(), 2048, &retention, 1).unwrap())
    }

    fn input(number: usize) -> SigningInput {
        PayloadWriter::begin(number.to_string().into_bytes(), "header").finish()
    }

    /// Some futures are dropped at every stage of their wait; none of the others may be forgotten.
    #[test]
    fn everyone_who_waits_is_told_whoever_leaves() {
        let engine = Arc::new(Engine::start(Single::Ring, 2, 64).unwrap());
        let key = key();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let mut signed = 0;
        runtime.block_on(async {
            for round in 0..20_u64 {
                let mut waiting = JoinSet::new();
                for number in 0..80 {
                    let (engine, key) = (Arc::clone(&engine), Arc::clone(&key));
                    waiting.spawn(async move {
                        let signed = engine.sign(key, input(number));
                        if number % 3 == 0 {
                            let patience = Duration::from_micros(round * 700);
                            return tokio::time::timeout(patience, signed).await.ok();
                        }
                        Some(signed.await)
                    });
                }
                while let Some(told) = waiting.join_next().await {
                    match told.unwrap() {
                        Some(Ok(_)) => signed += 1,
                        Some(Err(error)) => assert_eq!(error, SignError::QueueFull),
                        None => {}
                    }
                }
            }
        });
        assert!(signed > 0);
    }

    /// Wakes nobody, and says that it was asked to.
    struct Unwilling(AtomicBool);

    impl Wake for Unwilling {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
            panic!("planted");
        }
    }

    #[test]
    fn a_signing_thread_that_panicked_signs_on() {
        let engine = Engine::start(Single::Ring, 1, 64).unwrap();
        let key = key();
        let unwilling = Arc::new(Unwilling(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&unwilling));
        let (debt, delivery) = engine.shared.deliveries.promise();
        let mut unwoken = pin!(delivery);
        assert!(unwoken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        engine.shared.push(Job { key: Arc::clone(&key), input: input(1), debt }).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(2)));
        assert!(signed.is_ok() && unwilling.0.load(Ordering::Relaxed));
        let told = unwoken.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(told, Poll::Ready(Ok(_))), "{told:?}");
    }

    /// A lane whose check fails is signed again, singly; after the second such fault nothing is
    /// signed in batches any more. Faults strike on this thread, so it takes the place of one of
    /// the engine's.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_failed_lane_is_signed_again_and_a_second_turns_batches_off() {
        use crate::signing::crt::fault::Place;
        use crate::signing::crt::fault::armed::{FAULT, Fault};

        let engine = Engine::start(Single::Ring, 1, 64).unwrap();
        let key = key();
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        assert_eq!(engine.prepare(&key), able);
        let Some(batched) = engine.shared.batched().get(key.key_id()).cloned() else { return };
        let random = blinding();
        let reference = |number: usize| {
            let mut signature = [0; MAX_SIGNATURE_BYTES];
            let input = input(number);
            let length = Single::Ring.sign(&key, input.as_bytes(), &random, &mut signature);
            input.finish(&signature[..length.unwrap()])
        };

        let runtime = Builder::new_current_thread().build().unwrap();
        for (faults, limb) in [(1, 0), (2, 39)] {
            let lane = 3;
            let (mut jobs, mut deliveries) = (Vec::new(), Vec::new());
            for number in 0..BATCH {
                let (debt, delivery) = engine.shared.deliveries.promise();
                jobs.push(Job { key: Arc::clone(&key), input: input(number), debt });
                deliveries.push(delivery);
            }
            FAULT.set(Some(Fault { place: Place::Signature, pass: 0, limb, lane, bit: 7 }));
            let mut kept = Vec::new();
            let now = Clock::instant();
            engine.shared.sign_together(&batched, &mut jobs, now, &random, &mut kept);
            assert!(FAULT.get().is_none(), "the fault did not strike");
            assert_eq!(engine.faults(), faults);
            for (number, delivery) in deliveries.into_iter().enumerate() {
                let signed = runtime.block_on(delivery).unwrap();
                assert_eq!(signed.buffer, reference(number), "lane {number}");
            }
        }
        assert!(!engine.shared.may_batch());
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(9))).unwrap();
        assert_eq!(signed.buffer, reference(9));
    }
}
