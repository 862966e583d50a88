//! A thread pool that computes slow hashes of secrets, with a bounded queue.
//!
//! A slow hash takes a tenth of a second by design, so it must not be computed on an event loop.
//! Any client can make the server compute a slow hash, so the queue is shared fairly:
//!
//! - A client is *known* if it has authenticated from the same network in the last 24 hours. Jobs
//!   of known clients are computed first, but of four jobs one is of an unknown client, if one
//!   waits. If the queue is full, a job of a known client evicts a job of an unknown client while
//!   unknown clients hold more than a quarter of the queue, and a job of an unknown client evicts
//!   one of a known client while known clients hold more than three quarters. Otherwise a job
//!   evicts one of the source with the most jobs, if that has more than the job's own source.
//! - A network is *shared* if many clients may use it. Each job has a *source*. For a known client,
//!   the source is the client. For an unknown client on a shared network, the source is the pair of
//!   the client and the network. For any other unknown client, the source is the network. Sources
//!   are served round-robin. A source may hold at most an eighth of the queue.
//! - All unknown clients of a shared network together may hold at most a quarter of the queue.
//!
//! A job that would exceed one of these limits is refused at once. Requests for the same attempt
//! (the same client, stored hash and presented secret) share one job.

mod queue;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use ring::hmac;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

pub use crate::guard::password_pool::queue::Turn;
use crate::guard::password_pool::queue::{Job, Queue, RequestId};
use crate::guard::verdicts::{self, Attempt, Verdict, Verdicts};
use crate::oauth::client::Client;
use crate::oauth::error::Cause;
use crate::oauth::password_hash::PasswordHash;
use crate::random::Random;

/// The thread pool. Dropping it stops the threads.
pub struct PasswordPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    key: hmac::Key,
}

/// A presented secret and the stored hash to compare it with.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// The client.
    pub client_id: &'a str,
    /// The stored hash.
    pub hash: &'a Arc<PasswordHash>,
    /// The presented secret.
    pub secret: &'a str,
}

impl PasswordPool {
    /// Starts `threads` threads, which compute the jobs of one queue. The queue holds at most
    /// `capacity` jobs.
    ///
    /// # Errors
    ///
    /// An error of the operating system if it cannot start a thread or has no random bytes.
    pub fn start(threads: usize, capacity: usize, random: &Random) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        random
            .fill(&mut *key)
            .map_err(|_| io::Error::other("the operating system has no random bytes"))?;
        let shared = Arc::new(Shared::new(capacity));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
        let mut pool = Self { shared, threads: Vec::with_capacity(threads), key };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("hash-{index}"));
            pool.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Returns a keyed hash of the comparison: the cache key of its result.
    pub fn attempt(&self, comparison: Comparison<'_>) -> Attempt {
        let Comparison { client_id, hash, secret } = comparison;
        let mut hmac = hmac::Context::with_key(&self.key);
        for text in [hash.as_stored(), client_id, secret] {
            // Prefix each text with its length, so that different comparisons never hash the same
            // bytes.
            hmac.update(&text.len().to_le_bytes());
            hmac.update(text.as_bytes());
        }
        let mut attempt = Attempt::default();
        attempt.copy_from_slice(hmac.sign().as_ref());
        attempt
    }

    /// Whether the success of this attempt is cached.
    pub fn was_right(&self, attempt: &Attempt) -> bool {
        self.shared.verdicts.get(attempt).is_some()
    }

    /// Computes whether the presented secret matches the stored hash, on a thread of the pool.
    /// Caches a success.
    ///
    /// # Errors
    ///
    /// [`Cause::PasswordQueueShare`] or [`Cause::PasswordQueueFull`] if the queue has no room for the
    /// job, or evicts it later.
    pub async fn compute(
        &self,
        attempt: Attempt,
        comparison: Comparison<'_>,
        turn: Turn,
    ) -> Result<bool, Cause> {
        let job = || Job {
            attempt,
            turn,
            client_id: comparison.client_id.into(),
            hash: Arc::clone(comparison.hash),
            secret: Zeroizing::new(comparison.secret.to_owned()),
        };
        let mut waiting = self.shared.submit(attempt, turn, job)?;
        // The threads of the pool answer every job that is not evicted.
        (&mut waiting.verdict).await.unwrap_or(Err(Cause::PasswordQueueFull))
    }

    /// Removes each cached success whose secret no longer belongs to its client. `find` returns the
    /// registered client of an id.
    pub fn keep_only<'c>(&self, find: impl Fn(&str) -> Option<&'c Client>) {
        let is_right = |verdict: &Verdict| {
            find(&verdict.client_id).is_some_and(|client| verdict.is_of(client))
        };
        self.shared.verdicts.retain(is_right);
    }

    /// The number of jobs in the queue.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().waiting()
    }

    /// The number of hashes that this pool has computed.
    pub fn computed(&self) -> u64 {
        self.shared.computed.load(Ordering::Relaxed)
    }
}

impl Drop for PasswordPool {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.arrival.notify_all();
        for thread in self.threads.drain(..) {
            // If the thread has panicked, the panic has been logged already.
            let _ = thread.join();
        }
    }
}

struct Shared {
    queue: Mutex<Queue>,
    arrival: Condvar,
    verdicts: Verdicts,
    computed: AtomicU64,
    capacity: usize,
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::default(),
            arrival: Condvar::new(),
            verdicts: Verdicts::new(verdicts::CAPACITY),
            computed: AtomicU64::new(0),
            capacity,
        }
    }

    fn submit(
        &self,
        attempt: Attempt,
        turn: Turn,
        job: impl FnOnce() -> Job,
    ) -> Result<Waiting<'_>, Cause> {
        let mut queue = self.queue.lock();
        if let Some((request, verdict)) = queue.join(&attempt) {
            return Ok(Waiting { shared: self, attempt, request, verdict });
        }
        let [share, network_share] =
            [SHARES, NETWORK_SHARES].map(|shares| (self.capacity / shares).max(1));
        if queue.held_by_source(turn) >= share || queue.held_by_network(turn) >= network_share {
            return Err(Cause::PasswordQueueShare);
        }
        let evicted = if queue.waiting() < self.capacity {
            None
        } else {
            Some(queue.evict_for(turn, self.capacity).ok_or(Cause::PasswordQueueFull)?)
        };
        let (request, verdict) = queue.push(job());
        drop(queue);
        self.arrival.notify_one();
        if let Some(requests) = evicted {
            requests.answer(Err(Cause::PasswordQueueFull));
        }
        Ok(Waiting { shared: self, attempt, request, verdict })
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // Catch a panic, so that the waiting requests still get an answer.
            let hashed = AssertUnwindSafe(|| job.hash.is_of(&job.secret));
            let is_right = catch_unwind(hashed).unwrap_or(false);
            self.computed.fetch_add(1, Ordering::Relaxed);
            let Job { attempt, client_id, hash, .. } = job;
            if is_right {
                self.verdicts.insert(attempt, Arc::new(Verdict { client_id, hash }));
            }
            // Cache the verdict before the attempt is removed. Otherwise, a request for the same
            // attempt might find neither the attempt nor the cached verdict.
            let requests = self.queue.lock().finish(&attempt);
            requests.answer(Ok(is_right));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.take() {
                return Some(job);
            }
            self.arrival.wait(&mut queue);
        }
    }
}

/// A source may hold at most 1/8 of the queue.
const SHARES: usize = 8;
/// The unknown clients of a shared network may hold at most 1/4 of the queue.
const NETWORK_SHARES: usize = 4;

/// A request that waits for the verdict of a job. When the last such request is dropped, the job is
/// removed from the queue.
struct Waiting<'p> {
    shared: &'p Shared,
    attempt: Attempt,
    request: RequestId,
    verdict: oneshot::Receiver<Result<bool, Cause>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // `leave` drops the sender. It must wake nothing while it holds the lock.
        self.verdict.close();
        self.shared.queue.lock().leave(&self.attempt, self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::forget;
    use std::pin::Pin;
    use std::task::{Context, Wake};
    use std::time::Duration;

    use compact_str::CompactString;
    use tokio::sync::oneshot::error::TryRecvError;

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

    fn ask(shared: &Shared, source: u64, is_known: bool, number: u8) -> Result<Waiting<'_>, Cause> {
        let turn = Turn { source, shared_network: None, is_known };
        shared.submit([number; 32], turn, || job(number, turn))
    }

    fn order(shared: &Shared) -> Vec<u8> {
        let mut queue = shared.queue.lock();
        std::iter::from_fn(|| Some(queue.take()?.attempt[0])).collect()
    }

    #[test]
    fn sources_are_served_round_robin_and_known_clients_first() {
        let shared = Shared::new(80);
        for (source, is_known, number) in
            [(1, false, 10), (1, false, 11), (1, false, 12), (2, false, 20), (3, true, 30)]
        {
            forget(ask(&shared, source, is_known, number).unwrap());
        }
        assert_eq!(shared.queue.lock().waiting(), 5);
        assert_eq!(order(&shared), [30, 10, 20, 11, 12]);
        assert_eq!(shared.queue.lock().waiting(), 0);
    }

    #[test]
    fn one_of_four_jobs_is_of_an_unknown_client() {
        let shared = Shared::new(80);
        for number in 1..=7 {
            forget(ask(&shared, number.into(), true, number).unwrap());
        }
        for number in [10, 11] {
            forget(ask(&shared, number.into(), false, number).unwrap());
        }
        assert_eq!(order(&shared), [1, 2, 3, 10, 4, 5, 6, 11, 7]);
        // An unknown client that comes after more than three jobs of known clients is next.
        for number in 20..=24 {
            forget(ask(&shared, number.into(), true, number).unwrap());
        }
        assert_eq!(order(&shared), [20, 21, 22, 23, 24]);
        for (number, is_known) in [(30, true), (31, false)] {
            forget(ask(&shared, number.into(), is_known, number).unwrap());
        }
        assert_eq!(order(&shared), [31, 30]);
    }

    #[test]
    fn a_source_holds_at_most_its_share() {
        let shared = Shared::new(16);
        let waiting = [1, 2].map(|number| ask(&shared, 1, false, number).unwrap());
        assert_eq!(ask(&shared, 1, false, 3).err(), Some(Cause::PasswordQueueShare));
        // A second request for a queued attempt joins its job.
        assert!(ask(&shared, 1, false, 2).is_ok());
        assert!(ask(&shared, 2, false, 4).is_ok());
        drop(waiting);
        assert!(ask(&shared, 1, false, 3).is_ok());
    }

    #[test]
    fn a_job_is_removed_with_the_last_request_that_waits_for_it() {
        let shared = Shared::new(16);
        let [first, second] = [(); 2].map(|()| ask(&shared, 1, false, 1).unwrap());
        forget(ask(&shared, 1, false, 2).unwrap());
        drop(first);
        assert_eq!(shared.queue.lock().waiting(), 2);
        drop(second);
        assert_eq!(shared.queue.lock().waiting(), 1);
        assert_eq!(order(&shared), [2]);
        // When no request waits any more for a job that is being computed, the attempt is kept. A
        // new request joins the attempt.
        let left = ask(&shared, 1, false, 3).unwrap();
        assert!(shared.queue.lock().take().is_some());
        drop(left);
        let joined = ask(&shared, 1, false, 3).unwrap();
        assert_eq!(shared.queue.lock().waiting(), 0);
        shared.queue.lock().finish(&joined.attempt).answer(Ok(true));
        // If a request that waited for the finished job is dropped, the request count of a new job
        // for the same attempt is not reduced.
        let new = ask(&shared, 1, false, 3).unwrap();
        drop(joined);
        assert_eq!(shared.queue.lock().waiting(), 1);
        drop(new);
        assert_eq!(shared.queue.lock().waiting(), 0);
    }

    #[test]
    fn a_shared_network_holds_at_most_its_share_without_known_clients() {
        let shared = Shared::new(16);
        let ask = |source: u8, network, is_known| {
            let turn = Turn { source: source.into(), shared_network: Some(network), is_known };
            shared.submit([source; 32], turn, || job(source, turn)).map(forget).err()
        };
        for source in 0..4 {
            assert_eq!(ask(source, 1, false), None);
        }
        assert_eq!(ask(4, 1, false), Some(Cause::PasswordQueueShare));
        assert_eq!((ask(5, 2, false), ask(6, 1, true)), (None, None));
        assert_eq!(order(&shared).len(), 6);
        let turn = Turn { source: 4, shared_network: Some(1), is_known: false };
        assert_eq!(shared.queue.lock().held_by_network(turn), 0);
        assert_eq!(ask(4, 1, false), None);
    }

    #[test]
    fn a_full_queue_is_shared_by_known_and_unknown_clients() {
        let shared = Shared::new(4);
        let ask = |source: u8, is_known| ask(&shared, source.into(), is_known, source);
        let mut waiting: Vec<_> = (1..=4).map(|at| ask(at, false).unwrap()).collect();
        assert_eq!(ask(5, false).err(), Some(Cause::PasswordQueueFull));
        forget(ask(6, true).unwrap());
        let mut verdicts = waiting.iter_mut().map(|waiting| waiting.verdict.try_recv());
        assert!(verdicts.by_ref().take(3).all(|verdict| verdict == Err(TryRecvError::Empty)));
        assert_eq!(verdicts.next().unwrap(), Ok(Err(Cause::PasswordQueueFull)));
        for number in 7..=8 {
            forget(ask(number, true).unwrap());
        }
        assert_eq!(ask(9, true).err(), Some(Cause::PasswordQueueFull));
        assert_eq!(order(&shared), [6, 7, 8, 1]);

        let mut waiting: Vec<_> = (11..=14).map(|at| ask(at, true).unwrap()).collect();
        forget(ask(15, false).unwrap());
        assert_eq!(waiting[3].verdict.try_recv(), Ok(Err(Cause::PasswordQueueFull)));
        assert_eq!(ask(16, false).err(), Some(Cause::PasswordQueueFull));
        assert_eq!(order(&shared), [11, 12, 13, 15]);
    }

    #[test]
    fn a_full_queue_has_room_for_a_source_with_few_jobs() {
        for is_known in [true, false] {
            let shared = Shared::new(16);
            let ask = |source: u8, number| ask(&shared, source.into(), is_known, number);
            let mut waiting: Vec<_> =
                (0..16).map(|number| ask(number / 2, number).unwrap()).collect();
            forget(ask(8, 16).unwrap());
            let evicted: Vec<_> = (0..16)
                .filter(|at| waiting[*at].verdict.try_recv() == Ok(Err(Cause::PasswordQueueFull)))
                .collect();
            // The newer one of a source's two jobs.
            assert!(evicted.len() == 1 && evicted[0] % 2 == 1, "{evicted:?}");
            assert_eq!(ask(8, 17).err(), Some(Cause::PasswordQueueFull));
            assert_eq!(shared.queue.lock().waiting(), 16);
        }
    }

    /// Counts the wakes for which the lock of the queue was free.
    struct Probe {
        shared: Arc<Shared>,
        wakes: AtomicU64,
    }

    impl Wake for Probe {
        fn wake(self: Arc<Self>) {
            if self.shared.queue.try_lock().is_some() {
                self.wakes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn requests_are_woken_without_the_lock() {
        let shared = Arc::new(Shared::new(1));
        let probe = Arc::new(Probe { shared: Arc::clone(&shared), wakes: AtomicU64::new(0) });
        let waker = Arc::clone(&probe).into();
        let poll = |waiting: &mut Waiting<'_>| {
            Pin::new(&mut waiting.verdict).poll(&mut Context::from_waker(&waker))
        };
        let mut evicted = ask(&shared, 1, false, 1).unwrap();
        assert!(poll(&mut evicted).is_pending());
        let mut computed = ask(&shared, 2, true, 2).unwrap();
        assert!(poll(&mut evicted).is_ready() && poll(&mut computed).is_pending());
        assert_eq!(probe.wakes.load(Ordering::Relaxed), 1);

        // The thread computes the job, and ends when the queue is closed.
        thread::scope(|scope| {
            scope.spawn(|| shared.work());
            let is_done = (0..6000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                poll(&mut computed).is_ready()
            });
            shared.queue.lock().is_closed = true;
            shared.arrival.notify_all();
            assert!(is_done);
        });
        assert_eq!(probe.wakes.load(Ordering::Relaxed), 2);
    }
}
