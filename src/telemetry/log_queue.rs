//! The queue of log lines between the threads that log and the thread that writes.
//!
//! The writing thread collects lines for a few milliseconds and writes them in one call. On a busy
//! server, waking the thread for each line would take more time than all other work for the line.
//! If the reader of the log is slow or the disk is full, lines are dropped and counted; requests
//! never wait for the log.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::join_soon;

/// Queues lines without blocking.
#[derive(Clone)]
pub struct LogQueue(Arc<Shared>);

/// Owns the writing thread. Dropping the `LogWriter` waits at most half a second for the queued
/// lines to be written.
pub struct LogWriter {
    queue: LogQueue,
    thread: Option<JoinHandle<()>>,
}

impl LogQueue {
    /// Creates a queue and starts the thread that writes its lines to `out`.
    ///
    /// # Errors
    ///
    /// An error of the operating system, if the thread cannot be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, LogWriter)> {
        let queue = Self(Arc::default());
        let writing = queue.clone();
        let builder = thread::Builder::new().name("log".to_owned());
        let thread = Some(builder.spawn(move || writing.write_to(out))?);
        Ok((queue.clone(), LogWriter { queue, thread }))
    }

    /// The number of lines that were lost since the start.
    pub fn lost_lines(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let mut lines = self.0.lines.lock();
            self.0.arrival.wait_while(&mut lines, |lines| lines.text.is_empty() && !lines.closed);
            if lines.text.is_empty() {
                return;
            }
            // Collect further lines, to write all of them in one call.
            self.0.arrival.wait_while_for(&mut lines, |lines| !lines.closed, COLLECTED_FOR);
            std::mem::swap(&mut lines.text, &mut taken);
            drop(lines);
            if out.write_all(&taken).and_then(|()| out.flush()).is_err() {
                let lines = taken.iter().filter(|&&byte| byte == b'\n').count();
                self.0.lost.fetch_add(lines as u64, Ordering::Relaxed);
            }
            taken.clear();
        }
    }
}

/// Each call of `write` must pass one complete line.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lines.lock();
        if lines.text.len() + line.len() > CAPACITY {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let is_first = lines.text.is_empty();
        lines.text.extend_from_slice(line);
        drop(lines);
        if is_first {
            self.0.arrival.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.queue.0.lines.lock().closed = true;
        self.queue.0.arrival.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread may be blocked by a slow reader, which must not delay the exit for long.
            join_soon(thread);
        }
    }
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    arrival: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    closed: bool,
}

/// The maximum amount of text that the queue holds, in bytes: some ten thousand lines, which a fast
/// server logs in a second.
const CAPACITY: usize = 4 * 1024 * 1024;
const COLLECTED_FOR: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Blocks until the sender of `let_go` sends or is dropped, then stores everything that is
    /// written.
    struct Slow {
        let_go: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Blocks only the first time: after that, the sender is dropped.
            let _ = self.let_go.recv();
            if self.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(fails: bool) -> (LogQueue, LogWriter, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (go, let_go) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (queue, writer) =
            LogQueue::to(Slow { let_go, taken: Arc::clone(&taken), fails }).unwrap();
        (queue, writer, go, taken)
    }

    #[test]
    fn lines_are_written_in_order_including_the_last() {
        let (mut queue, writer, go, taken) = start(false);
        drop(go);
        let lines: Vec<_> = (0..1000).map(|number| format!("{number}\n")).collect();
        lines.iter().for_each(|line| queue.write_all(line.as_bytes()).unwrap());
        drop(writer);
        assert_eq!(*taken.lock(), lines.concat().into_bytes());
        assert_eq!(queue.lost_lines(), 0);
    }

    #[test]
    fn lines_that_a_slow_reader_loses_are_counted() {
        let (mut queue, writer, go, taken) = start(false);
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let written = 3 * CAPACITY / line.len();
        (0..written).for_each(|_| queue.write_all(&line).unwrap());
        drop(go);
        drop(writer);
        let kept = taken.lock().len() / line.len();
        assert!(kept < written);
        assert_eq!(kept as u64 + queue.lost_lines(), written as u64);
    }

    #[test]
    fn lines_that_a_full_disk_loses_are_counted() {
        let (mut queue, writer, go, _) = start(true);
        drop(go);
        queue.write_all(b"one\n").unwrap();
        queue.write_all(b"two\n").unwrap();
        drop(writer);
        assert_eq!(queue.lost_lines(), 2);
    }
}
