//! Shared by the benches: the measured request, clients, and processes on cores of their own.
//! `allocations` is not among them, since it sets the process's global allocator, and `welch` is for
//! one bench only.

pub(crate) mod client;
pub(crate) mod cores;
pub(crate) mod demo;
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
