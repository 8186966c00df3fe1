//! Tests of the embedder's server and scheduler, over real sockets, with a small synthetic model.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::local::{Gate, Model as LocalModel, Scratch};
use super::log::{LogReceiver, log_channel};
use super::scheduler::Scheduler;
use super::server::{Handle, spawn};
use embedd_wire::{
    Config, CountRequest, Counts, Embeddings, Failure, FailureClass, FrameBuffer, InputType,
    LOCAL_MODEL, Log, LogLevel, Model, Priority, Provider, Reply, Request, decode_counts,
    decode_reply, encode_count_request, encode_request,
};
use support::tiny_model::write_tiny_model;

const HIDDEN: u32 = 32;
pub(super) const TIMEOUT: Duration = Duration::from_secs(120);

/// A running server and its log, in a directory of its own.
pub(super) struct Fixture {
    pub(super) directory: PathBuf,
    config: Config,
    pub(super) handle: Handle,
    log: LogReceiver,
    lines: Vec<Log>,
}

impl Fixture {
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Fixture {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("embedd-server-{process}-{number}");
        let directory = std::env::temp_dir().join(name);
        let mut config = Config {
            local_model_path: write_model(&directory, 1),
            local_threads: 1,
            local_idle_unload: None,
            query_cache_bytes: 1 << 20,
            ca_file: None,
            usage_path: None,
            memory_limit: None,
        };
        change(&mut config);
        let listener = UnixListener::bind(directory.join("s")).unwrap();
        let (sender, log) = log_channel();
        let handle = spawn(listener, config.clone(), sender, || {}).unwrap();
        Fixture { directory, config, handle, log, lines: Vec::new() }
    }

    pub(super) fn reconfigure(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.clone();
        change(&mut config);
        self.handle.reconfigure(config);
    }

    pub(super) fn client(&self) -> BlockingClient {
        let stream = UnixStream::connect(self.directory.join("s")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let buffer = FrameBuffer::default();
        BlockingClient { stream, buffer }
    }

    pub(super) fn await_line(&mut self, level: LogLevel, part: &str) {
        let begin = Instant::now();
        loop {
            self.lines.extend(self.log.try_iter());
            let is_it = |line: &Log| line.level == level && line.message.contains(part);
            if self.lines.iter().any(is_it) {
                return;
            }
            assert!(begin.elapsed() < TIMEOUT, "{part:?}: {:?}", self.lines);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Writes a small model; another seed makes another model.
fn write_model(directory: &Path, seed: u64) -> PathBuf {
    let path = directory.join(format!("model{seed}"));
    write_tiny_model(&path, HIDDEN as usize, 2, 4, 64, seed).unwrap();
    path
}

/// A blocking client.
pub(super) struct BlockingClient {
    pub(super) stream: UnixStream,
    buffer: FrameBuffer,
}

impl BlockingClient {
    pub(super) fn send(&mut self, request: &Request) {
        let frame = encode_request(request).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub(super) fn receive(&mut self) -> Reply {
        self.next(|body| decode_reply(body).unwrap())
    }

    pub(super) fn count(&mut self, request: &CountRequest) -> Result<Counts, Failure> {
        self.stream.write_all(&encode_count_request(request).unwrap()).unwrap();
        self.next(|body| decode_counts(body).unwrap())
    }

    fn next<T>(&mut self, decode: impl Fn(&[u8]) -> T) -> T {
        loop {
            if let Some(body) = self.buffer.next_frame().unwrap() {
                return decode(body);
            }
            let mut bytes = [0; 8192];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the server closed the connection");
            self.buffer.extend(&bytes[..count]);
        }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Result<Embeddings, Failure> {
        self.send(request);
        let reply = self.receive();
        assert_eq!(reply.id, request.id);
        reply.outcome
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Ok(0) | Err(_))
    }
}

fn documents<T: ToString>(id: u64, texts: &[T]) -> Request {
    Request {
        id,
        provider: Provider::local(),
        model: Model::of_unknown_limits(LOCAL_MODEL, HIDDEN),
        input_type: InputType::Document,
        priority: Priority::Change,
        more: false,
        timeout_ms: 0,
        is_test: false,
        texts: texts.iter().map(T::to_string).collect(),
    }
}

fn question(id: u64, texts: &[&str]) -> Request {
    let (input_type, priority) = (InputType::Query, Priority::Question);
    Request { input_type, priority, ..documents(id, texts) }
}

/// This many different texts, each of about this many words.
fn many(count: usize, id: u64, words: usize) -> Vec<String> {
    let text = "long ".repeat(words);
    (0..count).map(|n| format!("{id} {n} {text}")).collect()
}

fn embed_alone(model: &Path, text: &str) -> Vec<f32> {
    let model = LocalModel::open(model).unwrap();
    let tokens = model.tokenize(text);
    model.embed(&[&tokens], &mut Scratch::default()).remove(0)
}

fn assert_near(one: &[f32], other: &[f32]) {
    let dot: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    assert!(one.len() == other.len() && dot > 0.999, "{dot}");
}

#[test]
fn each_text_gets_its_vector_in_order() {
    let fixture = Fixture::new(|config| config.local_threads = 2);
    let mut texts: Vec<String> =
        (0..150).map(|n| format!("{n} words {}", "and more ".repeat(n * 7 % 40))).collect();
    texts.push(texts[3].clone());
    let embeddings = fixture.client().ask(&documents(7, &texts)).unwrap();
    assert_eq!(embeddings.count(), 151);
    for n in [0, 1, 77, 149] {
        let alone = embed_alone(&fixture.config.local_model_path, &texts[n]);
        assert_near(embeddings.vector(n), &alone);
    }
    assert_eq!(embeddings.vector(150), embeddings.vector(3));
    assert!(!embeddings.truncated[0]);
    assert!(embeddings.truncated.iter().any(|truncated| *truncated));
}

#[test]
fn many_connections_and_many_requests_at_once() {
    let fixture = Fixture::new(|config| config.local_threads = 2);
    let mut clients: Vec<BlockingClient> = (0..20).map(|_| fixture.client()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        for id in 0..100 {
            let text = format!("client {number} request {id}");
            client.send(&documents(id, &[text]));
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut replies: Vec<Reply> = (0..100).map(|_| client.receive()).collect();
        replies.sort_by_key(|reply| reply.id);
        assert!(replies.iter().map(|reply| reply.id).eq(0..100));
        let text = format!("client {number} request 42");
        let alone = embed_alone(&fixture.config.local_model_path, &text);
        assert_near(replies[42].outcome.as_ref().unwrap().vector(0), &alone);
    }
}

#[test]
fn a_question_overtakes_documents() {
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    client.send(&documents(1, &many(2000, 0, 80)));
    client.send(&question(2, &["short?"]));
    assert_eq!(client.receive().id, 2);
}

#[test]
fn documents_yield_while_a_question_runs() {
    let fixture = Fixture::new(|_| {});
    let gate = Arc::new(Gate::with_max_debt(Duration::MAX));
    let scheduler = Scheduler::with_gate(&fixture.config, log_channel().0, gate.clone());
    let running = gate.enter();
    let text = "long ".repeat(80);
    let order = Mutex::new(Vec::new());
    let documents = async {
        let embeddings = scheduler.embed(0, documents(1, &[&text])).await.unwrap();
        order.lock().unwrap().push("documents");
        embeddings
    };
    let question = async {
        while gate.yielding() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scheduler.embed(0, question(2, &["short?"])).await.unwrap();
        order.lock().unwrap().push("question");
        drop(running);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (embeddings, ()) = runtime.block_on(async { tokio::join!(documents, question) });
    assert_eq!(*order.lock().unwrap(), ["question", "documents"]);
    assert_eq!(embeddings.values, embed_alone(&fixture.config.local_model_path, &text));
}

#[test]
fn a_small_request_does_not_wait_for_another_clients_large_one() {
    let fixture = Fixture::new(|_| {});
    let mut large = fixture.client();
    large.send(&documents(1, &many(4000, 0, 80)));
    fixture.client().ask(&documents(2, &["small"])).unwrap();
    large.stream.set_nonblocking(true).unwrap();
    let error = large.stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_requests_of_a_client_are_cancelled_when_it_disconnects() {
    let fixture = Fixture::new(|_| {});
    let large = |id| documents(id, &many(200, id, 12));
    let mut client = fixture.client();
    let begin = Instant::now();
    client.ask(&large(0)).unwrap();
    let once = begin.elapsed();
    let mut gone = fixture.client();
    (1..=64).for_each(|id| gone.send(&large(id)));
    drop(gone);
    let begin = Instant::now();
    client.ask(&large(66)).unwrap();
    client.ask(&large(67)).unwrap();
    // If the disconnected client still had its turns, these two requests would take as long as four.
    let twice = begin.elapsed();
    assert!(twice < once * 3 + Duration::from_millis(300), "{twice:?}");
}

#[test]
fn invalid_requests_are_refused_with_the_reason() {
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    let mut refusal = |change: fn(&mut Request)| {
        let mut request = documents(1, &["text"]);
        change(&mut request);
        let failure = client.ask(&request).unwrap_err();
        assert_eq!(failure.class, FailureClass::Refused);
        failure.message
    };
    let message = refusal(|request| request.model.name = "other".to_string());
    assert_eq!(message, "unknown local model \"other\"");
    let message = refusal(|request| request.model.dimensions = 1536);
    assert!(message.ends_with("vectors of 32 dimensions, not 1536"));
    let message = refusal(|request| request.model.dimensions = u32::MAX);
    assert_eq!(message, "too many texts in one request");
    let nothing: [&str; 0] = [];
    assert_eq!(client.ask(&documents(1, &nothing)).unwrap().count(), 0);
    assert_eq!(client.ask(&documents(2, &["text"])).unwrap().count(), 1);
}

#[test]
fn a_missing_model_is_reported_and_loaded_once_it_is_there() {
    let mut fixture = Fixture::new(|config| config.local_model_path = "/nowhere/at/all".into());
    let mut client = fixture.client();
    let question = self::question(1, &["text"]);
    let failure = client.ask(&question).unwrap_err();
    assert_eq!(failure.class, FailureClass::BadSetting);
    assert_eq!(failure.message, "local model is missing");
    let detail = failure.detail.unwrap();
    assert!(detail.contains("/nowhere/at/all"), "{detail}");
    let hint = failure.hint.unwrap();
    assert!(hint.starts_with("Run make model PG_CONFIG=..., or set"));
    fixture.await_line(LogLevel::Warning, "local model is missing");
    for _ in 0..100 {
        client.ask(&question).unwrap_err();
    }
    assert!(fixture.log.try_iter().count() <= 20);

    let path = write_model(&fixture.directory, 2);
    fixture.reconfigure(|config| config.local_model_path = path);
    let begin = Instant::now();
    while client.ask(&question).is_err() {
        assert!(begin.elapsed() < TIMEOUT);
    }
    fixture.await_line(LogLevel::Log, "loaded the local model");
}

#[test]
fn another_model_path_invalidates_the_cache() {
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    let question = self::question(1, &["what is it", "and what else"]);
    let first = client.ask(&question).unwrap();
    assert_eq!(first, client.ask(&question).unwrap());
    let path = write_model(&fixture.directory, 2);
    let second = embed_alone(&path, "what is it");
    fixture.reconfigure(|config| (config.local_model_path, config.local_threads) = (path, 3));
    let mut others = std::iter::repeat_with(|| client.ask(&question).unwrap()).take(100_000);
    let other = others.find(|embeddings| *embeddings != first).unwrap();
    assert_near(other.vector(0), &second);
}

#[test]
fn an_idle_model_is_unloaded_and_loaded_again() {
    let mut fixture =
        Fixture::new(|config| config.local_idle_unload = Some(Duration::from_millis(100)));
    let mut client = fixture.client();
    let documents = self::documents(1, &["text"]);
    let first = client.ask(&documents).unwrap();
    fixture.await_line(LogLevel::Debug, "unloaded the idle local model");
    assert_eq!(first, client.ask(&documents).unwrap());
}

#[test]
fn a_malformed_frame_closes_only_its_own_connection() {
    let mut fixture = Fixture::new(|_| {});
    let mut good = fixture.client();
    for frame in [b"\xff\xff\xff\xffab", b"\x02\0\0\0{}", b"\0\0\0\0\0\0"] {
        let mut bad = fixture.client();
        bad.stream.write_all(frame).unwrap();
        assert!(bad.is_closed());
    }
    fixture.await_line(LogLevel::Warning, "closed a connection: malformed frame");
    good.ask(&question(1, &["still there"])).unwrap();
}

#[test]
fn a_client_that_does_not_read_replies_is_blocked() {
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    client.ask(&question(0, &["same"])).unwrap();
    let timeout = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(timeout).unwrap();
    // Every text is in the cache, so each of these small requests has a large reply at once.
    let frame = encode_request(&question(1, &["same"; 4000])).unwrap();
    let mut sent = 0;
    while sent < 4000 && client.stream.write_all(&frame).is_ok() {
        sent += 1;
    }
    assert!(sent < 3000, "{sent} were taken without a reply being read");
    // The server also closes its side when such a client disconnects with replies unread.
    let mut other = fixture.client();
    other.ask(&question(2, &["other"])).unwrap();
    drop(client);
    other.ask(&question(3, &["other"])).unwrap();
}

#[test]
fn stopping_is_logged() {
    let mut fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    client.ask(&question(1, &["text"])).unwrap();
    fixture.handle.stop();
    fixture.await_line(LogLevel::Debug, "the embedder's server has ended");
    assert!(client.is_closed());
}
