//! Threads that serve connections, each its own.
//!
//! A connection goes to the loop that has the fewest and stays there. Loops that share their work, as
//! tokio's own threads do, wake each other for nearly every token, and find its data in another
//! core's caches.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::debug;

use crate::http::listener::{Accepted, Stream};

/// Where connections are served: on the loop that accepts them, which is first, and on others.
#[derive(Debug)]
pub(crate) struct EventLoops(Vec<EventLoop>);

#[derive(Debug)]
struct EventLoop {
    /// `None` for the one that accepts, which is whoever calls.
    handle: Option<Handle>,
    connections: AtomicUsize,
}

/// The threads of all event loops but the one that accepts, and what ends each when it is dropped.
/// With this value, they and the connections that they still serve end.
#[derive(Debug)]
pub(crate) struct Threads(Vec<(oneshot::Sender<()>, JoinHandle<()>)>);

impl EventLoops {
    /// No other than the one that accepts.
    pub(crate) fn one() -> Arc<Self> {
        Arc::new(Self(vec![EventLoop::new(None)]))
    }

    /// Starts all of `count` but the one that accepts, which is the caller's.
    ///
    /// # Errors
    ///
    /// The operating system's, if it grants no more threads or file descriptors.
    pub(crate) fn start(count: usize) -> io::Result<(Arc<Self>, Threads)> {
        let mut loops = vec![EventLoop::new(None)];
        let mut threads = Threads(Vec::new());
        for index in 1..count {
            let (stop, stopped) = oneshot::channel();
            let (begin, begun) = mpsc::channel();
            let thread = thread::Builder::new().name(format!("event-loop-{index}"));
            // The runtime is made where it ends: the caller's thread may not drop one.
            let thread = thread.spawn(move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return begin.send(Err(error)).unwrap_or_default(),
                };
                let _ = begin.send(Ok(runtime.handle().clone()));
                // Dropped is as good as sent.
                let _ = runtime.block_on(stopped);
            })?;
            threads.0.push((stop, thread));
            let handle = begun.recv().map_err(io::Error::other)??;
            loops.push(EventLoop::new(Some(handle)));
        }
        Ok((Arc::new(Self(loops)), threads))
    }

    /// Serves what was accepted on the loop that has the fewest connections.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        accepted: Accepted,
        serve: impl FnOnce(Stream) -> F + Send + 'static,
    ) -> io::Result<()> {
        let load = |index: &usize| self.0[*index].connections.load(Ordering::Relaxed);
        let index = (0..self.0.len()).min_by_key(load).unwrap_or(0);
        let place = Place::on(self, index);
        match &self.0[index].handle {
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
                    match on_its_way.arrive() {
                        Ok(stream) => serve(stream).await,
                        Err(error) => debug!(%error, "a connection was lost"),
                    }
                });
            }
        }
        Ok(())
    }

    /// Completes when every loop has had a turn: never, if one hangs or has ended.
    pub(crate) async fn turn(&self) {
        for handle in self.0.iter().filter_map(|it| it.handle.as_ref()) {
            if handle.spawn(async {}).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl EventLoop {
    fn new(handle: Option<Handle>) -> Self {
        Self { handle, connections: AtomicUsize::new(0) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let threads: Vec<_> = self.0.drain(..).map(|(_stop, thread)| thread).collect();
        for thread in threads {
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

impl Place {
    fn on(loops: &Arc<EventLoops>, index: usize) -> Self {
        loops.0[index].connections.fetch_add(1, Ordering::Relaxed);
        Self { loops: Arc::clone(loops), index }
    }
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
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{ListenAddr, SocketMode};
    use crate::http::listener::Listener;

    /// Connections go where there are fewest, stay there, and end with the threads.
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

            // They go round; this one is the first loop's.
            drop(clients.remove(1));
            let begin = Clock::instant();
            while loops.0[1].connections.load(Ordering::Relaxed) == 2 {
                assert!(begin.elapsed() < GUARD, "its place is still taken");
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
    fn a_turn_is_not_over_while_one_of_the_loops_hangs() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (loops, threads) = EventLoops::start(3).unwrap();
        runtime.block_on(loops.turn());
        let (go_on, wait) = mpsc::channel::<()>();
        loops.0[2].handle.as_ref().unwrap().spawn(async move { wait.recv() });
        let turn = || tokio::time::timeout(Duration::from_millis(50), loops.turn());
        assert!(runtime.block_on(async { turn().await }).is_err());
        go_on.send(()).unwrap();
        runtime.block_on(loops.turn());
        drop(threads);
        assert!(runtime.block_on(async { turn().await }).is_err());
    }

    /// Nothing here takes this long.
    const GUARD: Duration = Duration::from_secs(60);
}
