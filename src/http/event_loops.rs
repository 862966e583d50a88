//! The event loops serve connections. Each is a single-threaded tokio runtime on a thread of its
//! own.
//!
//! A new connection goes to the loop with the fewest connections and stays there. tokio's
//! multi-threaded runtime is not used, because its threads steal work from each other: for nearly
//! every token, one thread would wake another, and the token's data would be in another core's
//! caches.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::debug;

use crate::http::listener::{Accepted, Stream};

/// All event loops. The first is the one that accepts connections.
#[derive(Debug)]
pub(crate) struct EventLoops(Vec<EventLoop>);

#[derive(Debug)]
struct EventLoop {
    /// `None` for the loop that accepts connections: it runs in the caller's runtime.
    handle: Option<Handle>,
    /// Cloned for each connection that the loop serves.
    connection: Arc<()>,
}

/// The threads of all event loops except the loop that accepts connections. Each thread stops when
/// its sender is dropped. Dropping this value ends the threads and the connections that they still
/// serve.
#[derive(Debug)]
pub(crate) struct Threads(Vec<(oneshot::Sender<()>, JoinHandle<()>)>);

impl EventLoops {
    /// Creates only the loop that accepts connections.
    pub(crate) fn accepting_only() -> Arc<Self> {
        Arc::new(Self(vec![EventLoop::new(None)]))
    }

    /// Creates `count` event loops. The first runs in the caller's runtime and accepts connections;
    /// each of the others runs in a new thread.
    ///
    /// # Errors
    ///
    /// An error of the operating system, if it is out of threads or file descriptors.
    pub(crate) fn start(count: usize) -> io::Result<(Arc<Self>, Threads)> {
        let mut loops = vec![EventLoop::new(None)];
        let mut threads = Threads(Vec::new());
        for index in 1..count {
            let (stop, stopped) = oneshot::channel();
            let (begin, begun) = mpsc::channel();
            let thread = thread::Builder::new().name(format!("event-loop-{index}"));
            // The runtime is built and dropped in its own thread, because a runtime must not be
            // dropped inside another runtime.
            let thread = thread.spawn(move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return begin.send(Err(error)).unwrap_or_default(),
                };
                let _ = begin.send(Ok(runtime.handle().clone()));
                // Dropping the sender completes this with an error.
                let _ = runtime.block_on(stopped);
            })?;
            threads.0.push((stop, thread));
            let handle = begun.recv().map_err(io::Error::other)??;
            loops.push(EventLoop::new(Some(handle)));
        }
        Ok((Arc::new(Self(loops)), threads))
    }

    /// Serves an accepted connection on the loop with the fewest connections.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        accepted: Accepted,
        serve: impl FnOnce(Stream) -> F + Send + 'static,
    ) -> io::Result<()> {
        let least_busy = self.0.iter().min_by_key(|it| Arc::strong_count(&it.connection));
        let Some(EventLoop { handle, connection }) = least_busy else { return Ok(()) };
        let counted = Arc::clone(connection);
        match handle {
            None => {
                let stream = accepted.on_this_loop();
                tokio::spawn(async move {
                    let _counted = counted;
                    serve(stream).await;
                });
            }
            Some(handle) => {
                let attach = accepted.detach()?;
                handle.spawn(async move {
                    let _counted = counted;
                    match attach() {
                        Ok(stream) => serve(stream).await,
                        Err(error) => {
                            debug!(%error, "cannot register a connection with its event loop");
                        }
                    }
                });
            }
        }
        Ok(())
    }

    /// Completes when every event loop has run a task. Never completes if an event loop hangs or
    /// has ended.
    pub(crate) async fn ping(&self) {
        for handle in self.0.iter().filter_map(|it| it.handle.as_ref()) {
            if handle.spawn(async {}).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl EventLoop {
    fn new(handle: Option<Handle>) -> Self {
        Self { handle, connection: Arc::default() }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let threads: Vec<_> = self.0.drain(..).map(|(_stop, thread)| thread).collect();
        for thread in threads {
            // An error means that the thread panicked. It has ended in this case too, so the error
            // is ignored.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{ListenAddr, SocketMode};
    use crate::http::listener::Listener;

    /// A connection is served by the event loop with the fewest connections, stays there, and ends
    /// when the thread of that loop ends.
    #[test]
    fn connections_are_spread_over_all_loops() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (loops, threads) = EventLoops::start(3).unwrap();
        let (said, says) = mpsc::channel();
        let names = |count: usize| {
            let mut names: Vec<_> = (0..count).map(|_| says.recv_timeout(GUARD).unwrap()).collect();
            names.sort();
            names
        };
        let mut clients = runtime.block_on(async {
            let listen = ListenAddr::Tcp("127.0.0.1:0".to_owned());
            let listener = Listener::bind(&listen, SocketMode::default()).await.unwrap();
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

            // The first loop has connections 0, 3; the second has 1, 4; the third has 2, 5.
            drop(clients.remove(1));
            let begin = Clock::system().instant();
            while Arc::strong_count(&loops.0[1].connection) == 3 {
                assert!(begin.elapsed() < GUARD, "the closed connection is still counted");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            clients.push(connect().await);
            assert_eq!(names(1), ["event-loop-1"]);
            clients
        });
        drop(threads);
        let own = [clients.remove(2), clients.remove(0)];
        for mut client in clients {
            client.set_read_timeout(Some(GUARD)).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        for mut client in own {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_ping_does_not_complete_while_one_of_the_loops_hangs() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (loops, threads) = EventLoops::start(3).unwrap();
        runtime.block_on(loops.ping());
        let (go_on, wait) = mpsc::channel::<()>();
        loops.0[2].handle.as_ref().unwrap().spawn(async move { wait.recv() });
        let ping = || tokio::time::timeout(Duration::from_millis(50), loops.ping());
        assert!(runtime.block_on(async { ping().await }).is_err());
        go_on.send(()).unwrap();
        runtime.block_on(loops.ping());
        drop(threads);
        assert!(runtime.block_on(async { ping().await }).is_err());
    }

    /// A test that hangs fails after this time.
    const GUARD: Duration = Duration::from_secs(60);
}
