//! Modules that the benches share: the measured request, clients, and processes on cores of their
//! own. Two modules of this directory are not declared here: `allocations` sets the global
//! allocator of the process, and `welch` is needed by one bench only.

pub(crate) mod client;
pub(crate) mod cores;
pub(crate) mod demo;
pub(crate) mod draw;
pub(crate) mod empty_server;
pub(crate) mod empty_service;
pub(crate) mod in_process;
pub(crate) mod oha;
pub(crate) mod probe;
pub(crate) mod raw;
pub(crate) mod request;
pub(crate) mod service;
pub(crate) mod spread;
pub(crate) mod token;
pub(crate) mod wrk;
