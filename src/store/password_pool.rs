//! Threads that compute slow hashes of secrets, behind a bounded queue.
//!
//! A slow hash takes a tenth of a second by design. On the event loop it would hold up everybody
//! else, so it runs here; and since anybody can ask for one, what does not fit is refused at once.
//! Whoever asks for what is being computed already waits for the same result and takes no place.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use ring::hmac;
use zeroize::Zeroizing;

use crate::oauth::password_hash::PasswordHash;
use crate::random::Random;
use crate::store::verdicts::{Attempt, Verdicts};

/// Computes until it is dropped.
pub struct PasswordPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    key: hmac::Key,
}

/// The queue is full: more is asked for than the machine can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl PasswordPool {
    /// Starts `threads` threads, in front of which at most `capacity` secrets wait.
    ///
    /// # Errors
    ///
    /// The operating system's, if it grants no more threads or random bytes.
    pub fn start(threads: usize, capacity: usize, random: &Random) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        random
            .fill(&mut *key)
            .map_err(|_| io::Error::other("the operating system has no random bytes"))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrival: Condvar::new(),
            computed: AtomicI64::new(0),
            capacity,
        });
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
        let mut pool = Self { shared, threads: Vec::with_capacity(threads), key };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("hash-{index}"));
            pool.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Whether `secret`, given for `client_id`, has this hash: from `verdicts` if it was right
    /// before, else computed and, if it is right, kept there.
    ///
    /// # Errors
    ///
    /// [`QueueFull`].
    pub async fn is_of(
        &self,
        hash: &Arc<PasswordHash>,
        client_id: &str,
        secret: &str,
        verdicts: &Arc<Verdicts>,
    ) -> Result<bool, QueueFull> {
        let attempt = self.attempt(hash, client_id, secret);
        if verdicts.is_right(&attempt) {
            return Ok(true);
        }
        let job = || Job {
            attempt,
            hash: Arc::clone(hash),
            secret: Zeroizing::new(secret.to_owned()),
            verdicts: Arc::clone(verdicts),
        };
        Ok(self.shared.ask(attempt, job)?.await)
    }

    /// A number that always is the same for the same text in this process and that nobody else can
    /// tell.
    pub fn keyed(&self, text: &str) -> u64 {
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag.as_ref()[..8]);
        u64::from_le_bytes(bytes)
    }

    /// How many secrets wait at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.queue().jobs.len()
    }

    /// How many hashes were computed since the start.
    pub fn computed(&self) -> i64 {
        self.shared.computed.load(Ordering::Relaxed)
    }

    fn attempt(&self, hash: &PasswordHash, client_id: &str, secret: &str) -> Attempt {
        let mut hmac = hmac::Context::with_key(&self.key);
        for text in [hash.as_stored(), client_id, secret] {
            // With its length, so that no two lists of texts are the same bytes.
            hmac.update(&text.len().to_le_bytes());
            hmac.update(text.as_bytes());
        }
        let mut attempt = Attempt::default();
        attempt.copy_from_slice(hmac.sign().as_ref());
        attempt
    }
}

impl Drop for PasswordPool {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.arrival.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for PasswordPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordPool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    arrival: Condvar,
    computed: AtomicI64,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What is waiting or being computed, and for whom.
    answers: HashMap<Attempt, Arc<Answer>>,
    is_closed: bool,
}

struct Job {
    attempt: Attempt,
    hash: Arc<PasswordHash>,
    secret: Zeroizing<String>,
    verdicts: Arc<Verdicts>,
}

impl Shared {
    fn ask(&self, attempt: Attempt, job: impl FnOnce() -> Job) -> Result<Waiting, QueueFull> {
        let mut queue = self.queue();
        if let Some(answer) = queue.answers.get(&attempt) {
            return Ok(Waiting(Arc::clone(answer)));
        }
        if queue.jobs.len() >= self.capacity {
            return Err(QueueFull);
        }
        let answer = Arc::<Answer>::default();
        queue.answers.insert(attempt, Arc::clone(&answer));
        queue.jobs.push_back(job());
        self.arrival.notify_one();
        Ok(Waiting(answer))
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // Whoever waits is told something even if a hash should panic.
            let hashed = AssertUnwindSafe(|| job.hash.is_of(&job.secret));
            let is_right = catch_unwind(hashed).unwrap_or(false);
            self.computed.fetch_add(1, Ordering::Relaxed);
            if is_right {
                job.verdicts.remember(job.attempt);
            }
            // Only now: whoever asks from here on finds the verdict.
            let answer = self.queue().answers.remove(&job.attempt);
            if let Some(answer) = answer {
                answer.give(is_right);
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.arrival.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a thread leaves a verdict for all who wait for it.
#[derive(Default)]
struct Answer(Mutex<State>);

#[derive(Default)]
struct State {
    is_right: Option<bool>,
    wakers: Vec<Waker>,
}

impl Answer {
    fn give(&self, is_right: bool) {
        let mut state = self.state();
        state.is_right = Some(is_right);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes with the verdict.
struct Waiting(Arc<Answer>);

impl Future for Waiting {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.state();
        if let Some(is_right) = state.is_right {
            return Poll::Ready(is_right);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
