//! From where a request comes, as far as that can be held against anybody.

use std::hash::Hash;

/// The network that a client asks from.
///
/// Known only if the client's own address is: behind a proxy that is not trusted to state it, on a
/// Unix socket or on the loopback device, everybody comes from the same place, and what one of them
/// does must not be laid at another's door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source(Option<u128>);

impl Source {
    /// A place that many may share.
    pub const UNKNOWN: Self = Self(None);

    /// The place of an IPv4 address.
    pub fn of_v4(address: u32) -> Self {
        Self(Some(u128::from(address)))
    }

    /// The place of an IPv6 address: its first 64 bits, which one holder has all addresses of.
    pub fn of_v6(address: u128) -> Self {
        Self(Some(address & !u128::from(u64::MAX)))
    }

    /// Whether it is one client's own.
    pub fn is_known(self) -> bool {
        self.0.is_some()
    }
}
