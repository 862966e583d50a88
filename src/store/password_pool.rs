//! Threads that compute slow hashes of secrets, behind a bounded queue.
//!
//! A slow hash takes a tenth of a second by design. On the event loop it would hold up all other
//! requests, so it runs here. Every caller can ask for one, so the queue is shared out:
//!
//! - A source (a client network, or a client where many share a network) may hold an eighth of the
//!   places, and a network that many share a quarter.
//! - Sources take turns.
//! - A client that was right at its network before goes first, and where the queue is full it takes
//!   the place of one that was not.
//!
//! What does not fit is refused at once. A request for a hash that is being computed already waits
//! for the same result and takes no place.

mod queue;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use compact_str::CompactString;
use ring::hmac;
use zeroize::Zeroizing;

use crate::oauth::client::Registry;
use crate::oauth::error::Cause;
use crate::oauth::password_hash::PasswordHash;
use crate::random::Random;
use crate::store::password_pool::queue::Queue;
use crate::store::verdicts::{Attempt, Verdict, Verdicts};

/// Computes until it is dropped.
pub struct PasswordPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    key: hmac::Key,
}

/// Why a hash is not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The source holds all the places that it may.
    Share,
    /// The queue is full: more is asked for than the machine can compute.
    Full,
}

impl From<NoRoom> for Cause {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Share => Self::PasswordQueueShare,
            NoRoom::Full => Self::PasswordQueueFull,
        }
    }
}

/// A secret that is given for a client, to be compared with one stored hash.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// The client that is named.
    pub client_id: &'a str,
    /// What was registered.
    pub hash: &'a Arc<PasswordHash>,
    /// What was given.
    pub secret: &'a str,
}

/// Whose turn a comparison takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Where it comes from, as a number.
    pub source: u64,
    /// The network, as a number, where many sources share it.
    pub shared_network: Option<u64>,
    /// Whether the client was right at its network before.
    pub is_known: bool,
}

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
            verdicts: Verdicts::default(),
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

    /// The name under which the pool knows this comparison.
    pub fn attempt(&self, comparison: Comparison<'_>) -> Attempt {
        let Comparison { client_id, hash, secret } = comparison;
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

    /// Whether the secret was right before.
    pub fn was_right(&self, attempt: &Attempt) -> bool {
        self.shared.verdicts.is_right(attempt)
    }

    /// Whether the secret has the hash: computed and, if it is right, remembered.
    ///
    /// # Errors
    ///
    /// [`NoRoom`].
    pub async fn compute(
        &self,
        attempt: Attempt,
        comparison: Comparison<'_>,
        turn: Turn,
    ) -> Result<bool, NoRoom> {
        let job = || Job {
            attempt,
            turn,
            client_id: comparison.client_id.into(),
            hash: Arc::clone(comparison.hash),
            secret: Zeroizing::new(comparison.secret.to_owned()),
        };
        self.shared.ask(attempt, turn, job)?.await
    }

    /// Forgets every secret that no client of `clients` has.
    pub fn keep_only(&self, clients: &Registry) {
        self.shared.verdicts.keep_only(clients);
    }

    /// How many secrets wait at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.queue().waiting
    }

    /// How many hashes were computed since the start.
    pub fn computed(&self) -> i64 {
        self.shared.computed.load(Ordering::Relaxed)
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
    verdicts: Verdicts,
    computed: AtomicI64,
    capacity: usize,
}

struct Job {
    attempt: Attempt,
    turn: Turn,
    client_id: CompactString,
    hash: Arc<PasswordHash>,
    secret: Zeroizing<String>,
}

impl Shared {
    fn ask(
        &self,
        attempt: Attempt,
        turn: Turn,
        job: impl FnOnce() -> Job,
    ) -> Result<Waiting<'_>, NoRoom> {
        let mut queue = self.queue();
        if let Some(answer) = queue.join(&attempt) {
            return Ok(Waiting { shared: self, attempt, answer });
        }
        let [share, network_share] =
            [SHARES, NETWORK_SHARES].map(|shares| (self.capacity / shares).max(1));
        if queue.held_by_source(turn) >= share || queue.held_by_network(turn) >= network_share {
            return Err(NoRoom::Share);
        }
        if queue.waiting >= self.capacity {
            let evicted = if turn.is_known { queue.evict() } else { None };
            evicted.ok_or(NoRoom::Full)?.give(Err(NoRoom::Full));
        }
        let answer = queue.push(job());
        self.arrival.notify_one();
        Ok(Waiting { shared: self, attempt, answer })
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // The requests that wait are answered even if a hash should panic.
            let hashed = AssertUnwindSafe(|| job.hash.is_of(&job.secret));
            let is_right = catch_unwind(hashed).unwrap_or(false);
            self.computed.fetch_add(1, Ordering::Relaxed);
            let Job { attempt, client_id, hash, .. } = job;
            if is_right {
                self.verdicts.remember(Verdict { attempt, client_id, hash });
            }
            // Only now: a request that comes later finds the verdict.
            let answer = self.queue().finish(&attempt);
            if let Some(answer) = answer {
                answer.give(Ok(is_right));
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.take() {
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

/// A source may hold one place in so many, and a network that many share one in so many.
const SHARES: usize = 8;
const NETWORK_SHARES: usize = 4;

/// Where a thread leaves a verdict for all requests that wait for it.
#[derive(Default)]
struct Answer(Mutex<State>);

#[derive(Default)]
struct State {
    verdict: Option<Result<bool, NoRoom>>,
    wakers: Vec<Waker>,
}

impl Answer {
    fn give(&self, verdict: Result<bool, NoRoom>) {
        let mut state = self.state();
        state.verdict = Some(verdict);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes with the verdict. A secret that no request waits for any more leaves the queue.
struct Waiting<'p> {
    shared: &'p Shared,
    attempt: Attempt,
    answer: Arc<Answer>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answer.state().verdict.is_none() {
            self.shared.queue().leave(&self.attempt, &self.answer);
        }
    }
}

impl Future for Waiting<'_> {
    type Output = Result<bool, NoRoom>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.answer.state();
        if let Some(verdict) = state.verdict {
            return Poll::Ready(verdict);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::forget;

    use crate::oauth::password_hash::Work;

    fn job(number: u8, turn: Turn) -> Job {
        Job {
            attempt: [number; 32],
            turn,
            client_id: CompactString::const_new("a"),
            hash: Arc::new(PasswordHash::unmatchable(Work::PBKDF2_SHA256, 0)),
            secret: Zeroizing::new(String::new()),
        }
    }

    /// A queue that no thread empties.
    fn shared(capacity: usize) -> Shared {
        Shared {
            queue: Mutex::default(),
            arrival: Condvar::new(),
            verdicts: Verdicts::default(),
            computed: AtomicI64::new(0),
            capacity,
        }
    }

    fn ask(
        shared: &Shared,
        source: u64,
        is_known: bool,
        number: u8,
    ) -> Result<Waiting<'_>, NoRoom> {
        let turn = Turn { source, shared_network: None, is_known };
        shared.ask([number; 32], turn, || job(number, turn))
    }

    fn order(shared: &Shared) -> Vec<u8> {
        let mut queue = shared.queue();
        std::iter::from_fn(|| Some(queue.take()?.attempt[0])).collect()
    }

    #[test]
    fn sources_take_turns_and_known_clients_go_first() {
        let shared = shared(80);
        for (source, is_known, number) in
            [(1, false, 10), (1, false, 11), (1, false, 12), (2, false, 20), (3, true, 30)]
        {
            forget(ask(&shared, source, is_known, number).unwrap());
        }
        assert_eq!(shared.queue().waiting, 5);
        assert_eq!(order(&shared), [30, 10, 20, 11, 12]);
        assert_eq!(shared.queue().waiting, 0);
    }

    #[test]
    fn a_source_holds_its_share_and_no_more() {
        let shared = shared(16);
        let waiting = [1, 2].map(|number| ask(&shared, 1, false, number).unwrap());
        assert_eq!(ask(&shared, 1, false, 3).err(), Some(NoRoom::Share));
        // What is asked for already takes no place.
        assert!(ask(&shared, 1, false, 2).is_ok());
        assert!(ask(&shared, 2, false, 4).is_ok());
        drop(waiting);
        assert!(ask(&shared, 1, false, 3).is_ok());
    }

    #[test]
    fn a_secret_leaves_the_queue_with_the_last_request_for_it() {
        let shared = shared(16);
        let [first, second] = [(); 2].map(|()| ask(&shared, 1, false, 1).unwrap());
        forget(ask(&shared, 1, false, 2).unwrap());
        drop(first);
        assert_eq!(shared.queue().waiting, 2);
        drop(second);
        assert_eq!(shared.queue().waiting, 1);
        assert_eq!(order(&shared), [2]);
        // One that a thread has stays until it is computed, for those who ask meanwhile.
        let left = ask(&shared, 1, false, 3).unwrap();
        assert!(shared.queue().take().is_some());
        drop(left);
        let joined = ask(&shared, 1, false, 3).unwrap();
        assert_eq!(shared.queue().waiting, 0);
        assert!(shared.queue().finish(&joined.attempt).is_some());
        // An old request does not count for a new one of the same secret.
        let new = ask(&shared, 1, false, 3).unwrap();
        drop(joined);
        assert_eq!(shared.queue().waiting, 1);
        drop(new);
        assert_eq!(shared.queue().waiting, 0);
    }

    #[test]
    fn a_shared_network_holds_its_share_but_for_clients_that_are_known() {
        let shared = shared(16);
        let ask = |source: u8, network, is_known| {
            let turn = Turn { source: source.into(), shared_network: Some(network), is_known };
            shared.ask([source; 32], turn, || job(source, turn)).map(forget).err()
        };
        for source in 0..4 {
            assert_eq!(ask(source, 1, false), None);
        }
        assert_eq!(ask(4, 1, false), Some(NoRoom::Share));
        assert_eq!((ask(5, 2, false), ask(6, 1, true)), (None, None));
        assert_eq!(order(&shared).len(), 6);
        assert_eq!(
            shared.queue().held_by_network(Turn {
                source: 4,
                shared_network: Some(1),
                is_known: false
            }),
            0
        );
        assert_eq!(ask(4, 1, false), None);
    }

    #[test]
    fn a_known_client_takes_the_place_of_an_unknown_one() {
        let shared = shared(4);
        let ask = |source, is_known| ask(&shared, source, is_known, source as u8);
        let waiting: Vec<_> = (1..=4).map(|at| ask(at, false).unwrap()).collect();
        assert_eq!(ask(5, false).err(), Some(NoRoom::Full));
        forget(ask(6, true).unwrap());
        let mut told = waiting.iter().map(|waiting| waiting.answer.state().verdict);
        assert!(told.by_ref().take(3).all(|verdict| verdict.is_none()));
        assert_eq!(told.next().unwrap(), Some(Err(NoRoom::Full)));
        for number in 7..=9 {
            forget(ask(number, true).unwrap());
        }
        assert_eq!(ask(10, true).err(), Some(NoRoom::Full));
        assert_eq!(order(&shared), [6, 7, 8, 9]);
    }
}
