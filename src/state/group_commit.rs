//! A thread that writes for all requests that wait for it: all of them share one turn at the disk.
//! No event loop waits for a disk, and no request waits longer than [`DEADLINE`].

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock::join_soon;
use crate::fault::Fault;

/// The work of the thread on its file or table.
pub(crate) trait Commit<Job, Answer>: Send + 'static {
    /// Handles all jobs that wait. Called with none when [`IDLE`] has passed without one.
    fn turn(&mut self, waiting: Vec<Waiting<Job, Answer>>);

    /// Called once, after the last turn.
    fn end(&mut self) {}
}

/// A job, and the request that waits for its answer. A request whose job is dropped gets no answer,
/// as when nothing could be written.
pub(crate) struct Waiting<Job, Answer> {
    pub(crate) job: Job,
    request: oneshot::Sender<Answer>,
}

impl<Job, Answer> Waiting<Job, Answer> {
    /// Makes a job, and what receives its answer.
    pub(crate) fn new(job: Job) -> (Self, oneshot::Receiver<Answer>) {
        let (request, answer) = oneshot::channel();
        (Self { job, request }, answer)
    }

    pub(crate) fn answer(self, answer: Answer) {
        // The request may have given up.
        let _ = self.request.send(answer);
    }

    /// Whether the request still waits.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.request.is_closed()
    }
}

/// The thread and its queue.
pub(crate) struct GroupCommit<Job, Answer> {
    queue: Arc<Queue<Job, Answer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    deadline: Duration,
}

impl<Job: Send + 'static, Answer: Send + 'static> GroupCommit<Job, Answer> {
    /// Starts the thread `name`, which writes to `place`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the thread cannot be started.
    pub(crate) fn start(
        name: &str,
        place: &Path,
        mut commit: impl Commit<Job, Answer>,
    ) -> Result<Self, Fault> {
        let jobs = Mutex::new(Jobs { waiting: Vec::new(), has_ended: false });
        let queue = Arc::new(Queue { jobs, arrival: Condvar::new() });
        let taking = Arc::clone(&queue);
        let builder = thread::Builder::new().name(name.to_owned());
        let thread = builder.spawn(move || {
            let _close = CloseOnDrop(&taking);
            while let Some(waiting) = taking.take() {
                commit.turn(waiting);
                if !taking.jobs.lock().waiting.is_empty() {
                    thread::sleep(PAUSE);
                }
            }
            commit.end();
        });
        let thread = thread.map_err(|error| {
            let problem =
                format!("the writer thread cannot be started: {error}; raise the limit of threads");
            Fault::new(place, problem)
        })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), deadline: DEADLINE })
    }

    /// Gives `job` to the thread and waits for its answer. `None` if too many jobs wait, the thread
    /// has ended, or the disk does not answer.
    pub(crate) async fn ask(&self, job: Job) -> Option<Answer> {
        let (waiting, answer) = Waiting::new(job);
        self.queue.push(waiting);
        timeout(self.deadline, answer).await.ok()?.ok()
    }
}

impl<Job, Answer> GroupCommit<Job, Answer> {
    /// Ends the thread after what waits now. If the disk hangs, the thread is left alone: what it
    /// has not written was never acknowledged.
    pub(crate) fn end(&self) {
        self.queue.jobs.lock().has_ended = true;
        self.queue.arrival.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            join_soon(thread);
        }
    }
}

impl<Job, Answer> Drop for GroupCommit<Job, Answer> {
    fn drop(&mut self) {
        self.end();
    }
}

struct Queue<Job, Answer> {
    jobs: Mutex<Jobs<Job, Answer>>,
    arrival: Condvar,
}

struct Jobs<Job, Answer> {
    waiting: Vec<Waiting<Job, Answer>>,
    /// Whether the thread has ended or has been told to end.
    has_ended: bool,
}

impl<Job, Answer> Queue<Job, Answer> {
    /// Drops the job if it cannot wait.
    fn push(&self, waiting: Waiting<Job, Answer>) {
        let mut jobs = self.jobs.lock();
        if !jobs.has_ended && jobs.waiting.len() < MAX_WAITING {
            jobs.waiting.push(waiting);
            drop(jobs);
            self.arrival.notify_one();
        }
    }

    /// Waits for jobs and takes all of them; none after [`IDLE`]. `None` at the end.
    fn take(&self) -> Option<Vec<Waiting<Job, Answer>>> {
        let mut jobs = self.jobs.lock();
        let idle = |jobs: &mut Jobs<Job, Answer>| jobs.waiting.is_empty() && !jobs.has_ended;
        self.arrival.wait_while_for(&mut jobs, idle, IDLE);
        let is_over = jobs.has_ended && jobs.waiting.is_empty();
        (!is_over).then(|| std::mem::take(&mut jobs.waiting))
    }
}

/// Closes the queue when the thread ends, even by a panic, so that no request waits for it.
struct CloseOnDrop<'a, Job, Answer>(&'a Queue<Job, Answer>);

impl<Job, Answer> Drop for CloseOnDrop<'_, Job, Answer> {
    fn drop(&mut self) {
        let mut jobs = self.0.jobs.lock();
        jobs.has_ended = true;
        let left = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        drop(left);
    }
}

/// The longest time that a request waits: a second for the lock of the file, and two for the disk.
const DEADLINE: Duration = Duration::from_secs(3);
/// The time after which the thread gets a turn without a job.
const IDLE: Duration = Duration::from_millis(250);
/// The longest time that a turn waits for the lock of a file.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(1);
/// The pause between two turns if jobs wait already. Otherwise, other processes would rarely find the
/// file unlocked.
const PAUSE: Duration = Duration::from_micros(20);
/// The maximum number of jobs that may wait. A waiting job takes about 100 bytes of memory.
const MAX_WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::{join, join_all};
    use tempfile::TempDir;
    use tokio::runtime::Builder;

    use super::*;
    use crate::clock::Clock;
    use crate::fs::whole_file::{LockFile, lock_within};

    /// A disk that hangs while the test holds the lock.
    struct Disk {
        hangs: Arc<Mutex<()>>,
        turns: Arc<Mutex<Vec<usize>>>,
    }

    impl Commit<u32, u32> for Disk {
        fn turn(&mut self, waiting: Vec<Waiting<u32, u32>>) {
            if waiting.is_empty() {
                return;
            }
            drop(self.hangs.lock());
            let awaited: Vec<_> = waiting.into_iter().filter(Waiting::is_awaited).collect();
            self.turns.lock().push(awaited.len());
            for waiting in awaited {
                let job = waiting.job;
                waiting.answer(job);
            }
        }
    }

    /// A file whose lock is held for a while after the answers.
    struct Locked(LockFile);

    impl Commit<u32, u32> for Locked {
        fn turn(&mut self, waiting: Vec<Waiting<u32, u32>>) {
            let _lock = self.0.lock(LOCK_WAIT).unwrap();
            for waiting in waiting {
                let job = waiting.job;
                waiting.answer(job);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn another_process_gets_the_lock_while_jobs_wait_all_the_time() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let commit =
            GroupCommit::start("lock", &path, Locked(LockFile::new(path.clone()))).unwrap();
        let (commit, is_over) = (Arc::new(commit), Arc::<AtomicBool>::default());
        let (asking, over) = (Arc::clone(&commit), Arc::clone(&is_over));
        let asker = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            while !over.load(Ordering::Relaxed) {
                assert_eq!(runtime.block_on(asking.ask(1)), Some(1));
            }
        });
        for _ in 0..50 {
            assert!(lock_within(&path, LOCK_WAIT).is_ok());
            thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Relaxed);
        asker.join().unwrap();
    }

    #[test]
    fn a_disk_that_hangs_costs_a_request_its_deadline_and_the_end_no_more() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (hangs, turns) = (Arc::<Mutex<()>>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let disk = Disk { hangs: Arc::clone(&hangs), turns: Arc::clone(&turns) };
        let hanging = hangs.lock();
        let mut commit = GroupCommit::start("disk", Path::new(""), disk).unwrap();
        commit.deadline = Duration::from_millis(20);
        assert_eq!(runtime.block_on(commit.ask(1)), None);
        while !commit.queue.jobs.lock().waiting.is_empty() {
            thread::yield_now();
        }
        // What gave up is not written afterwards. What waits shares the next turn.
        commit.deadline = Duration::from_secs(60);
        let asked = join_all((2..50).map(|job| commit.ask(job)));
        let (answers, ()) = runtime.block_on(join(asked, async { drop(hanging) }));
        assert!(answers.into_iter().eq((2..50).map(Some)));
        assert_eq!(*turns.lock(), [0, 48]);

        let hanging = hangs.lock();
        commit.deadline = Duration::from_millis(20);
        assert_eq!(runtime.block_on(commit.ask(50)), None);
        let begin = Clock::system().instant();
        commit.end();
        assert!(Clock::system().instant() - begin < Duration::from_secs(20));
        assert_eq!(runtime.block_on(commit.ask(51)), None);
        drop(hanging);
    }
}
