//! How finished tokens get back to the futures that wait for them.
//!
//! On a busy machine the way back costs more than the way there: each finished token wakes the event
//! loop, which takes the processor from the signing thread, finds one token and gives it back. So
//! where many wait, finished tokens are kept until there are some of them: three batches, or eight
//! made one at a time. On each event loop only one of their futures is woken from here, and that one
//! wakes the others when it is polled, which is where waking is cheap.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A token with its signature, and how long that took.
#[derive(Debug)]
pub struct Signed {
    /// The buffer that was handed in, with the signature appended.
    pub buffer: Vec<u8>,
    /// When a signing thread took it out of the queue.
    pub taken: Instant,
    /// When its signature was there.
    pub done: Instant,
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The queue is full: more is asked for than the machine can sign.
    QueueFull,
    /// The backend gave no signature.
    Failed,
}

/// For each event loop, those of its futures whose results are there, but who have not been told.
pub(super) struct Deliveries(Vec<Inbox>);

#[derive(Default)]
struct Inbox(Mutex<Vec<Finished>>);

/// Somebody to wake, and the slot that says whether it still waits.
pub(super) struct Finished {
    slot: Arc<Slot>,
    waker: Waker,
}

impl Deliveries {
    pub(super) fn new(event_loops: usize) -> Self {
        Self((0..event_loops).map(|_| Inbox::default()).collect())
    }

    /// A result that is owed, and the future that waits for it on this thread.
    pub(super) fn promise(&self) -> (Debt, Delivery<'_>) {
        self.promise_to(number_of_this_thread() % self.0.len())
    }

    /// The same for a future of this event loop.
    pub(super) fn promise_to(&self, event_loop: usize) -> (Debt, Delivery<'_>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)), event_loop });
        (Debt(Arc::clone(&slot)), Delivery { slot, inbox: &self.0[event_loop] })
    }

    /// Wakes one of `kept` on each event loop, which will wake the others.
    pub(super) fn tell(&self, kept: &mut Vec<Finished>) {
        for (index, inbox) in self.0.iter().enumerate() {
            inbox.tell(kept.extract_if(.., |it| it.slot.event_loop == index));
        }
    }
}

impl Inbox {
    fn tell(&self, mut kept: impl Iterator<Item = Finished>) {
        let mut leader = kept.next();
        if leader.is_some() {
            self.finished().extend(kept);
        }
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

    fn wake_all(&self) {
        loop {
            let Some(Finished { waker, .. }) = self.finished().pop() else { return };
            waker.wake();
        }
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn finished(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted from 0 in the order in which threads first ask: one for each event loop, where there is
/// one server.
fn number_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// Where a signing thread leaves a result for the future that waits for it.
struct Slot {
    state: Mutex<State>,
    /// Its number. A future that has gone to another is only woken less cheaply.
    event_loop: usize,
}

enum State {
    /// For the signature.
    Waiting(Option<Waker>),
    /// For the future to be polled.
    Filled(Result<Signed, SignError>),
    /// Taken, or nobody wants it any more.
    Closed,
}

impl Slot {
    fn is_awaited(&self) -> bool {
        !matches!(*self.state(), State::Closed)
    }

    /// Leaves the result, and gives back whom to wake.
    fn fill(&self, result: Result<Signed, SignError>) -> Option<Waker> {
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that whoever waits is told something, even if the thread that signs should panic.
pub(super) struct Debt(Arc<Slot>);

impl Debt {
    /// Whether anybody still waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.is_awaited()
    }

    /// By number, the event loop of whoever waits.
    pub(super) fn event_loop(&self) -> usize {
        self.0.event_loop
    }

    /// Leaves the result, and says whom to tell.
    pub(super) fn pay(self, result: Result<Signed, SignError>) -> Option<Finished> {
        let waker = self.0.fill(result)?;
        Some(Finished { slot: Arc::clone(&self.0), waker })
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(waker) = self.0.fill(Err(SignError::Failed)) {
            waker.wake();
        }
    }
}

/// Completes with what was promised.
pub(super) struct Delivery<'d> {
    slot: Arc<Slot>,
    inbox: &'d Inbox,
}

impl Future for Delivery<'_> {
    type Output = Result<Signed, SignError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Filled(result) => {
                drop(state);
                self.inbox.wake_all();
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

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.slot.state(), State::Closed);
        if matches!(state, State::Filled(_)) {
            self.inbox.wake_all();
        }
    }
}
