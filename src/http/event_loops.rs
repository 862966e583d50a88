//! Threads that serve connections, each its own.
//!
//! A connection stays on the loop that it was given to. Loops that share their work, as tokio's own
//! threads do, wake each other for nearly every token, and find its data in another core's caches.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::http::listener::{Accepted, Stream};

/// Where connections are served: on the loop that accepts them, which is first, and on others.
pub(crate) struct EventLoops(Vec<EventLoop>);

struct EventLoop {
    /// `None` for the one that accepts, which is whoever calls.
    handle: Option<Handle>,
    connections: AtomicUsize,
}

/// The threads of all event loops but the one that accepts. With this value, they and the
/// connections that they still serve end.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    /// Dropped, they end the threads.
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl EventLoops {
    /// No other than the one that accepts.
    pub(crate) fn one() -> Arc<Self> {
        Arc::new(Self(vec![EventLoop::new(None)]))
    }

    /// Starts all of `count` but the one that accepts, which is the caller's.
    ///
    /// # Errors
    ///
    /// The operating system's, if it grants no more threads.
    pub(crate) fn start(count: usize) -> io::Result<(Arc<Self>, Threads)> {
        let mut loops = vec![EventLoop::new(None)];
        let mut threads = Threads::default();
        for index in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            loops.push(EventLoop::new(Some(runtime.handle().clone())));
            let (stop, stopped) = oneshot::channel();
            let thread = thread::Builder::new().name(format!("event-loop-{index}"));
            threads.stops.push(stop);
            threads.threads.push(thread.spawn(move || {
                // Dropped is as good as sent.
                let _ = runtime.block_on(stopped);
            })?);
        }
        Ok((Arc::new(Self(loops)), threads))
    }

    /// Serves what was accepted on the loop that has the fewest connections.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        accepted: Accepted,
        serve: impl FnOnce(Stream) -> F + Send + 'static,
    ) -> io::Result<()> {
        let load = |(_, it): &(usize, &EventLoop)| it.connections.load(Ordering::Relaxed);
        let Some((index, chosen)) = self.0.iter().enumerate().min_by_key(load) else {
            return Ok(());
        };
        chosen.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place { loops: Arc::clone(self), index };
        match &chosen.handle {
            None => {
                let stream = accepted.here();
                tokio::spawn(async move {
                    let _place = place;
                    serve(stream).await;
                });
            }
            Some(handle) => {
                let on_its_way = accepted.leave()?;
                handle.spawn(async move {
                    let _place = place;
                    // One that cannot be watched there is closed.
                    if let Ok(stream) = on_its_way.arrive() {
                        serve(stream).await;
                    }
                });
            }
        }
        Ok(())
    }
}

impl EventLoop {
    fn new(handle: Option<Handle>) -> Self {
        Self { handle, connections: AtomicUsize::new(0) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // One that panicked serves nobody any more.
            let _ = thread.join();
        }
    }
}

/// A connection, as it counts for its loop.
struct Place {
    loops: Arc<EventLoops>,
    index: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.loops.0[self.index].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::config::ListenAddr;
    use crate::http::listener::Listener;

    /// Connections go where there are fewest, stay there, and end with the threads.
    #[test]
    fn connections_are_spread_over_all_loops() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (loops, threads) = EventLoops::start(3).unwrap();
        let (said, says) = mpsc::channel();
        let names = |count: usize| {
            let guard = Duration::from_secs(60);
            let mut names: Vec<_> = (0..count).map(|_| says.recv_timeout(guard).unwrap()).collect();
            names.sort();
            names
        };
        let (mut clients, own) = runtime.block_on(async {
            let listen = ListenAddr::Tcp("127.0.0.1:0".to_owned());
            let listener = Listener::bind(&listen).await.unwrap();
            let ListenAddr::Tcp(address) = listener.address().unwrap() else { unreachable!() };
            let connect = async || {
                let client = TcpStream::connect(&address).unwrap();
                let (accepted, _peer) = listener.accept().await.unwrap();
                let said = said.clone();
                let serve = move |mut stream: Stream| async move {
                    let thread = thread::current().name().unwrap_or_default().to_owned();
                    said.send(thread).unwrap();
                    let _ = stream.read_u8().await;
                };
                loops.serve(accepted, serve).unwrap();
                tokio::task::yield_now().await;
                client
            };
            let mut clients = Vec::new();
            for _ in 0..6 {
                clients.push(connect().await);
            }
            let own = thread::current().name().unwrap_or_default().to_owned();
            let two_each =
                [&*own, &*own, "event-loop-1", "event-loop-1", "event-loop-2", "event-loop-2"];
            let mut spread: Vec<_> = two_each.map(str::to_owned).into();
            spread.sort();
            assert_eq!(names(6), spread);

            // The second went to the second loop.
            drop(clients.remove(1));
            while loops.0[1].connections.load(Ordering::Relaxed) == 2 {
                tokio::task::yield_now().await;
            }
            clients.push(connect().await);
            assert_eq!(names(1), ["event-loop-1"]);
            (clients, own)
        });
        assert!(!own.is_empty());
        drop(threads);
        let ended = clients.iter_mut().filter_map(|client| {
            client.set_nonblocking(true).unwrap();
            client.read(&mut [0]).ok()
        });
        assert_eq!(ended.collect::<Vec<_>>(), [0; 4], "those of the other loops");
    }
}
