//! Signing threads behind a bounded queue.
//!
//! A signature takes 99 % of a token's time. On the event loop it would hold up every other
//! connection for 0.65 ms, so it runs on threads of its own; and since nothing may wait longer than
//! the queue is long, what does not fit is refused at once.
//!
//! On a busy machine the way back costs more than the way there: each finished token wakes the event
//! loop, which takes the processor from the signing thread, finds one token and gives it back. So
//! where many wait, finished tokens are kept until there are [`GROUP`] of them, only one of their
//! futures is woken from here, and that one wakes the others when it is polled, which is on the event
//! loop, where waking is cheap.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use crate::jose::jws::SigningInput;
use crate::jose::key_set::SigningKey;
use crate::signing::single::{MAX_SIGNATURE_BYTES, Single, blinding};

/// Signs on its own threads until it is dropped.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts `threads` threads that sign with `single`, in front of which at most `capacity` tokens
    /// wait.
    ///
    /// # Errors
    ///
    /// The operating system's, if it grants no more threads.
    pub fn start(single: Single, threads: usize, capacity: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { jobs: VecDeque::with_capacity(capacity), closed: false }),
            arrival: Condvar::new(),
            finished: Mutex::new(Vec::with_capacity(threads * GROUP)),
            capacity,
            single,
        });
        let mut engine = Self { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&engine.shared);
            let builder = thread::Builder::new().name(format!("sign-{index}"));
            engine.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(engine)
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
    ) -> Result<Vec<u8>, SignError> {
        let slot = Arc::new(Slot(Mutex::new(State::Waiting(None))));
        self.shared.push(Job { key, input, debt: Debt(Arc::clone(&slot)) })?;
        Signed { slot, shared: &self.shared }.await
    }

    /// What signs.
    pub fn single(&self) -> Single {
        self.shared.single
    }

    /// How many tokens wait at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.queue().jobs.len()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.arrival.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The queue is full: more is asked for than the machine can sign.
    QueueFull,
    /// The backend gave no signature.
    Failed,
}

struct Shared {
    /// Held for a push or a pop, never while signing.
    queue: Mutex<Queue>,
    arrival: Condvar,
    /// Those whose results are there, but who have not been told.
    finished: Mutex<Vec<Finished>>,
    capacity: usize,
    single: Single,
}

struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Job {
    key: Arc<SigningKey>,
    input: SigningInput,
    debt: Debt,
}

/// Somebody to wake, and the slot that says whether it still waits.
struct Finished {
    slot: Arc<Slot>,
    waker: Waker,
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), SignError> {
        let mut queue = self.queue();
        if queue.jobs.len() >= self.capacity {
            return Err(SignError::QueueFull);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.arrival.notify_one();
        Ok(())
    }

    /// Signs until the engine is closed and the queue is empty.
    fn work(&self) {
        let random = blinding();
        let mut kept = Vec::with_capacity(GROUP);
        loop {
            let mut queue = self.queue();
            while queue.jobs.is_empty() {
                if !kept.is_empty() {
                    drop(queue);
                    self.tell(&mut kept);
                    queue = self.queue();
                } else if queue.closed {
                    return;
                } else {
                    queue = self.arrival.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let Some(Job { key, input, debt }) = queue.jobs.pop_front() else { continue };
            let waiting = queue.jobs.len();
            drop(queue);

            let slot = &debt.0;
            if slot.is_awaited() {
                let mut signature = [0; MAX_SIGNATURE_BYTES];
                let signed = self
                    .single
                    .sign(&key, input.as_bytes(), &random, &mut signature)
                    .map(|length| input.finish(&signature[..length]))
                    .ok_or(SignError::Failed);
                let waker = slot.fill(signed);
                kept.extend(waker.map(|waker| Finished { slot: Arc::clone(slot), waker }));
            }
            if kept.len() >= GROUP || waiting < GROUP_FROM {
                self.tell(&mut kept);
            }
        }
    }

    /// Wakes one of `kept`, which will wake the others.
    fn tell(&self, kept: &mut Vec<Finished>) {
        let mut leader = kept.pop();
        self.finished().append(kept);
        // Only now: whoever still waits at this point will be polled or dropped after it, and either
        // way see to those that have just been put down.
        while let Some(Finished { slot, waker }) = leader {
            if slot.is_awaited() {
                waker.wake();
                return;
            }
            leader = self.finished().pop();
        }
    }

    fn wake_finished(&self) {
        loop {
            let Some(Finished { waker, .. }) = self.finished().pop() else { return };
            waker.wake();
        }
    }

    /// Both are whole between any two statements, so a panic elsewhere cannot have broken them.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a signing thread leaves a result for the future that waits for it.
struct Slot(Mutex<State>);

enum State {
    /// For the signature.
    Waiting(Option<Waker>),
    /// For the future to be polled.
    Filled(Result<Vec<u8>, SignError>),
    /// Taken, or nobody wants it any more.
    Closed,
}

impl Slot {
    fn is_awaited(&self) -> bool {
        !matches!(*self.state(), State::Closed)
    }

    /// Leaves the result, and gives back whom to wake.
    fn fill(&self, result: Result<Vec<u8>, SignError>) -> Option<Waker> {
        let mut state = self.state();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = State::Filled(result);
                waker
            }
            State::Filled(_) | State::Closed => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that whoever waits is told something, even if the thread that signs should panic.
struct Debt(Arc<Slot>);

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(waker) = self.0.fill(Err(SignError::Failed)) {
            waker.wake();
        }
    }
}

/// Completes with the signed buffer.
struct Signed<'e> {
    slot: Arc<Slot>,
    shared: &'e Shared,
}

impl Future for Signed<'_> {
    type Output = Result<Vec<u8>, SignError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Filled(result) => {
                drop(state);
                self.shared.wake_finished();
                Poll::Ready(result)
            }
            State::Waiting(_) => {
                *state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Closed => Poll::Ready(Err(SignError::Failed)),
        }
    }
}

impl Drop for Signed<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.slot.state(), State::Closed);
        if matches!(state, State::Filled(_)) {
            self.shared.wake_finished();
        }
    }
}

/// How many finished tokens are told of at a time, at most.
const GROUP: usize = 8;

/// Above this many waiting, a token has waited long enough for a few more signatures not to matter.
const GROUP_FROM: usize = 16;

#[cfg(test)]
mod tests {
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
        PayloadWriter::begin(number.to_string().into_bytes(), "header").finish().unwrap()
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
}
