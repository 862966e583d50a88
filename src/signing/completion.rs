//! Completions: how signatures reach the futures that wait for them.
//!
//! Waking a future is expensive on a busy machine: the event loop preempts the signing thread,
//! finds one finished token and yields again. So when many tokens wait, a signing thread holds
//! completions back until it has several: three batches, or eight single signatures. The thread
//! then wakes only one future on each event loop. When that future is polled, it wakes the others,
//! which is cheap on the event loop itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

/// A token with its signature, and the times of signing.
#[derive(Debug)]
pub struct Signed {
    /// The caller's buffer with the signature appended.
    pub buffer: Vec<u8>,
    /// When a signing thread took the token out of the queue.
    pub taken: Instant,
    /// When the signature was complete.
    pub done: Instant,
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The number of waiting tokens has reached the limit of admission.
    QueueFull,
    /// The signing library returned an error, or the signing thread panicked.
    Failed,
}

/// A finished signature in its slot, and the waker of the future that waits for it.
pub(super) struct Completion {
    slot: Arc<Slot>,
    waker: Waker,
}

/// One outbox for each event loop.
pub(super) struct Outboxes(Vec<Outbox>);

/// Completions for one event loop. Their futures have not been woken yet.
#[derive(Default)]
struct Outbox(Mutex<Vec<Completion>>);

impl Outboxes {
    pub(super) fn new(event_loops: usize) -> Self {
        Self((0..event_loops).map(|_| Outbox::default()).collect())
    }

    /// Creates a oneshot channel whose receiver will be awaited on the current thread.
    pub(super) fn channel(&self) -> (Sender, Receiver<'_>) {
        self.channel_to(number_of_this_thread() % self.0.len())
    }

    /// Creates a oneshot channel whose receiver will be awaited on the event loop `event_loop`.
    pub(super) fn channel_to(&self, event_loop: usize) -> (Sender, Receiver<'_>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)), event_loop });
        (Sender(Arc::clone(&slot)), Receiver { slot, outbox: &self.0[event_loop] })
    }

    /// On each event loop, wakes one of the futures of `completions`. That future will wake the
    /// other futures of its event loop. Empties `completions`.
    pub(super) fn wake(&self, completions: &mut Vec<Completion>) {
        for (index, outbox) in self.0.iter().enumerate() {
            outbox.wake_one(completions.extract_if(.., |it| it.slot.event_loop == index));
        }
    }
}

impl Outbox {
    fn wake_one(&self, mut completions: impl Iterator<Item = Completion>) {
        let mut leader = completions.next();
        if leader.is_some() {
            self.0.lock().extend(completions);
        }
        // The outbox must be filled before this check: a future that still waits now will be polled
        // or dropped later. It then finds the completions in the outbox.
        while let Some(Completion { slot, waker }) = leader {
            if slot.is_awaited() {
                waker.wake();
                return;
            }
            leader = self.0.lock().pop();
        }
    }

    fn wake_all(&self) {
        loop {
            let Some(Completion { waker, .. }) = self.0.lock().pop() else { return };
            waker.wake();
        }
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

/// Holds one result on its way from a signing thread to a future.
struct Slot {
    state: Mutex<State>,
    /// The number of the event loop whose outbox is used. If the future has moved to another event
    /// loop, the future is still woken, but at a higher cost.
    event_loop: usize,
}

enum State {
    /// There is no result yet.
    Waiting(Option<Waker>),
    /// The result has arrived, but the future has not taken it yet.
    Filled(Result<Signed, SignError>),
    /// The result was taken, or the future was dropped.
    Closed,
}

impl Slot {
    fn is_awaited(&self) -> bool {
        !matches!(*self.state.lock(), State::Closed)
    }

    /// Stores the result. Returns the waker of the future; `None` if the slot has no waker.
    fn fill(&self, result: Result<Signed, SignError>) -> Option<Waker> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = State::Filled(result);
                waker
            }
            State::Filled(_) | State::Closed => None,
        }
    }
}

/// Sends one result. A sender that is dropped without having sent a result sends
/// [`SignError::Failed`], so that a panic of the signing thread leaves no future waiting.
pub(super) struct Sender(Arc<Slot>);

impl Sender {
    /// Whether the receiver still waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.is_awaited()
    }

    /// The number of the receiver's event loop.
    pub(super) fn event_loop(&self) -> usize {
        self.0.event_loop
    }

    /// Stores the result. The receiver is not woken until the completion is passed to
    /// [`Outboxes::wake`]. Returns `None` if the receiver was dropped or was never polled, because
    /// it then need not be woken.
    pub(super) fn send(self, result: Result<Signed, SignError>) -> Option<Completion> {
        let waker = self.0.fill(result)?;
        Some(Completion { slot: Arc::clone(&self.0), waker })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(waker) = self.0.fill(Err(SignError::Failed)) {
            waker.wake();
        }
    }
}

/// Completes with the result that the [`Sender`] sends.
pub(super) struct Receiver<'o> {
    slot: Arc<Slot>,
    outbox: &'o Outbox,
}

impl Future for Receiver<'_> {
    type Output = Result<Signed, SignError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Filled(result) => {
                drop(state);
                self.outbox.wake_all();
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

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.slot.state.lock(), State::Closed);
        // [`Outboxes::wake`] may have woken only this future, which must then wake the others.
        if matches!(state, State::Filled(_)) {
            self.outbox.wake_all();
        }
    }
}
