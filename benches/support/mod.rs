//! Modules that the benches share: the measured request, clients, and processes on cores of their
//! own. The module `allocations` is not declared here, since it sets the process's global
//! allocator; nor is `welch`, since only one bench needs that module.

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
