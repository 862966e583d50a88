//! The network that a client asks from: what budgets of failed authentications count for.

/// An IPv4 address, the first 64 bits of an IPv6 address, or the Unix sockets of this machine.
///
/// Many clients come from a *shared* network: the far end is a proxy that states no client, or it
/// is this machine itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientNetwork {
    prefix: Option<u128>,
    is_shared: bool,
}

impl ClientNetwork {
    /// A process on this machine that connects through a Unix socket.
    pub const UNIX: Self = Self { prefix: None, is_shared: true };

    /// The network of an IPv4 address: the address alone.
    pub fn of_v4(address: u32) -> Self {
        Self { prefix: Some(address.into()), is_shared: false }
    }

    /// The network of an IPv6 address: its first 64 bits, which one holder has all addresses of.
    pub fn of_v6(address: u128) -> Self {
        Self { prefix: Some(address & !u128::from(u64::MAX)), is_shared: false }
    }

    /// The same network as seen through a proxy, or from this machine, where it stands for many.
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Whether many clients come from there.
    pub fn is_shared(self) -> bool {
        self.is_shared
    }
}
