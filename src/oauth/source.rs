//! From where a request comes, as far as that can be held against anybody.

use std::hash::Hash;

/// The network that a client asks from.
///
/// On a Unix socket or on the loopback device everybody comes from the same place, which is then
/// unknown: what one of them does must not be laid at another's door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    network: Option<u128>,
    is_shared: bool,
}

impl Source {
    /// A place that many may share.
    pub const UNKNOWN: Self = Self { network: None, is_shared: true };

    /// The place of an IPv4 address.
    pub fn of_v4(address: u32) -> Self {
        Self { network: Some(address.into()), is_shared: false }
    }

    /// The place of an IPv6 address: its first 64 bits, which one holder has all addresses of.
    pub fn of_v6(address: u128) -> Self {
        Self { network: Some(address & !u128::from(u64::MAX)), is_shared: false }
    }

    /// The same, where the peer says that it speaks for others: perhaps a proxy that nobody has
    /// told us of, perhaps somebody who would like to be taken for one.
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Whether one can be told from another.
    pub fn is_known(self) -> bool {
        self.network.is_some()
    }

    /// Whether many may come from there.
    pub fn is_shared(self) -> bool {
        self.is_shared
    }
}
