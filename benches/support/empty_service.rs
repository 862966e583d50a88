//! An empty hyper service: it sends a constant answer, so its load shows the cost of HTTP alone.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The length of the answer's body in bytes: about the length of an answer with a token.
pub(crate) const BYTES: usize = 900;

/// Serves connections: reads each request's body, drops it, and answers 200 with a content type and
/// [`BYTES`] static bytes.
pub(crate) async fn serve(listener: TcpListener) {
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        let service = service_fn(|mut request: Request<Incoming>| async move {
            while let Some(frame) = request.body_mut().frame().await {
                frame?;
            }
            let mut response = Response::new(Full::new(Bytes::from_static(&[b'x'; BYTES])));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            Ok::<_, hyper::Error>(response)
        });
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
