//! Listening on a port of 127.0.0.1, with a thread for every connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The stack of a connection's thread, which keeps its buffers on the heap.
const STACK: usize = 512 * 1024;

/// How often remaining connections are told to end.
const BETWEEN_CALLS: Duration = Duration::from_millis(2);

/// A listening socket and the thread that accepts on it.
pub(super) struct Listening {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Listening {
    /// Accepts connections on this port, 0 for any, and serves each on a thread of its own.
    pub fn start(port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Listening {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .unwrap_or_else(|error| panic!("listening on port {port} of 127.0.0.1: {error}"));
        let address = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = Arc::new(serve);
        let accept = move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            while let Ok((tcp, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let serve = serve.clone();
                threads.retain(|thread| !thread.is_finished());
                threads.push(spawn("fake-connection", move || serve(tcp)));
            }
            drop(listener);
            for thread in threads {
                let _ = thread.join();
            }
        };
        Listening { address, stop, thread: spawn("fake-accept", accept) }
    }

    /// The listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and waits for open connections, which `end` has to close.
    pub fn stop(self, end: impl Fn()) {
        self.stop.store(true, Ordering::SeqCst);
        // A connection wakes the blocked accept.
        drop(TcpStream::connect(self.address));
        while !self.thread.is_finished() {
            // Repeatedly, because a connection may have been accepted just before.
            end();
            std::thread::sleep(BETWEEN_CALLS);
        }
        let _ = self.thread.join();
    }
}

/// Starts a thread with a name.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = std::thread::Builder::new().name(name.to_string()).stack_size(STACK);
    builder.spawn(work).expect("a thread can be started")
}
