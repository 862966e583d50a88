//! Signing threads behind a bounded queue.
//!
//! Signing takes 99 % of the time that a token needs: about 0.65 ms for each token if ring or
//! aws-lc signs the tokens one by one. On an event loop, each signature would delay all other
//! connections for 0.65 ms, so tokens are signed on separate threads. A token that finds the queue
//! full is refused at once, so the length of the queue bounds how long any token waits.
//!
//! On processors with AVX-512 IFMA, tokens that wait for the same key are signed in batches of up
//! to eight. If few tokens wait, so that a batch would be slower, tokens are signed one by one.

mod batched;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tracing::error;

use crate::jose::jws::SigningInput;
use crate::keys::key_set::{KeySet, SigningKey};
use crate::signing::admission::Admission;
use crate::signing::completion::Outboxes;
pub use crate::signing::completion::{SignError, Signed};
use crate::signing::queue::{Job, Queue};
use crate::signing::single::Single;
use batched::Batched;

/// The signing threads and their queue. Dropping the engine waits until the queue is empty, and
/// then stops the threads.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts `threads` threads. They make single signatures with `single`, and sign in batches
    /// with the keys that [`Engine::prepare`] accepts.
    ///
    /// At most `capacity` tokens may wait. The limit is only half of `capacity` until the signing
    /// threads have been busy for some milliseconds. It is also lower than `capacity` while other
    /// threads use the processors of the signing threads.
    ///
    /// # Errors
    ///
    /// An error of the operating system if it cannot start a thread.
    pub fn start(single: Single, threads: usize, capacity: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting {
                queue: Queue::new(threads, capacity),
                admission: Admission::new(threads, capacity),
                closed: false,
            }),
            arrival: Condvar::new(),
            outboxes: Outboxes::new(threads),
            batched: Mutex::default(),
            faults: AtomicU32::new(0),
            hold_back_from: worker::HOLD_BACK_FROM * threads,
            single,
        });
        let mut engine = Self { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&engine.shared);
            let builder = thread::Builder::new().name(format!("sign-{index}"));
            engine.threads.push(builder.spawn(move || {
                worker::lower_priority();
                let mut held_back = Vec::with_capacity(worker::WAKE_AFTER);
                // A panic drops the jobs that the thread had taken, so their requests get an error.
                // `Shared` and `held_back` are valid after every statement, so nothing else is
                // lost.
                while catch_unwind(AssertUnwindSafe(|| shared.work(index, &mut held_back))).is_err()
                {
                    error!("a signing thread panicked and starts again: this is a bug in grantd");
                }
            })?);
        }
        Ok(engine)
    }

    /// Prepares `key` for batches, which takes about 0.1 s the first time. Returns `false` if the
    /// key cannot sign in batches: the processor lacks AVX-512 IFMA, the key does not have two
    /// primes and 2048, 3072 or 4096 bits, or its batches differ from ring's signatures.
    pub fn prepare(&self, key: &SigningKey) -> bool {
        if self.shared.batched.lock().contains_key(key.key_id()) {
            return true;
        }
        let batched = Batched::new(key, self.shared.single);
        let is_prepared = batched.is_some();
        if let Some(batched) = batched {
            self.shared.batched.lock().insert(key.key_id().to_owned(), Arc::new(batched));
        }
        is_prepared
    }

    /// Drops the batch forms of all keys that [`Engine::prepare`] has prepared and that are not in
    /// `keys`.
    pub fn keep_only(&self, keys: &KeySet) {
        let is_kept = |key_id: &str| keys.iter().any(|key| key.key_id() == key_id);
        self.shared.batched.lock().retain(|key_id, _| is_kept(key_id));
    }

    /// The number of batch signatures that failed their check. For each of them, the token was
    /// signed again with a single signature.
    pub fn faults(&self) -> u32 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// Signs `input` with `key` and returns the buffer of `input` with the signature appended.
    ///
    /// If the future is dropped before a thread has taken the token, the token is not signed.
    ///
    /// # Errors
    ///
    /// [`SignError`]: nothing was signed.
    pub async fn sign(
        &self,
        key: Arc<SigningKey>,
        input: SigningInput,
    ) -> Result<Signed, SignError> {
        let (sender, receiver) = self.shared.outboxes.channel();
        self.shared.push(Job { key, input, sender })?;
        receiver.await
    }

    /// The library that makes single signatures.
    pub fn single(&self) -> Single {
        self.shared.single
    }

    /// Whether one more token is admitted now. [`Engine::sign`] checks this again, and may then
    /// refuse the token. An early check saves work on a token that would be refused anyway.
    pub fn has_room(&self) -> bool {
        self.shared.waiting.lock().has_room()
    }

    /// How many tokens wait now.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.lock().queue.length()
    }

    /// How many tokens may wait now.
    pub fn open(&self) -> usize {
        self.shared.waiting.lock().admission.limit()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.arrival.notify_all();
        for thread in self.threads.drain(..) {
            // `join` fails only if the thread panicked, but the thread catches and logs its panics.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// The state that all signing threads share.
struct Shared {
    /// Locked for each push and pop, and never while a signature is made.
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    outboxes: Outboxes,
    /// The keys that sign in batches, by `kid`.
    batched: Mutex<HashMap<String, Arc<Batched>>>,
    faults: AtomicU32,
    /// [`worker::HOLD_BACK_FROM`], times the number of threads.
    hold_back_from: usize,
    single: Single,
}

struct Waiting {
    queue: Queue,
    admission: Admission,
    closed: bool,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.queue.length() < self.admission.limit()
    }
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), SignError> {
        let mut waiting = self.waiting.lock();
        if !waiting.has_room() {
            return Err(SignError::QueueFull);
        }
        waiting.queue.push(job);
        drop(waiting);
        // Makes no system call if no thread waits.
        self.arrival.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use rsa_x8::BATCH;
    use tokio::runtime::Builder;
    use tokio::task::JoinSet;

    use super::*;
    use crate::clock::Clock;
    use crate::jose::jws::PayloadWriter;
    use crate::keys::directory;
    use crate::keys::life::Retention;
    use crate::signing::single::{MAX_SIGNATURE_BYTES, blinding};

    fn key() -> Arc<SigningKey> {
        let directory = tempfile::tempdir().unwrap();
        let retention = Retention { jwks_max_age: 1, token_lifetime: 1 };
        Arc::new(directory::generate(directory.path(), 2048, &retention, 1).unwrap())
    }

    fn input(number: usize) -> SigningInput {
        PayloadWriter::begin(number.to_string().into_bytes(), "header").finish()
    }

    /// Some futures are dropped, at every stage of their wait. All other futures must complete.
    #[test]
    fn all_futures_complete_though_others_are_dropped() {
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

    /// A waker that panics, and records that it was called.
    struct PanickingWaker(AtomicBool);

    impl Wake for PanickingWaker {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
            panic!("planted");
        }
    }

    #[test]
    fn a_signing_thread_continues_after_a_panic() {
        let engine = Engine::start(Single::Ring, 1, 64).unwrap();
        let key = key();
        let panicking = Arc::new(PanickingWaker(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&panicking));
        let (sender, receiver) = engine.shared.outboxes.channel();
        let mut unwoken = pin!(receiver);
        assert!(unwoken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        engine.shared.push(Job { key: Arc::clone(&key), input: input(1), sender }).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(2)));
        assert!(signed.is_ok() && panicking.0.load(Ordering::Relaxed));
        let result = unwoken.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(result, Poll::Ready(Ok(_))), "{result:?}");
    }

    /// If a batch signature fails its check, the token is signed again with a single signature.
    /// After the second failure, there are no more batches. (The tests of `rsa-x8` show that a
    /// hardware fault makes the check fail.)
    #[test]
    fn a_failed_signature_is_made_again_and_a_second_turns_batches_off() {
        let engine = Engine::start(Single::Ring, 1, 64).unwrap();
        let key = key();
        #[cfg(target_arch = "x86_64")]
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        #[cfg(not(target_arch = "x86_64"))]
        let able = false;
        assert_eq!(engine.prepare(&key), able);
        let Some(batched) = engine.shared.batched.lock().get(key.key_id()).cloned() else { return };
        let random = blinding();
        let reference = |number: usize| {
            let mut signature = [0; MAX_SIGNATURE_BYTES];
            let input = input(number);
            let length = Single::Ring.sign(&key, input.as_bytes(), &random, &mut signature);
            input.finish(&signature[..length.unwrap()])
        };

        let runtime = Builder::new_current_thread().build().unwrap();
        for (faults, failed) in [(1, 3), (2, 7)] {
            assert!(engine.shared.may_batch());
            let (mut jobs, mut receivers) = (Vec::new(), Vec::new());
            for number in 0..BATCH {
                let (sender, receiver) = engine.shared.outboxes.channel();
                jobs.push(Job { key: Arc::clone(&key), input: input(number), sender });
                receivers.push(receiver);
            }
            let mut batch = batched.sign(&jobs, Clock::instant());
            assert_eq!(batch.passed, [true; BATCH]);
            // The values that `BatchKey::sign` returns for a signature that failed its check.
            (batch.signatures[failed], batch.passed[failed]) = ([0; MAX_SIGNATURE_BYTES], false);
            let mut held_back = Vec::new();
            engine.shared.finish_batch(&mut jobs, &batch, &random, &mut held_back);
            assert_eq!(engine.faults(), faults);
            for (number, receiver) in receivers.into_iter().enumerate() {
                let signed = runtime.block_on(receiver).unwrap();
                assert_eq!(signed.buffer, reference(number), "signature {number}");
            }
        }
        assert!(!engine.shared.may_batch());
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(9))).unwrap();
        assert_eq!(signed.buffer, reference(9));
    }
}
