//! The client network of a request: the address or prefix for which failed authentications are
//! counted.

/// An IPv4 address, the first 64 bits of an IPv6 address, or the Unix sockets of this machine.
///
/// A network is *shared* if many clients may use it. Its address is then the address of this
/// machine, of a proxy that is not trusted, or of a trusted proxy that does not forward the
/// client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientNetwork {
    prefix: Option<u128>,
    /// Whether many clients may use this network.
    pub is_shared: bool,
}

impl ClientNetwork {
    /// The network of processes on this machine that connect through a Unix socket.
    pub const UNIX: Self = Self { prefix: None, is_shared: true };

    /// Returns the network of an IPv4 address: the address itself.
    pub fn of_v4(address: u32) -> Self {
        Self { prefix: Some(address.into()), is_shared: false }
    }

    /// Returns the network of an IPv6 address: the first 64 bits of the address, because one
    /// subscriber usually holds all addresses of a /64.
    pub fn of_v6(address: u128) -> Self {
        Self { prefix: Some(address & !u128::from(u64::MAX)), is_shared: false }
    }

    /// Marks the network as shared.
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }
}
