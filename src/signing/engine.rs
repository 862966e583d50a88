//! Signing threads behind a bounded queue.
//!
//! Signing takes 99 % of the time that a token needs: about 0.65 ms for each token if ring or
//! aws-lc signs the tokens one by one. On an event loop, each signature would delay all other
//! connections for 0.65 ms, so tokens are signed on separate threads. A token that finds the queue
//! full is refused at once, so the length of the queue bounds how long any token waits.
//!
//! On processors with AVX-512 IFMA, tokens that wait for the same key are signed in batches of up
//! to eight. If few tokens wait, so that a batch would be slower, tokens are signed one by one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use tracing::error;

use crate::clock::Clock;
use crate::jose::jws::SigningInput;
use crate::signing::backends::Backends;
use crate::signing::completion::Delivery;
pub use crate::signing::completion::Signed;
use crate::signing::private_key::PrivateKey;
use crate::signing::queue::Job;
use crate::signing::worker::{self, Shared};

/// The signing threads and their queue. Dropping the engine waits until the queue is empty, and
/// then stops the threads.
pub struct Engine {
    shared: Arc<Shared>,
    /// The libraries that sign.
    pub backends: Backends,
    threads: Vec<JoinHandle<()>>,
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The number of waiting tokens has reached the limit of admission.
    QueueFull,
    /// The signing library returned an error, or the signing thread panicked.
    Failed,
}

impl Engine {
    /// Starts `threads` threads, which sign with `backends`.
    ///
    /// At most `capacity` tokens may wait. The limit is at most half of `capacity` until the signing
    /// threads have been busy for some tens of milliseconds. It is also lower than `capacity` while
    /// other threads use the processors of the signing threads.
    ///
    /// # Errors
    ///
    /// An error of the operating system if it cannot start a thread.
    pub fn start(
        backends: Backends,
        threads: usize,
        capacity: usize,
        clock: Clock,
    ) -> io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared::new(backends.single, threads, capacity, clock));
        let mut engine = Self { shared, backends, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&engine.shared);
            let builder = thread::Builder::new().name(format!("sign-{index}"));
            engine.threads.push(builder.spawn(move || {
                worker::lower_priority();
                let mut held_back = Vec::with_capacity(worker::SEND_AFTER);
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
        key: Arc<PrivateKey>,
        input: SigningInput,
    ) -> Result<Signed, SignError> {
        let (sender, receiver) = oneshot::channel();
        let event_loop = number_of_this_thread() % self.threads.len();
        if !self.shared.push(Job { key, input, sender, event_loop }) {
            return Err(SignError::QueueFull);
        }
        // The sender is dropped if the library fails or the signing thread panics.
        let Delivery { signed, others } = receiver.await.map_err(|_| SignError::Failed)?;
        drop(others);
        Ok(signed)
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

/// Returns the number of the current thread. Threads are numbered from 0 in the order in which they
/// first call this function. Only event loops call it, so if the process has only one server, these
/// are the numbers of its event loops.
fn number_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // `join` fails only if the thread panicked, but the thread catches and logs its panics.
            let _ = thread.join();
        }
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
    use crate::config::SignerChoice;
    use crate::jose::jws::PayloadWriter;
    use crate::signing::completion;
    use crate::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner, blinding};

    fn key() -> Arc<PrivateKey> {
        Arc::new(PrivateKey::generate())
    }

    fn engine(choice: SignerChoice, threads: usize) -> Engine {
        Engine::start(Backends::new(choice, None), threads, 64, Clock::system()).unwrap()
    }

    fn input(number: usize) -> SigningInput {
        PayloadWriter::begin(number.to_string().into_bytes(), "header").finish()
    }

    /// Some futures are dropped, at every stage of their wait. All other futures must complete.
    #[test]
    fn all_futures_complete_though_others_are_dropped() {
        let engine = Arc::new(engine(SignerChoice::Ring, 2));
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
        let engine = engine(SignerChoice::Ring, 1);
        let key = key();
        let panicking = Arc::new(PanickingWaker(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&panicking));
        let (sender, receiver) = oneshot::channel();
        let mut unwoken = pin!(receiver);
        assert!(unwoken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let job = Job { key: Arc::clone(&key), input: input(1), sender, event_loop: 0 };
        assert!(engine.shared.push(job));
        let runtime = Builder::new_current_thread().build().unwrap();
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(2)));
        assert!(signed.is_ok() && panicking.0.load(Ordering::Relaxed));
        let result = unwoken.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(result, Poll::Ready(Ok(_))));
    }

    /// If a batch signature fails its check, the token is signed again with a single signature.
    /// After the second failure, there are no more batches. (The tests of `rsa-x8` show that a
    /// hardware fault makes the check fail.)
    #[test]
    fn a_failed_signature_is_made_again_and_a_second_turns_batches_off() {
        // Without a key for the trial, ring makes the single signatures.
        let engine = engine(SignerChoice::Auto, 1);
        let key = key();
        #[cfg(target_arch = "x86_64")]
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        #[cfg(not(target_arch = "x86_64"))]
        let able = false;
        assert_eq!(engine.backends.prepare([&*key].into_iter()), Ok(able));
        if !able {
            return;
        }
        let random = blinding();
        let reference = |number: usize| {
            let mut signature = [0; MAX_SIGNATURE_BYTES];
            let input = input(number);
            let length = SingleSigner::Ring.sign(&key, input.as_bytes(), &random, &mut signature);
            input.finish(&signature[..length.unwrap()])
        };

        let runtime = Builder::new_current_thread().build().unwrap();
        for (faults, failed) in [(1, 3), (2, 7)] {
            assert!(engine.shared.batch_pays_from(&key).is_some());
            let (mut jobs, mut receivers) = (Vec::new(), Vec::new());
            for number in 0..BATCH {
                let (sender, receiver) = oneshot::channel();
                let key = Arc::clone(&key);
                jobs.push(Job { key, input: input(number), sender, event_loop: 0 });
                receivers.push(receiver);
            }
            let mut batch = engine.shared.sign_batch(&jobs, Clock::system().instant()).unwrap();
            assert_eq!(batch.passed, [true; BATCH]);
            // The values that `BatchKey::sign` returns for a signature that failed its check.
            (batch.signatures[failed], batch.passed[failed]) = ([0; MAX_SIGNATURE_BYTES], false);
            let mut held_back = Vec::new();
            engine.shared.finish_batch(&mut jobs, &batch, &random, &mut held_back);
            completion::send(&mut held_back, 1);
            assert_eq!(engine.faults(), faults);
            for (number, receiver) in receivers.into_iter().enumerate() {
                let Delivery { signed, .. } = runtime.block_on(receiver).unwrap();
                assert_eq!(signed.buffer, reference(number), "signature {number}");
            }
        }
        assert_eq!(engine.shared.batch_pays_from(&key), None);
        let signed = runtime.block_on(engine.sign(Arc::clone(&key), input(9))).unwrap();
        assert_eq!(signed.buffer, reference(9));
    }
}
