//! Completions: how signatures reach the futures that wait for them.
//!
//! Waking a future is expensive on a busy machine: the event loop preempts the signing thread,
//! finds one finished token and yields again. So when many tokens wait, a signing thread holds
//! completions back until it has several: three batches, or eight single signatures. The thread
//! then sends only one completion to each event loop. The others travel with it, and are sent on
//! the event loop itself, where waking is cheap.

use std::time::Instant;

use tokio::sync::oneshot;

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

/// A signed token, and the future that waits for it.
pub(super) struct Completion {
    pub(super) signed: Signed,
    pub(super) sender: oneshot::Sender<Delivery>,
    /// The number of the event loop that polls the future. If the future has moved to another event
    /// loop, it is still woken, but at a higher cost.
    pub(super) event_loop: usize,
}

/// The message to a future: its own token, and further completions for its event loop.
pub(super) struct Delivery {
    pub(super) signed: Signed,
    pub(super) others: Others,
}

/// Completions that are sent when this value is dropped. So they are sent even if the future that
/// should receive them is dropped.
#[derive(Default)]
pub(super) struct Others(Vec<Completion>);

impl Drop for Others {
    fn drop(&mut self) {
        for Completion { signed, sender, .. } in self.0.drain(..) {
            // An error means that the future was dropped: the request has ended.
            let _ = sender.send(Delivery { signed, others: Self::default() });
        }
    }
}

/// Sends all completions, and wakes only one future on each of the `event_loops` event loops.
/// Empties `completions`.
pub(super) fn send(completions: &mut Vec<Completion>, event_loops: usize) {
    for index in 0..event_loops {
        let mut own = completions.extract_if(.., |it| it.event_loop == index);
        let mut next = own.next();
        let mut others = Others(own.collect());
        while let Some(Completion { signed, sender, .. }) = next {
            match sender.send(Delivery { signed, others }) {
                Ok(()) => break,
                // This future was dropped: send to another one.
                Err(mut unsent) => {
                    next = unsent.others.0.pop();
                    others = std::mem::take(&mut unsent.others);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::clock::Clock;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the completions of three futures on event loop 0 and two on event loop 1. The
    /// futures wait, and `wakes` counts their wakes.
    fn waiting(wakes: &Arc<Wakes>) -> (Vec<Completion>, Vec<oneshot::Receiver<Delivery>>) {
        let waker = Waker::from(Arc::clone(wakes));
        let now = Clock::system().instant();
        let pair = |event_loop| {
            let (sender, mut receiver) = oneshot::channel();
            assert!(Pin::new(&mut receiver).poll(&mut Context::from_waker(&waker)).is_pending());
            let signed = Signed { buffer: Vec::new(), taken: now, done: now };
            (Completion { signed, sender, event_loop }, receiver)
        };
        [0, 1, 0, 1, 0].map(pair).into_iter().unzip()
    }

    #[test]
    fn one_future_of_each_event_loop_is_woken_and_sends_to_the_others() {
        let wakes = Arc::default();
        let (mut completions, receivers) = waiting(&wakes);
        send(&mut completions, 2);
        assert!(completions.is_empty());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        for mut receiver in receivers {
            assert!(receiver.try_recv().is_ok());
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_dropped_future_keeps_none_waiting() {
        for (dropped_before, dropped_after) in
            [(Some(0), None), (None, Some(0)), (Some(4), Some(0))]
        {
            let wakes = Arc::default();
            let (mut completions, receivers) = waiting(&wakes);
            let mut receivers: Vec<_> = receivers.into_iter().map(Some).collect();
            dropped_before.map(|index: usize| receivers[index].take());
            send(&mut completions, 2);
            assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
            dropped_after.map(|index: usize| receivers[index].take());
            // The order in which the event loops poll the woken futures.
            for _ in 0..receivers.len() {
                receivers.retain_mut(|it| it.as_mut().is_some_and(|it| it.try_recv().is_err()));
            }
            assert!(receivers.is_empty());
        }
    }
}
