//! Requests to remote services: one dispatcher an account, and one HTTP client with one connection pool for all.

mod allowance;
mod batch;
mod caps;
mod count;
mod dispatcher;
mod failure;
mod group;
mod http;
mod completion;
mod fair_queue;
mod load;
mod bisect;
mod pacer;
mod size;
mod pending;
mod timeouts;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use embedd_wire::{
    AccountId, CountRequest, Embeddings, Failure, FailureClass, Model, MostOfRequest, Provider,
    Request, account,
};
use reqwest::Client;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use self::caps::caps;
use self::dispatcher::{Dispatcher, Message};
use self::group::GroupKey;
use self::size::{LimitChange, Size};
use super::job::{Outcome, lock};
use super::learned_limits::LearnedLimits;
use super::log::LogSender;
use super::usage::Ledger;

/// Requests with more bytes of text than this are tokenized off the event loop's thread.
const MEASURE_APART: usize = 64 << 10;

/// The dispatchers of all accounts.
pub struct Remote {
    shared: Arc<Shared>,
    dispatchers: Mutex<HashMap<AccountId, mpsc::UnboundedSender<Message>>>,
    last_request_id: AtomicU64,
    /// The turns of orders for batch APIs, by database and foreign server.
    turns: Mutex<HashMap<(u32, u32), Arc<Semaphore>>>,
}

/// What the dispatchers share.
pub struct Shared {
    ca_file: Mutex<Option<PathBuf>>,
    /// Created on first use, since that reads the system's certificates.
    client: AsyncMutex<Option<Client>>,
    log: LogSender,
    ledger: Arc<Mutex<Ledger>>,
    learned: Arc<Mutex<LearnedLimits>>,
}

impl Shared {
    /// The limits learned for a model of a provider.
    fn size_of(&self, provider: &Provider, model: &Model, now: Instant) -> Size {
        Size::with_limits(&lock(&self.learned).of(provider, model), now)
    }

    /// Stores or removes a learned limit.
    fn learn(&self, provider: &Provider, model: &Model, change: LimitChange) {
        lock(&self.learned).note(provider, model, change.measure, change.most);
    }

    /// The HTTP client that all requests use.
    pub async fn client(&self) -> Result<Client, Failure> {
        let mut known = self.client.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let path = lock(&self.ca_file).clone();
        let made = spawn_blocking(move || http::client(path.as_deref())).await;
        let client = made.unwrap_or_else(|_| {
            let message = "could not prepare connections to providers";
            Err(Failure::new(FailureClass::BadSetting, message))
        })?;
        *known = Some(client.clone());
        Ok(client)
    }
}

impl Remote {
    /// No dispatchers and no connections yet.
    pub fn new(
        ca_file: Option<PathBuf>,
        log: LogSender,
        ledger: Arc<Mutex<Ledger>>,
        learned: Arc<Mutex<LearnedLimits>>,
    ) -> Remote {
        let (ca_file, client) = (Mutex::new(ca_file), AsyncMutex::new(None));
        Remote {
            shared: Arc::new(Shared { ca_file, client, log, ledger, learned }),
            dispatchers: Mutex::default(),
            last_request_id: AtomicU64::new(0),
            turns: Mutex::default(),
        }
    }

    /// Applies another file of certificates; new connections use it, and the system's store as it is now.
    pub async fn reconfigure(&self, ca_file: Option<PathBuf>) {
        *lock(&self.shared.ca_file) = ca_file;
        *self.shared.client.lock().await = None;
    }

    /// What a request for these texts would hold, by options, catalog and what has been learned.
    pub fn most_of_request(&self, request: &CountRequest) -> MostOfRequest {
        let (provider, model, now) = (&request.provider, &request.model, Instant::now());
        let most = self.shared.size_of(provider, model, now).most(caps(provider, model), now);
        MostOfRequest { texts: most.texts, tokens: most.tokens, bytes: most.bytes }
    }

    /// The turn of orders for the batch API of a provider.
    fn turn(&self, provider: &Provider) -> Arc<Semaphore> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = turns.entry((provider.database, provider.server));
        turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Embeds a request's texts; dropping the returned future cancels the request.
    pub async fn embed(&self, client_id: u64, request: Request) -> Outcome {
        if request.texts.is_empty() {
            let dimensions = request.model.dimensions as usize;
            return Ok(Embeddings { dimensions, ..Embeddings::default() });
        }
        let id = self.last_request_id.fetch_add(1, Ordering::Relaxed);
        let (reply, receiver) = oneshot::channel();
        let bytes: usize = request.texts.iter().map(String::len).sum();
        let kind = request.provider.kind;
        let (submitted, request) = match bytes > MEASURE_APART {
            false => (pending::submit(id, client_id, &request, kind, reply), request),
            true => {
                let work = move || (pending::submit(id, client_id, &request, kind, reply), request);
                spawn_blocking(work).await.map_err(|_| {
                    let message = "the embedder failed to measure these texts";
                    Failure::new(FailureClass::BadReply, message)
                })?
            }
        };
        let submitted = Box::new(submitted);
        let dispatcher = self.dispatcher(&request);
        let provider = Box::new(request.provider);
        let (model, input_type, is_test) = (request.model, request.input_type, request.is_test);
        let key = GroupKey { model, input_type, is_test };
        let message = Message::Submit { id, submitted, provider, key, more: request.more };
        let mut waiting = Waiting { dispatcher: dispatcher.clone(), id, receiver, answered: false };
        // A dispatcher that has just closed drops the message; the receiver then reports that below.
        let _ = dispatcher.send(message);
        let outcome = (&mut waiting.receiver).await;
        waiting.answered = true;
        outcome.unwrap_or_else(|_| {
            let message = "the embedder is shutting down";
            Err(Failure::new(FailureClass::Unavailable, message))
        })
    }

    /// The dispatcher of a request's account, started if there is none.
    fn dispatcher(&self, request: &Request) -> mpsc::UnboundedSender<Message> {
        let mut dispatchers = lock(&self.dispatchers);
        dispatchers.retain(|_, dispatcher| !dispatcher.is_closed());
        let dispatcher = dispatchers.entry(account(&request.provider)).or_insert_with(|| {
            let (sender, inbox) = mpsc::unbounded_channel();
            let dispatcher = Dispatcher::new(self.shared.clone(), request.provider.clone());
            tokio::spawn(dispatcher.run(inbox));
            sender
        });
        dispatcher.clone()
    }
}

/// The client's wait for a pending request; dropping it before the answer cancels the request.
struct Waiting {
    dispatcher: mpsc::UnboundedSender<Message>,
    id: u64,
    receiver: oneshot::Receiver<Outcome>,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.receiver.close();
            let _ = self.dispatcher.send(Message::Cancelled(self.id));
        }
    }
}
