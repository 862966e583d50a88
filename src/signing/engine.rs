//! Signing threads behind a bounded queue.
//!
//! A signature takes 99 % of a token's time. On the event loop it would hold up every other
//! connection for 0.65 ms, so it runs on threads of its own; and since nothing may wait longer than
//! the queue is long, what does not fit is refused at once.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

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
        let (reply, signed) = oneshot::channel();
        self.shared.push(Job { key, input, reply })?;
        signed.await.unwrap_or(Err(SignError::Failed))
    }

    /// What signs.
    pub fn single(&self) -> Single {
        self.shared.single
    }

    /// How many tokens wait at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
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
    reply: oneshot::Sender<Result<Vec<u8>, SignError>>,
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), SignError> {
        let mut queue = self.lock();
        if queue.jobs.len() >= self.capacity {
            return Err(SignError::QueueFull);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.arrival.notify_one();
        Ok(())
    }

    fn work(&self) {
        let random = blinding();
        while let Some(Job { key, input, reply }) = self.next() {
            if reply.is_closed() {
                continue;
            }
            let mut signature = [0; MAX_SIGNATURE_BYTES];
            let signed = self
                .single
                .sign(&key, input.as_bytes(), &random, &mut signature)
                .map(|length| input.finish(&signature[..length]))
                .ok_or(SignError::Failed);
            // Nobody waits any more: the client has gone.
            let _ = reply.send(signed);
        }
    }

    /// The next job, or `None` once the engine is closed and the queue is empty.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.arrival.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A queue is whole between any two statements, so a panic elsewhere cannot have broken it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
