//! A second, small fake with HTTP/2 over TLS only: OpenAI's API, successful answers only. It shows how many
//! connections are made, and how many requests share one at the same time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use h2::server::SendResponse;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::dialect::Dialect;
use super::http::Request;
use super::listen::spawn;
use super::record::Record;
use super::refusal;
use super::reply::{Fault, Writer};
use super::tls::Authority;

/// The body of a reply.
type Bytes = std::io::Cursor<Vec<u8>>;

/// An error of a connection, which ends it.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// State shared by its tasks.
struct Shared {
    record: Record,
    dimensions: usize,
    latency: Duration,
    /// Notifies requests and connections of a changed state.
    orders: watch::Sender<Orders>,
}

/// The state that requests and connections follow.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    /// Requests wait.
    hold: bool,
    /// How often connections were told to accept no new requests.
    go_away: u64,
    /// The fake is stopping.
    stop: bool,
}

/// A fake that uses HTTP/2, until it is dropped.
pub struct FakeHttp2 {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl FakeHttp2 {
    /// Starts a fake with a certificate for localhost and 127.0.0.1, and vectors of these dimensions.
    pub fn start(authority: &Authority, dimensions: usize, latency: Duration) -> FakeHttp2 {
        let shared = Arc::new(Shared {
            record: Record::new(false),
            dimensions,
            latency,
            orders: watch::Sender::default(),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let acceptor = TlsAcceptor::from(authority.certificate().server(&["h2"]));
        let serving = shared.clone();
        let thread = spawn("fake-http2", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = TcpListener::from_std(listener).expect("the socket is a listener");
                let mut orders = serving.orders.subscribe();
                tokio::select! {
                    _ = orders.wait_for(|orders| orders.stop) => {}
                    () = accept(&serving, &listener, &acceptor) => {}
                }
            });
        });
        FakeHttp2 { shared, address, thread: Some(thread) }
    }

    /// The base_url for embedd.
    pub fn base_url(&self) -> String {
        format!("https://{}/v1", self.address)
    }

    /// Connections made so far with HTTP/2.
    pub fn connections(&self) -> u64 {
        self.shared.record.connections.load(Ordering::Relaxed)
    }

    /// Connections with a failed TLS or HTTP/2 handshake.
    pub fn failed_handshakes(&self) -> u64 {
        self.shared.record.failed_handshakes.load(Ordering::Relaxed)
    }

    /// Requests received.
    pub fn request_count(&self) -> u64 {
        self.shared.record.requests.load(Ordering::Relaxed)
    }

    /// Texts in them.
    pub fn text_count(&self) -> u64 {
        self.shared.record.texts.load(Ordering::Relaxed)
    }

    /// The largest number of concurrent requests, over all connections.
    pub fn max_concurrent(&self) -> u64 {
        self.shared.record.max_concurrent.load(Ordering::Relaxed)
    }

    /// Makes every request wait until `release`.
    pub fn hold(&self) {
        self.shared.orders.send_modify(|orders| orders.hold = true);
    }

    /// Lets them go on.
    pub fn release(&self) {
        self.shared.orders.send_modify(|orders| orders.hold = false);
    }

    /// Tells every client (GOAWAY) that its connection accepts no new requests.
    pub fn go_away(&self) {
        self.shared.orders.send_modify(|orders| orders.go_away += 1);
    }

    /// Waits until this many requests were received since the start; panics after the limit.
    pub fn wait_for_requests(&self, requests: u64, limit: Duration) {
        assert!(
            self.shared.record.wait(limit, || self.request_count() >= requests),
            "waited {limit:?} for {requests} requests over HTTP/2, and saw {}",
            self.request_count()
        );
    }
}

impl Drop for FakeHttp2 {
    fn drop(&mut self) {
        self.shared.orders.send_modify(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves each connection with a task of its own.
async fn accept(shared: &Arc<Shared>, listener: &TcpListener, acceptor: &TlsAcceptor) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
        tokio::spawn(async move {
            // How a connection ends does not matter.
            let _ = serve(shared, acceptor, tcp).await;
        });
    }
}

/// Serves a connection to its end.
async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, tcp: TcpStream) -> Result<(), BoxError> {
    tcp.set_nodelay(true)?;
    let greeted = async {
        let tls = acceptor.accept(tcp).await?;
        Ok::<_, BoxError>(h2::server::Builder::new().handshake::<_, Bytes>(tls).await?)
    };
    let mut connection = match greeted.await {
        Ok(connection) => connection,
        Err(error) => {
            shared.record.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
    };
    shared.record.connections.fetch_add(1, Ordering::Relaxed);
    shared.record.tell();
    let mut orders = shared.orders.subscribe();
    let before = orders.borrow().go_away;
    let mut leaving = false;
    loop {
        tokio::select! {
            next = connection.accept() => {
                let Some(next) = next else { return Ok(()) };
                let (request, respond) = next?;
                let shared = shared.clone();
                tokio::spawn(async move { drop(answer(shared, request, respond).await) });
            }
            _ = orders.wait_for(|orders| orders.go_away != before), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// Answers one request.
async fn answer(
    shared: Arc<Shared>,
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), BoxError> {
    let (head, mut incoming) = request.into_parts();
    let mut request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_string(),
        ..Request::default()
    };
    while let Some(data) = incoming.data().await {
        let data = data?;
        request.body.extend_from_slice(&data);
        incoming.flow_control().release_capacity(data.len())?;
    }
    let asked = Dialect::OpenAi.read(&request);
    let working = Working::begin(&shared.record, asked.as_ref().map_or(0, |a| a.texts.len()));
    tokio::time::sleep(shared.latency).await;
    shared.orders.subscribe().wait_for(|orders| !orders.hold || orders.stop).await?;
    let mut body = Vec::new();
    let status = match &asked {
        Ok(asked) => {
            let dimensions = asked.dimensions.unwrap_or(shared.dimensions);
            Writer::default().write(&mut body, Dialect::OpenAi, asked, dimensions, &Fault::None);
            200
        }
        Err(problem) => {
            let text = refusal::body(Dialect::OpenAi, problem, "", None, None, None);
            body.extend_from_slice(text.as_bytes());
            problem.status(Dialect::OpenAi)
        }
    };
    drop(working);
    let response = http::Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(())?;
    respond.send_response(response, false)?.send_data(Bytes::new(body), true)?;
    Ok(())
}

/// A request in progress, until it is dropped.
struct Working<'a>(&'a Record);

impl Working<'_> {
    fn begin(record: &Record, texts: usize) -> Working<'_> {
        record.count(texts);
        Working(record)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.uncount();
    }
}
