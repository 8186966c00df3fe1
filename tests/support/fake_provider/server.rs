//! The connections of a fake: reads requests, applies the script, and sends answers.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batches::Batches;
use super::builder::Settings;
use super::control::{Control, Woken};
use super::dialect::{Asked, Dialect};
use super::http::{self, Length, Reader, Request};
use super::record::{Arrived, Record};
use super::refusal::{self, Problem};
use super::reply::{Fault, Writer};
use super::respond::{Delivery, Respond, What};
use super::script::Script;

/// A shorter body is sent together with its head.
const SHORT: usize = 16 * 1024;

/// State shared by all threads of a fake.
pub(super) struct Shared {
    pub settings: Settings,
    pub control: Arc<Control>,
    pub script: Script,
    pub record: Record,
    pub batches: Batches,
    /// Accepted keys; None accepts every key.
    keys: Mutex<Option<Vec<String>>>,
    /// The open connections, and their states.
    open: Mutex<HashMap<u64, (TcpStream, Arc<AtomicU8>)>>,
    /// The last number given to a connection.
    last: AtomicU64,
    /// Whether the model is loaded.
    loaded: AtomicBool,
}

/// A lock that stays usable after a failed test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection waits for a request.
const IDLE: u8 = 0;
/// A request is in progress.
const WORKING: u8 = 1;
/// The last part of an answer is being sent.
const ANSWERING: u8 = 2;
/// The connection has to close after that.
const ENDING: u8 = 3;

/// What happens to a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

/// A request in progress, and where its answer goes.
struct Exchange<'a, S> {
    record: &'a Record,
    arrived: Arrived<'a>,
    doing: &'a AtomicU8,
    /// How often `let_go` had been called when the request arrived.
    let_go: u64,
    tcp: &'a TcpStream,
    stream: &'a mut S,
}

impl Shared {
    /// A fake without connections.
    pub fn new(settings: Settings) -> Shared {
        Shared {
            control: Arc::default(),
            script: Script::default(),
            record: Record::new(settings.record),
            batches: Batches::default(),
            keys: Mutex::new(settings.keys.clone()),
            open: Mutex::default(),
            last: AtomicU64::new(0),
            loaded: AtomicBool::new(settings.loads_in.is_zero()),
            settings,
        }
    }

    /// Changes the accepted keys; None accepts every key.
    pub fn set_keys(&self, keys: Option<Vec<String>>) {
        *lock(&self.keys) = keys;
    }

    /// Serves a connection to its end. How it ends does not matter; the record shows what happened.
    pub fn serve(&self, tcp: TcpStream) {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let doing = Arc::new(AtomicU8::new(IDLE));
        let (Ok(socket), Ok(own)) = (tcp.try_clone(), tcp.try_clone()) else { return };
        lock(&self.open).insert(id, (socket, doing.clone()));
        self.record.connections.fetch_add(1, Ordering::Relaxed);
        self.record.tell();
        let _ = tcp.set_nodelay(true);
        let _ = match &self.settings.tls {
            None => self.converse(own, &tcp, id, &doing),
            Some(tls) => match super::tls::accept(tls, own) {
                Ok(stream) => self.converse(stream, &tcp, id, &doing),
                Err(error) => {
                    self.record.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                    Err(error)
                }
            },
        };
        lock(&self.open).remove(&id);
        let _ = tcp.shutdown(Shutdown::Both);
        self.record.tell();
    }

    /// Closes all connections, or only those without a request in progress.
    pub fn close(&self, only_idle: bool) {
        let change = |doing: &AtomicU8, from| {
            doing.compare_exchange(from, ENDING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        for (socket, doing) in lock(&self.open).values() {
            // A client that has read the answer sees a connection that is still sending as idle.
            if !only_idle || (!change(doing, ANSWERING) && change(doing, IDLE)) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        lock(&self.open).len()
    }

    /// Answers requests one after the other.
    fn converse<S: Read + Write>(
        &self,
        mut stream: S,
        tcp: &TcpStream,
        id: u64,
        doing: &AtomicU8,
    ) -> io::Result<()> {
        let mut reader = Reader::default();
        let mut writer = Writer::default();
        let mut body = Vec::new();
        while let Some(request) = reader.next(&mut stream)? {
            if doing.swap(WORKING, Ordering::SeqCst) == ENDING {
                break;
            }
            let let_go = self.control.times_let_go();
            let asked = self.settings.dialect.read(&request);
            let key = self.any_key(&request);
            let exchange = Exchange {
                record: &self.record,
                arrived: self.record.arrived(&request, asked.as_ref().ok(), key, id),
                doing,
                let_go,
                tcp,
                stream: &mut stream,
            };
            let after = self.treat(&request, &asked, exchange, &mut writer, &mut body)?;
            let ending = doing.swap(IDLE, Ordering::SeqCst) == ENDING;
            if ending || after == After::Close || request.closes() {
                break;
            }
        }
        Ok(())
    }

    /// Processes a request according to the script.
    fn treat<S: Write>(
        &self,
        request: &Request,
        asked: &Result<Asked, Problem>,
        exchange: Exchange<S>,
        writer: &mut Writer,
        body: &mut Vec<u8>,
    ) -> io::Result<After> {
        if exchange.gone(self.control.pass_gates(exchange.tcp)) {
            return Ok(After::Close);
        }
        if !self.loaded.load(Ordering::SeqCst) {
            if exchange.gone(self.control.delay(exchange.tcp, self.settings.loads_in)) {
                return Ok(After::Close);
            }
            self.loaded.store(true, Ordering::SeqCst);
        }
        let dialect = self.settings.dialect;
        if Batches::is_asked(dialect, request) {
            return self.treat_batch(request, exchange);
        }
        let mut respond = self.script.respond(asked.as_ref().ok());
        if !self.settings.latency.is_zero() {
            self.control.latency(self.settings.latency);
        }
        if !respond.delay.is_zero() {
            let woken = self.control.delay(exchange.tcp, respond.delay);
            if exchange.gone(woken) {
                return Ok(After::Close);
            }
        }
        // Only an answer can be spoiled, not an error.
        if let What::Vectors(_) = respond.what
            && let Some(problem) = self.problem(request, asked)
        {
            respond.what = What::Refuse(problem);
        }
        if request.closes() || respond.closing {
            respond.headers.push(("connection".to_string(), "close".to_string()));
        }
        body.clear();
        let mut vectors = None;
        let status = match (&respond.what, asked) {
            (What::Vectors(fault), Ok(asked)) => {
                vectors = Some((asked, fault));
                writer.write(body, dialect, asked, self.settings.dimensions_of(asked), fault);
                200
            }
            (What::Refuse(problem), _) => {
                let model = asked.as_ref().map_or("", |asked| asked.model.as_str());
                let (message, code) = (respond.message.as_deref(), respond.code.as_deref());
                let wait = respond.retry_in;
                let text = refusal::body(dialect, problem, model, message, code, wait);
                body.extend_from_slice(text.as_bytes());
                problem.status(dialect)
            }
            (What::Body(status, text), _) => {
                body.extend_from_slice(text.as_bytes());
                *status
            }
            (What::BrokenJson | What::Vectors(_), _) => {
                body.extend_from_slice(br#"{"object":"list","data":[{"object":"#);
                200
            }
            (What::Raw(bytes), _) => return exchange.raw(bytes),
            (What::Endless, _) => return exchange.endless(dialect),
            (What::Close, _) => return Ok(After::Close),
            (What::Never, _) => {
                let woken = self.control.wait_for_ever(exchange.tcp, exchange.let_go);
                exchange.gone(woken);
                return Ok(After::Close);
            }
        };
        if let (Some(wait), false) = (respond.retry_in, dialect == Dialect::Gemini) {
            let milliseconds = matches!(dialect, Dialect::OpenAi | Dialect::OpenAiCompatible);
            respond.headers.extend(http::retry_headers(wait, milliseconds));
        }
        let after = exchange.send(status, &respond, body, vectors)?;
        Ok(if respond.closing { After::Close } else { after })
    }

    /// Processes a request of the batch API.
    fn treat_batch<S: Write>(&self, request: &Request, exchange: Exchange<S>) -> io::Result<After> {
        let (dialect, settings) = (self.settings.dialect, &self.settings);
        let mut respond = Respond::well();
        if let Some(problem) = self.key_problem(request) {
            let body = refusal::body(dialect, &problem, "", None, None, None);
            return exchange.send(problem.status(dialect), &respond, body.as_bytes(), None);
        }
        let dimensions = |model: &str| settings.dimensions_of_model(model);
        let served = self.batches.serve(dialect, request, dimensions);
        self.record.pay_for(&served.paid);
        if served.is_lost {
            exchange.arrived.abandoned();
            return Ok(After::Close);
        }
        if request.closes() {
            respond.headers.push(("connection".to_string(), "close".to_string()));
        }
        exchange.send(served.status, &respond, &served.body, None)
    }

    /// Why the service rejects the key of a request.
    fn key_problem(&self, request: &Request) -> Option<Problem> {
        let dialect = self.settings.dialect;
        let key = dialect.key(request, self.settings.key_header.as_deref());
        match (key, &*lock(&self.keys)) {
            (None, Some(_)) => Some(Problem::KeyMissing),
            (None, None) if dialect.needs_key() => Some(Problem::KeyMissing),
            (Some(key), Some(keys)) if !keys.iter().any(|known| known == key) => {
                Some(Problem::KeyRejected)
            }
            _ => None,
        }
    }

    /// Why the service itself rejects a request.
    fn problem(&self, request: &Request, asked: &Result<Asked, Problem>) -> Option<Problem> {
        if *asked == Err(Problem::NoSuchPath) {
            return Some(Problem::NoSuchPath);
        }
        if let Some(problem) = self.key_problem(request) {
            return Some(problem);
        }
        let asked = match asked {
            Ok(asked) => asked,
            Err(problem) => return Some(problem.clone()),
        };
        self.settings.problem(asked)
    }

    /// The key from any header, for the record.
    fn any_key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let own = self.settings.key_header.as_deref();
        own.and_then(|own| request.header(own))
            .or_else(|| request.header("x-goog-api-key"))
            .or_else(|| request.header("api-key"))
            .or_else(|| request.header("authorization")?.strip_prefix("Bearer "))
    }
}

impl<S: Write> Exchange<'_, S> {
    /// Whether a wait ended because the client disconnected, which is recorded.
    fn gone(&self, woken: Woken) -> bool {
        if woken == Woken::HungUp {
            self.arrived.abandoned();
        }
        woken != Woken::Due
    }

    /// Records an answer, before its last byte is sent.
    fn answered(&self, status: u16, vectors: Option<(&Asked, &Fault)>) {
        self.doing.store(ANSWERING, Ordering::SeqCst);
        self.arrived.answered(status, vectors);
    }

    /// Sends an answer in the scripted way.
    fn send(
        mut self,
        status: u16,
        respond: &Respond,
        body: &[u8],
        vectors: Option<(&Asked, &Fault)>,
    ) -> io::Result<After> {
        let kind = match body.first() {
            Some(b'{' | b'[') => "application/json",
            _ => "text/html",
        };
        let mut bytes = http::head(status, kind, Length::Known(body.len()), &respond.headers);
        match respond.delivery {
            Delivery::Whole => {
                self.answered(status, vectors);
                let sent = if body.len() <= SHORT {
                    bytes.extend_from_slice(body);
                    self.write(&bytes)
                } else {
                    self.write(&bytes).and_then(|()| self.write(body))
                };
                sent.inspect_err(|_| self.arrived.unanswered(vectors))?;
                Ok(After::Keep)
            }
            Delivery::Half => {
                self.arrived.done();
                bytes.extend_from_slice(&body[..body.len() / 2]);
                self.write(&bytes)?;
                Ok(After::Close)
            }
        }
    }

    /// Sends raw bytes.
    fn raw(mut self, bytes: &[u8]) -> io::Result<After> {
        self.arrived.done();
        self.write(bytes)?;
        Ok(After::Close)
    }

    /// Sends numbers until the client disconnects or the fake stops.
    fn endless(mut self, dialect: Dialect) -> io::Result<After> {
        let begin = match dialect {
            Dialect::Gemini => r#"{"embeddings":[{"values":["#,
            Dialect::Ollama => r#"{"embeddings":[["#,
            _ => r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":["#,
        };
        let mut bytes = http::head(200, "application/json", Length::Chunked, &[]);
        bytes.extend_from_slice(format!("{:x}\r\n{begin}\r\n", begin.len()).as_bytes());
        let numbers = "0.125,".repeat(2048);
        let chunk = format!("{:x}\r\n{numbers}\r\n", numbers.len());
        loop {
            self.write(&bytes).inspect_err(|_| self.arrived.abandoned())?;
            bytes.clear();
            bytes.extend_from_slice(chunk.as_bytes());
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        self.record.bytes_sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
