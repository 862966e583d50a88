//! File descriptors: how many connections the limit of the process allows, and a reserve for the
//! admin listener.

#[cfg(unix)]
use std::os::fd::{AsRawFd, OwnedFd};
#[cfg(unix)]
use std::os::unix::net::UnixDatagram;

#[cfg(unix)]
use parking_lot::Mutex;
#[cfg(unix)]
use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// Returns how many connections the public listeners may have: `configured` connections, or fewer
/// if the process may not have enough descriptors for them. In this case, logs a warning.
pub(crate) fn allowed_connections(configured: usize, workers: usize) -> usize {
    let Some(limit) = soft_limit() else { return configured };
    let allowed = connections_within(limit, workers);
    if configured <= allowed {
        return configured;
    }
    let wanted = limit - allowed + configured;
    warn!(
        "limits.connections is lowered from {configured} to {allowed}, because this process may \
         have only {limit} open files; raise this limit to {wanted} (LimitNOFILE= in the systemd \
         unit, ulimit -n in a shell), or set limits.connections to {allowed} or less"
    );
    allowed
}

/// Returns how many of `limit` descriptors the public connections may use. The remaining ones are
/// for listeners, event loops, the admin listener, and files that the server reads and writes.
fn connections_within(limit: usize, workers: usize) -> usize {
    // 64 suffice for eight event loops, each of which has four.
    let spare = SPARE + 4 * workers.saturating_sub(8);
    limit - spare.min(limit / 2)
}

/// The maximum number of open files of this process; `None` if there is no limit.
fn soft_limit() -> Option<usize> {
    #[cfg(unix)]
    return getrlimit(Resource::Nofile).current?.try_into().ok();
    #[cfg(not(unix))]
    None
}

/// Whether nearly all descriptors of the process are in use. `newest` is a descriptor that was just
/// opened: its number is the lowest one that was free.
#[cfg(unix)]
pub(crate) fn are_scarce(newest: &OwnedFd) -> bool {
    let number = usize::try_from(newest.as_raw_fd()).unwrap_or(0);
    soft_limit().is_some_and(|limit| number + SPARE / 2 >= limit)
}

/// Descriptors that a listener holds, so that it can accept connections even if the process has no
/// more descriptors.
#[derive(Debug)]
pub(crate) struct Reserve {
    size: usize,
    #[cfg(unix)]
    held: Mutex<Vec<UnixDatagram>>,
}

impl Reserve {
    pub(crate) fn new(size: usize) -> Self {
        let reserve = Self {
            size,
            #[cfg(unix)]
            held: Mutex::default(),
        };
        reserve.fill();
        reserve
    }

    /// Takes descriptors until the reserve is full or the process has no more of them.
    pub(crate) fn fill(&self) {
        #[cfg(unix)]
        if self.size > 0 {
            let mut held = self.held.lock();
            while held.len() < self.size {
                // A socket without an address needs nothing but a descriptor.
                let Ok(socket) = UnixDatagram::unbound() else { return };
                held.push(socket);
            }
        }
    }

    /// Closes one descriptor, so that it can be used for a connection. Returns `false` if the
    /// reserve is empty.
    pub(crate) fn give_up(&self) -> bool {
        #[cfg(unix)]
        return self.held.lock().pop().is_some();
        #[cfg(not(unix))]
        false
    }
}

/// The number of descriptors that the public connections leave to the rest of the process.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_64_descriptors_or_half_of_a_low_limit() {
        let allowed = |limit| connections_within(limit, 2);
        assert_eq!([1024, 128, 100, 64, 1, 0].map(allowed), [960, 64, 50, 32, 1, 0]);
        assert_eq!([8, 9, 64].map(|workers| connections_within(1024, workers)), [960, 956, 736]);
    }

    #[cfg(unix)]
    #[test]
    fn a_reserve_gives_up_what_it_holds_and_is_filled_again() {
        let reserve = Reserve::new(2);
        assert_eq!([(); 3].map(|()| reserve.give_up()), [true, true, false]);
        reserve.fill();
        assert_eq!([(); 3].map(|()| reserve.give_up()), [true, true, false]);
        assert!(!Reserve::new(0).give_up());
    }
}
