//! Answers requests on the embedder's socket, concurrently, on threads that never call PostgreSQL.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedd_wire::{
    BatchAnswer, BatchRequest, Config, CountRequest, Counts, Embeddings, Failure, FailureClass,
    InputType, Kind, LogLevel, Request, Status, reply_fits,
};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::cache::QueryCache;
use super::connection::converse;
use super::count;
use super::hashed;
use super::job::lock;
use super::learned_limits::LearnedLimits;
use super::log::LogSender;
use super::memory;
use super::remote::Remote;
use super::scheduler::Scheduler;
use super::usage::{self, Ledger};

/// How often changed counts are written.
const USAGE_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a failed accept; it doubles up to a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server; dropping it ends the server.
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    kept: Kept,
}

/// What is persisted in files.
#[derive(Clone)]
struct Kept {
    ledger: Arc<Mutex<Ledger>>,
    learned: Arc<Mutex<LearnedLimits>>,
}

/// A message from the program to the server.
enum Order {
    Reconfigure(Config),
    Stop,
}

impl Handle {
    /// Sends changed settings; does not wait for them to apply.
    pub fn reconfigure(&self, config: Config) {
        let _ = self.orders.send(Order::Reconfigure(config));
    }

    /// Tells the server to end; does not wait for it.
    pub fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }

    /// Writes unsaved counts and limits.
    pub fn save_usage(&self) {
        self.kept.save();
    }
}

/// Starts a server on its own thread. `on_end` runs when it has ended, for whatever reason.
pub fn spawn(
    listener: StdListener,
    config: Config,
    log: LogSender,
    on_end: impl FnOnce() + Send + 'static,
) -> io::Result<Handle> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (orders, received) = mpsc::unbounded_channel();
    let usage_path = config.usage_path.as_deref();
    let kept = Kept {
        ledger: Arc::new(Mutex::new(Ledger::open(usage_path))),
        learned: Arc::new(Mutex::new(LearnedLimits::open(usage_path))),
    };
    let keeping = kept.clone();
    let serving = move || {
        let server = Arc::new(Server {
            cache: Mutex::new(QueryCache::new(config.query_cache_bytes)),
            local: Scheduler::new(&config, log.clone()),
            remote: Remote::new(
                config.ca_file.clone(),
                log.clone(),
                keeping.ledger.clone(),
                keeping.learned.clone(),
            ),
            kept: keeping,
            in_flight: AtomicU64::new(0),
            log: log.clone(),
        });
        let serving = || runtime.block_on(serve(server, listener, received, config));
        let outcome = catch_unwind(AssertUnwindSafe(serving));
        let (level, why) = match outcome {
            Ok(Ok(())) => (LogLevel::Debug, String::new()),
            Ok(Err(error)) => (LogLevel::Warning, format!(": {error}")),
            Err(_) => (LogLevel::Warning, ": it failed".to_string()),
        };
        runtime.shutdown_background();
        log.send(level, format!("the embedder's server has ended{why}"));
        on_end();
    };
    std::thread::Builder::new().name("embedd server".to_string()).spawn(serving)?;
    Ok(Handle { orders, kept })
}

/// What all connections share.
pub(super) struct Server {
    cache: Mutex<QueryCache>,
    local: Scheduler,
    remote: Remote,
    kept: Kept,
    in_flight: AtomicU64,
    pub(super) log: LogSender,
}

/// Accepts connections and handles orders until told to stop.
async fn serve(
    server: Arc<Server>,
    listener: StdListener,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut config: Config,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    connections.spawn(keep(server.kept.clone()));
    let mut resume = Instant::now();
    let mut pause = ACCEPT_PAUSE;
    for client_id in 0.. {
        let stream = loop {
            let accept = async {
                sleep_until(resume).await;
                listener.accept().await
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reconfigure(new)) => server.reconfigure(&mut config, new).await,
                    Some(Order::Stop) | None => return Ok(()),
                },
                Some(_) = connections.join_next() => {}
                accepted = accept => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        if pause == ACCEPT_PAUSE {
                            let line = format!("could not accept a connection: {error}");
                            server.log.send(LogLevel::Warning, line);
                        }
                        resume = Instant::now() + pause;
                        pause = (pause * 2).min(Duration::from_secs(1));
                    }
                },
            }
        };
        pause = ACCEPT_PAUSE;
        connections.spawn(converse(server.clone(), stream, client_id));
    }
    Ok(())
}

/// Writes changed counts and limits regularly.
async fn keep(kept: Kept) {
    loop {
        sleep(USAGE_PAUSE).await;
        let kept = kept.clone();
        let _ = spawn_blocking(move || kept.save()).await;
    }
}

impl Kept {
    /// Writes what has changed.
    fn save(&self) {
        let counts = lock(&self.ledger).take_changes();
        let limits = lock(&self.learned).take_changes();
        for (path, json) in counts.into_iter().chain(limits) {
            // A full disk loses the latest counts; the next change tries again.
            let _ = usage::write(&path, &json);
        }
    }
}

impl Server {
    /// Applies changed settings.
    async fn reconfigure(&self, config: &mut Config, new: Config) {
        {
            let mut cache = lock(&self.cache);
            if config.local_model_path != new.local_model_path {
                cache.clear();
            }
            cache.set_limit(new.query_cache_bytes);
        }
        self.remote.reconfigure(new.ca_file.clone()).await;
        self.local.reconfigure(&new);
        *config = new;
    }

    /// The embedder's current status.
    pub(super) fn status(&self) -> Status {
        let (cache_bytes, cache_hits, cache_misses) = lock(&self.cache).counts();
        Status {
            pid: std::process::id(),
            rss_bytes: memory::resident(),
            model_loaded: self.local.is_loaded(),
            requests_in_flight: self.in_flight.load(Ordering::Relaxed),
            cache_bytes,
            cache_hits,
            cache_misses,
        }
    }

    /// Answers a request, questions from the cache if possible.
    pub(super) async fn answer(
        &self,
        client_id: u64,
        mut request: Request,
    ) -> Result<Embeddings, Failure> {
        let _counted = InFlight::count(&self.in_flight);
        put_prefix_in_front(&mut request);
        if !reply_fits(request.texts.len(), request.model.dimensions as usize) {
            let message = "too many texts in one request";
            return Err(Failure::new(FailureClass::Refused, message));
        }
        if request.input_type == InputType::Document {
            return self.ask(client_id, request).await;
        }
        let lookup = lock(&self.cache).look_up(&mut request);
        let fresh = match request.texts.is_empty() {
            true => Embeddings::default(),
            false => self.ask(client_id, request).await?,
        };
        Ok(lock(&self.cache).complete(lookup, &fresh))
    }

    /// Counts the tokens of texts. Nothing is sent to a provider.
    pub(super) async fn count(&self, request: CountRequest) -> Result<Counts, Failure> {
        let (kind, local_model) = (request.provider.kind, self.local.model_path());
        let most = (!kind.is_inside()).then(|| self.remote.most_of_request(&request));
        let counted = spawn_blocking(move || count::count(request, &local_model)).await;
        let counts = counted.unwrap_or_else(|_| {
            let message = "the embedder failed to measure these texts";
            Err(Failure::new(FailureClass::BadReply, message))
        })?;
        Ok(Counts { most, ..counts })
    }

    /// Runs an order for a provider's batch API.
    pub(super) async fn batch(&self, request: BatchRequest) -> Result<BatchAnswer, Failure> {
        let _counted = InFlight::count(&self.in_flight);
        if !request.provider.kind.has_batch_api() {
            let message = format!("provider \"{}\" has no batch API", request.provider.name);
            return Err(Failure::new(FailureClass::Refused, message));
        }
        self.remote.batch(request).await
    }

    /// Sends a request to its provider and validates the answer.
    async fn ask(&self, client_id: u64, request: Request) -> Result<Embeddings, Failure> {
        let (count, dimensions) = (request.texts.len(), request.model.dimensions as usize);
        let embeddings = match request.provider.kind {
            Kind::Local => self.local.embed(client_id, request).await?,
            Kind::Test => hashed::embed(&request),
            _ => self.remote.embed(client_id, request).await?,
        };
        let dimensions = if dimensions == 0 { embeddings.dimensions } else { dimensions };
        let values = count * dimensions;
        if embeddings.count() != count || embeddings.values.len() != values {
            let message = format!(
                "provider returned {} numbers for {count} texts of {dimensions} dimensions",
                embeddings.values.len()
            );
            return Err(Failure::new(FailureClass::BadReply, message));
        }
        Ok(embeddings)
    }
}

/// Puts the model's prefix for queries or documents in front of each text. Limits and the cache apply to the text with
/// its prefix.
fn put_prefix_in_front(request: &mut Request) {
    let query = std::mem::take(&mut request.model.query_prefix);
    let document = std::mem::take(&mut request.model.document_prefix);
    let prefix = match request.input_type {
        InputType::Query => query,
        InputType::Document => document,
    };
    put_in_front(&prefix, &mut request.texts);
}

/// Puts a prefix in front of each text.
pub(super) fn put_in_front(prefix: &str, texts: &mut [String]) {
    if !prefix.is_empty() {
        texts.iter_mut().for_each(|text| text.insert_str(0, prefix));
    }
}

/// A request that is being answered; it counts until this is dropped, even if its client has disconnected.
struct InFlight<'a>(&'a AtomicU64);

impl InFlight<'_> {
    fn count(requests: &AtomicU64) -> InFlight<'_> {
        requests.fetch_add(1, Ordering::Relaxed);
        InFlight(requests)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
