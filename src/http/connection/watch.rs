//! The phase of a connection and the phase's deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::StartupLimits;

/// The state of one connection, shared by its socket, its service and the accept loop.
pub(crate) struct Watch {
    /// The index in the list of open connections.
    pub(crate) index: AtomicUsize,
    phase: AtomicU8,
    /// When the phase began, in nanoseconds after `origin`.
    since: AtomicU64,
    /// When the phase must end, in nanoseconds after `origin`.
    deadline: AtomicU64,
    /// When the first byte of the current request was read, in nanoseconds after `origin`.
    first_byte: AtomicU64,
    /// Whether bytes of a request were read in this poll of the connection. If this is `true`, the
    /// answer is not written before the next poll.
    pub(super) has_read_in_poll: AtomicBool,
    /// Whether the next bytes from the client belong to a head. This is `false` after the last
    /// answer of a connection, because the next bytes may then be the rest of an unread body.
    pub(super) expects_head: AtomicBool,
    /// Whether all of the current request was read.
    pub(super) has_whole_request: AtomicBool,
    /// Whether the client has half-closed the connection.
    pub(super) is_half_closed: AtomicBool,
    /// Whether the current request line has a fragment, which hyper drops.
    pub(super) has_fragment: AtomicBool,
    /// Whether the current head has more fields than hyper allows by default.
    pub(super) has_large_head: AtomicBool,
    clock: Clock,
    origin: Instant,
    /// The maximum duration of each phase, in nanoseconds. [`Phase::Writing`] may take longer: only
    /// its time without progress is limited.
    times: [u64; 4],
    /// Whether the server is draining: every answer is then the last on its connection.
    is_draining: Arc<AtomicBool>,
    /// Whether the next answer is the last on this connection.
    is_ending: AtomicBool,
    /// Whether the connection must end even if it waits for the server.
    must_end: AtomicBool,
    is_evicted: AtomicBool,
    /// Notified when the connection is evicted.
    pub(super) evicted: Notify,
}

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The connection waits for the client to begin a request.
    Idle,
    /// The connection waits for the client to finish the headers.
    Head,
    /// The connection waits for the client to finish the body, and then for the service to answer.
    Serving,
    /// The connection waits for the client to read the answer.
    Writing,
}

impl Phase {
    /// Every phase, in the order of their numbers.
    const ALL: [Self; 4] = [Self::Idle, Self::Head, Self::Serving, Self::Writing];
}

impl Watch {
    /// Creates the state of a new connection, in [`Phase::Idle`]. While `is_draining` is set, the
    /// connection closes after each answer.
    pub(crate) fn new(limits: &StartupLimits, clock: Clock, is_draining: Arc<AtomicBool>) -> Self {
        let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let times = Phase::ALL.map(|phase| match phase {
            Phase::Idle => nanos(limits.idle_seconds),
            Phase::Head => nanos(limits.header_seconds),
            // No deadline here: the service enforces its own deadline and answers in the route's
            // dialect.
            Phase::Serving => u64::MAX,
            Phase::Writing => nanos(limits.write_stall_seconds),
        });
        Self {
            index: AtomicUsize::new(0),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            deadline: AtomicU64::new(times[Phase::Idle as usize]),
            first_byte: AtomicU64::new(0),
            has_read_in_poll: AtomicBool::new(false),
            expects_head: AtomicBool::new(true),
            has_whole_request: AtomicBool::new(false),
            is_half_closed: AtomicBool::new(false),
            has_fragment: AtomicBool::new(false),
            has_large_head: AtomicBool::new(false),
            origin: clock.instant(),
            clock,
            times,
            is_draining,
            is_ending: AtomicBool::new(false),
            must_end: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// Ends the connection, in any phase.
    pub(crate) fn end(&self) {
        self.must_end.store(true, Ordering::Relaxed);
        self.evict();
    }

    /// Ends the connection, because its descriptor is needed for another one. If the client has
    /// sent a whole request, the connection ends after the answer.
    pub(crate) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Whether the connection is about to end because it was evicted.
    pub(crate) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// Whether the connection, which was evicted, has to answer a whole request before it ends.
    pub(super) fn outlives_eviction(&self) -> bool {
        if !self.waits_for_server() || self.must_end.load(Ordering::Relaxed) {
            return false;
        }
        self.is_ending.store(true, Ordering::Relaxed);
        // It may be evicted again if the client does not read the answer.
        self.is_evicted.store(false, Ordering::Relaxed);
        true
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Whether all of the current request was read.
    pub(super) fn has_whole_request(&self) -> bool {
        self.has_whole_request.load(Ordering::Relaxed)
    }

    /// Whether the connection waits for the server to answer a whole request.
    pub(crate) fn waits_for_server(&self) -> bool {
        self.phase() == Phase::Serving && self.has_whole_request()
    }

    /// Whether no request can follow the current one: the server is draining, the connection was
    /// evicted, the client has ended its sending side, or part of the body is unread.
    pub(super) fn is_last_answer(&self) -> bool {
        [&*self.is_draining, &self.is_ending, &self.is_half_closed]
            .into_iter()
            .any(|it| it.load(Ordering::Relaxed))
            || !self.has_whole_request()
    }

    /// When the connection entered its phase. [`Phase::Serving`] is measured from the request's
    /// first byte, and [`Phase::Writing`] from the last progress.
    pub(crate) fn since(&self) -> Instant {
        self.origin + Duration::from_nanos(self.since.load(Ordering::Relaxed))
    }

    /// Whether the deadline of the phase has passed.
    pub(super) fn is_over(&self) -> bool {
        self.until_deadline().is_zero()
    }

    fn until_deadline(&self) -> Duration {
        let nanos = self.deadline.load(Ordering::Relaxed);
        // `u64::MAX` means no deadline. Adding so many nanoseconds to `origin` may overflow an
        // `Instant`, so at most one year is added.
        let year = Duration::from_secs(31_536_000);
        self.clock.until(self.origin + Duration::from_nanos(nanos).min(year))
    }

    /// Returns how long it is until the timer must fire next: at the deadline of the current phase, or when the
    /// shortest phase would end if it began now, whichever is earlier. So the timer fires no later
    /// than the deadline of any phase that begins in the meantime.
    pub(super) fn until_next_check(&self) -> Duration {
        let shortest = self.times.into_iter().fold(u64::MAX, u64::min);
        self.until_deadline().min(Duration::from_nanos(shortest))
    }

    fn now(&self) -> u64 {
        u64::try_from((self.clock.instant() - self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.enter_at(phase, self.now());
    }

    /// Enters `phase` at `now`. The caller passes the time, because reading the clock would be most
    /// of the cost of this function. An error of about a millisecond in `now` does no harm.
    fn enter_at(&self, phase: Phase, now: u64) {
        let time = self.times[phase as usize];
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.deadline.store(now.saturating_add(time), Ordering::Relaxed);
    }

    /// Enters [`Phase::Serving`]. Returns when the request's first byte was read.
    pub(super) fn begin_serving(&self) -> Instant {
        let first_byte = if self.phase() == Phase::Head {
            self.first_byte.load(Ordering::Relaxed)
        } else {
            // This request is pipelined: its first byte was read together with the previous
            // request. The time of that read was not recorded for this request, so the current time
            // is used.
            self.now()
        };
        self.enter_at(Phase::Serving, first_byte);
        self.origin + Duration::from_nanos(first_byte)
    }

    pub(super) fn on_read(&self) {
        let phase = self.phase();
        // Bytes of the next request must not delay an answer that is being written.
        if phase != Phase::Writing {
            self.has_read_in_poll.store(true, Ordering::Relaxed);
        }
        if phase == Phase::Idle {
            let now = self.now();
            self.first_byte.store(now, Ordering::Relaxed);
            self.enter_at(Phase::Head, now);
        }
    }

    /// Restarts the deadline for writing: the send buffer was full and has taken bytes again.
    pub(super) fn on_progress(&self) {
        if self.phase() == Phase::Writing {
            self.enter(Phase::Writing);
        }
    }

    /// Enters [`Phase::Idle`] if an answer was being written: a completed flush means that hyper
    /// has written the whole answer.
    pub(super) fn on_flushed(&self) {
        if self.phase() == Phase::Writing {
            self.enter_at(Phase::Idle, self.since.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// A new connection that may be idle for 75 s, may take 5 s for a head, and may write nothing
    /// for 10 s.
    fn watch() -> (Watch, ManualClock) {
        let limits = StartupLimits {
            idle_seconds: 75,
            header_seconds: 5,
            write_stall_seconds: 10,
            ..StartupLimits::default()
        };
        let (clock, manual) = Clock::manual(0);
        (Watch::new(&limits, clock, Arc::default()), manual)
    }

    /// Checks that the phase ends `seconds` from now and not earlier.
    #[track_caller]
    fn assert_ends_in(seconds: u64, watch: &Watch, clock: &ManualClock) {
        clock.advance(seconds - 1);
        assert!(!watch.is_over());
        clock.advance(1);
        assert!(watch.is_over());
    }

    #[test]
    fn a_connection_that_sends_nothing_is_over_after_the_idle_time() {
        let (watch, clock) = watch();
        assert_ends_in(75, &watch, &clock);
    }

    #[test]
    fn the_time_for_a_head_begins_with_its_first_byte_and_not_with_later_ones() {
        let (watch, clock) = watch();
        clock.advance(70);
        watch.on_read();
        clock.advance(3);
        watch.on_read();
        assert_eq!(watch.phase(), Phase::Head);
        assert_ends_in(2, &watch, &clock);
    }

    #[test]
    fn a_request_that_is_served_has_no_deadline_here() {
        let (watch, clock) = watch();
        let first_byte = watch.clock.instant();
        watch.on_read();
        clock.advance(4);
        assert_eq!(watch.begin_serving(), first_byte);
        clock.advance(86_400);
        assert!(!watch.is_over());
    }

    #[test]
    fn only_time_without_progress_limits_an_answer() {
        let (watch, clock) = watch();
        watch.on_read();
        watch.begin_serving();
        watch.enter(Phase::Writing);
        for _ in 0..5 {
            clock.advance(9);
            watch.on_progress();
            assert!(!watch.is_over());
        }
        // Bytes of the next request are no progress.
        clock.advance(9);
        watch.on_read();
        assert_ends_in(1, &watch, &clock);
    }

    #[test]
    fn an_answered_connection_is_idle_again() {
        let (watch, clock) = watch();
        watch.on_read();
        watch.begin_serving();
        clock.advance(1000);
        watch.enter(Phase::Writing);
        watch.on_flushed();
        assert_eq!(watch.phase(), Phase::Idle);
        assert_ends_in(75, &watch, &clock);
    }

    #[test]
    fn the_timer_fires_no_later_than_any_phase_that_begins_meanwhile_may_end() {
        let (watch, clock) = watch();
        assert_eq!(watch.until_next_check(), Duration::from_secs(5));
        clock.advance(72);
        assert_eq!(watch.until_next_check(), Duration::from_secs(3));
        clock.advance(5);
        assert_eq!(watch.until_next_check(), Duration::ZERO);
    }
}
