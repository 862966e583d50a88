//! A server in this process, which is called without a socket.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use grantd::clock::Clock;
use grantd::config::Config;
use grantd::random::Random;
use grantd::server::{Arrival, Peer, Server};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use tokio::runtime::{Builder, Runtime};

/// A server and its event loop.
pub(crate) struct InProcess {
    server: Server,
    runtime: Runtime,
}

impl InProcess {
    pub(crate) fn new(config: &Config) -> Self {
        let server = Server::new(config, Clock::system(), Random::system()).unwrap();
        Self { server, runtime: Builder::new_current_thread().enable_time().build().unwrap() }
    }

    pub(crate) fn respond(&self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
        let arrival = Arrival { peer, first_byte: Clock::system().instant() };
        self.runtime.block_on(self.server.service().respond(request, arrival))
    }

    pub(crate) fn body_of(&self, response: Response<Full<Bytes>>) -> Bytes {
        self.runtime.block_on(response.into_body().collect()).unwrap().to_bytes()
    }
}

/// Returns a POST request with this body.
pub(crate) fn post(path: &str, content_type: &str, body: &Bytes) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(HOST, "127.0.0.1")
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, body.len())
        .body(Full::new(body.clone()))
        .unwrap()
}
