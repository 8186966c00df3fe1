//! A forward proxy on 127.0.0.1: CONNECT for https, absolute URLs for http. For any host it connects to that port of
//! 127.0.0.1, so a test can use host names that only the proxy knows.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::http::{self, Length, Reader, Request};
use super::listen::{Listening, spawn};

/// A request to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// "CONNECT" or "POST".
    pub method: String,
    /// The requested host and port.
    pub host: String,
    /// Whether it could read the provider's key: never in a tunnel.
    pub saw_key: bool,
}

/// A proxy that runs until it is dropped.
pub struct FakeProxy {
    shared: Arc<Shared>,
    listening: Option<Listening>,
}

/// State shared by its threads.
#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Proxied>>,
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
    last: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeProxy {
    /// Starts a proxy for any client.
    pub fn start() -> FakeProxy {
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let listening = Listening::start(0, move |tcp| {
            // How a connection ends does not matter.
            let _ = serving.serve(tcp);
        });
        FakeProxy { shared, listening: Some(listening) }
    }

    /// The value for HTTP_PROXY and HTTPS_PROXY.
    pub fn url(&self) -> String {
        let listening = self.listening.as_ref().expect("it runs until it is dropped");
        format!("http://{}", listening.address())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Proxied> {
        lock(&self.shared.seen).clone()
    }

    /// Every requested host, with its port.
    pub fn hosts(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.host).collect()
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.stop(|| self.shared.close());
        }
    }
}

impl Shared {
    /// Closes every connection.
    fn close(&self) {
        for socket in lock(&self.open).values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Serves one request of a connection, and then closes it.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(id, [client.try_clone()?, client.try_clone()?]);
        let served = self.forward(id, &mut client);
        lock(&self.open).remove(&id);
        let _ = client.shutdown(Shutdown::Both);
        served
    }

    fn forward(&self, id: u64, client: &mut TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = Reader::default();
        let Some(request) = reader.next(client)? else { return Ok(()) };
        let tunnel = request.method == "CONNECT";
        let (host, path) = match request.path.strip_prefix("http://") {
            _ if tunnel => (request.path.as_str(), ""),
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => return refuse(client, 400),
        };
        lock(&self.seen).push(Proxied {
            method: request.method.clone(),
            host: host.to_string(),
            saw_key: ["authorization", "api-key", "x-goog-api-key"]
                .iter()
                .any(|name| request.header(name).is_some()),
        });
        let port = host.rsplit_once(':').map_or(Ok(80), |(_, port)| port.parse());
        let Some(mut target) =
            port.ok().and_then(|port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        else {
            return refuse(client, 502);
        };
        target.set_nodelay(true)?;
        lock(&self.open).insert(id, [client.try_clone()?, target.try_clone()?]);
        if tunnel {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            target.write_all(&reader.leftover())?;
            let (mut upward, mut to) = (client.try_clone()?, target.try_clone()?);
            let up = spawn("fake-tunnel", move || pour(&mut upward, &mut to));
            pour(&mut target, client);
            let _ = up.join();
        } else {
            target.write_all(&rewritten(&request, path))?;
            target.write_all(&request.body)?;
            pour(&mut target, client);
        }
        Ok(())
    }
}

/// The head of a request in the form for the target: with a path, and without keep-alive.
fn rewritten(request: &Request, path: &str) -> Vec<u8> {
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{} {path} HTTP/1.1\r\n", request.method);
    for (name, value) in &request.headers {
        let own = ["connection", "transfer-encoding", "content-length", "expect"];
        if !own.contains(&name.as_str()) && !name.starts_with("proxy-") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\n", request.body.len()));
    head.push_str("connection: close\r\n\r\n");
    head.into_bytes()
}

/// Answers with an error of the proxy's own.
fn refuse(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let headers = [("connection".to_string(), "close".to_string())];
    client.write_all(&http::head(status, "text/plain", Length::Known(0), &headers))
}

/// Copies until the end, and then closes the other side.
fn pour(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
