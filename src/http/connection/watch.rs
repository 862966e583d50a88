//! Where a connection stands, and until when it may stand there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::StartupLimits;

/// Where a connection stands, as the socket and the service see it.
pub(crate) struct Watch {
    phase: AtomicU8,
    /// When the phase began and when it must end, in nanoseconds after `origin`.
    since: AtomicU64,
    deadline: AtomicU64,
    /// When the first byte of the present request was read.
    first_byte: AtomicU64,
    /// Whether bytes were read in this turn of the connection, and an answer to them has to wait for
    /// its next.
    pub(super) has_read: AtomicBool,
    /// Whether what is read next is a head for certain: not the rest of a body that was not read,
    /// nor what follows the last answer.
    pub(super) expects_head: AtomicBool,
    /// Whether all of the present request was read.
    pub(super) has_whole_request: AtomicBool,
    /// Whether the client has ended its sending side.
    pub(super) has_ended: AtomicBool,
    /// Whether the present request line has a fragment, which hyper drops.
    pub(super) has_fragment: AtomicBool,
    /// Whether the present head has more fields than hyper takes without being told.
    pub(super) has_large_head: AtomicBool,
    origin: Instant,
    times: Times,
    pub(super) is_last_answer: Arc<AtomicBool>,
    pub(super) evicted: Notify,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// For the client to begin a request.
    Idle,
    /// For the client to finish the headers.
    Head,
    /// For the client to finish the body, then for us.
    Serving,
    /// For the client to take the answer.
    Writing,
}

#[derive(Clone, Copy)]
struct Times {
    idle: u64,
    head: u64,
    write_stall: u64,
}

impl Watch {
    /// A watch that begins to idle now. While `is_last_answer` is set, every answer says that it
    /// is its connection's last.
    pub(crate) fn new(limits: &StartupLimits, is_last_answer: Arc<AtomicBool>) -> Self {
        let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let times = Times {
            idle: nanos(limits.idle_seconds),
            head: nanos(limits.header_seconds),
            write_stall: nanos(limits.write_stall_seconds),
        };
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            deadline: AtomicU64::new(times.idle),
            first_byte: AtomicU64::new(0),
            has_read: AtomicBool::new(false),
            expects_head: AtomicBool::new(true),
            has_whole_request: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            has_fragment: AtomicBool::new(false),
            has_large_head: AtomicBool::new(false),
            origin: Clock::instant(),
            times,
            is_last_answer,
            evicted: Notify::new(),
        }
    }

    /// Ends the connection at its next turn, in whatever state it is.
    pub(crate) fn evict(&self) {
        self.evicted.notify_one();
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Writing,
        }
    }

    /// Whether all of the present request was read: what it waits for is not its client's.
    pub(crate) fn has_whole_request(&self) -> bool {
        self.has_whole_request.load(Ordering::Relaxed)
    }

    /// How long the present phase has lasted.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.since.load(Ordering::Relaxed)))
    }

    pub(super) fn deadline(&self) -> Instant {
        let nanos = self.deadline.load(Ordering::Relaxed);
        // The far end of time is beyond what an instant holds: a year will do.
        let year = Duration::from_secs(31_536_000);
        self.origin + Duration::from_nanos(nanos).min(year)
    }

    /// When to look at the deadline again: no phase that begins until then can end before it.
    pub(super) fn next_look(&self) -> Instant {
        let Times { idle, head, write_stall } = self.times;
        let shortest = Duration::from_nanos(idle.min(head).min(write_stall));
        self.deadline().min(Clock::instant() + shortest)
    }

    fn now(&self) -> u64 {
        u64::try_from((Clock::instant() - self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.enter_at(phase, self.now());
    }

    /// Reading the clock is a good part of what a change of phase costs; whoever has a time at hand
    /// that is right to the millisecond passes it in.
    fn enter_at(&self, phase: Phase, now: u64) {
        let time = match phase {
            Phase::Idle => self.times.idle,
            Phase::Head => self.times.head,
            // The service keeps its own deadline, so that it can answer in the route's own words.
            Phase::Serving => u64::MAX,
            Phase::Writing => self.times.write_stall,
        };
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.deadline.store(now.saturating_add(time), Ordering::Relaxed);
    }

    /// The headers are there. Says when the request's first byte was.
    pub(super) fn begin_serving(&self) -> Instant {
        let first_byte = if self.phase() == Phase::Head {
            self.first_byte.load(Ordering::Relaxed)
        } else {
            // Pipelined: it came with the request before.
            self.now()
        };
        self.enter_at(Phase::Serving, first_byte);
        self.origin + Duration::from_nanos(first_byte)
    }

    pub(super) fn on_read(&self) {
        let phase = self.phase();
        // What comes behind a request that is answered already does not hold the answer up again.
        if phase != Phase::Writing {
            self.has_read.store(true, Ordering::Relaxed);
        }
        if phase == Phase::Idle {
            let now = self.now();
            self.first_byte.store(now, Ordering::Relaxed);
            self.enter_at(Phase::Head, now);
        }
    }

    /// The socket has taken bytes again after it had been full.
    pub(super) fn on_progress(&self) {
        if self.phase() == Phase::Writing {
            self.enter(Phase::Writing);
        }
    }

    /// hyper flushes when it has written all that it had.
    pub(super) fn on_flushed(&self) {
        if self.phase() == Phase::Writing {
            self.enter_at(Phase::Idle, self.since.load(Ordering::Relaxed));
        }
    }
}
