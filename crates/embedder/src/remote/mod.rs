//! The outside world: every account with a service has a desk of its own, all share one pool of connections.

mod count;
mod desk;
mod failure;
mod group;
mod http;
mod landing;
mod line;
mod load;
mod mending;
mod pacer;
mod size;
mod ticket;
mod timeouts;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use embedd_wire::{
    AccountId, Embeddings, Failure, FailureClass, Model, Provider, Request, account,
};
use reqwest::Client;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::spawn_blocking;

use self::desk::{Desk, Message};
use self::group::GroupKey;
use self::size::{Lesson, Size};
use super::job::{Outcome, lock};
use super::learned::Learned;
use super::log::LogSender;
use super::usage::Ledger;

/// Bytes of text that are measured apart from the thread that serves everybody.
const MEASURE_APART: usize = 64 << 10;

/// The way to all services.
pub struct Remote {
    shared: Arc<Shared>,
    desks: Mutex<HashMap<AccountId, mpsc::UnboundedSender<Message>>>,
    last_ticket: AtomicU64,
}

/// What the desks share.
pub struct Shared {
    ca_file: Mutex<Option<PathBuf>>,
    /// Made when it is first needed: that reads the certificates of the system.
    client: AsyncMutex<Option<Client>>,
    log: LogSender,
    ledger: Arc<Mutex<Ledger>>,
    learned: Arc<Mutex<Learned>>,
}

impl Shared {
    /// What is known of how much a model of a provider takes at once.
    fn size_of(&self, provider: &Provider, model: &Model, now: Instant) -> Size {
        Size::knowing(&lock(&self.learned).of(provider, model), now)
    }

    /// Keeps what was learned of it.
    fn learn(&self, provider: &Provider, model: &Model, lesson: Lesson) {
        lock(&self.learned).note(provider, model, lesson.measure, lesson.most);
    }

    /// The client all requests go through.
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
    /// Without any connection, so far.
    pub fn new(
        ca_file: Option<PathBuf>,
        log: LogSender,
        ledger: Arc<Mutex<Ledger>>,
        learned: Arc<Mutex<Learned>>,
    ) -> Remote {
        let (ca_file, client) = (Mutex::new(ca_file), AsyncMutex::new(None));
        Remote {
            shared: Arc::new(Shared { ca_file, client, log, ledger, learned }),
            desks: Mutex::default(),
            last_ticket: AtomicU64::new(0),
        }
    }

    /// Takes another file of certificates on; new connections go by it, and by the system's store as it is now.
    pub async fn reconfigure(&self, ca_file: Option<PathBuf>) {
        *lock(&self.shared.ca_file) = ca_file;
        *self.shared.client.lock().await = None;
    }

    /// Embeds a request's texts; when the returned future is dropped, nobody wants them any more.
    pub async fn embed(&self, lane: u64, request: Request) -> Outcome {
        if request.texts.is_empty() {
            let dimensions = request.model.dimensions as usize;
            return Ok(Embeddings { dimensions, ..Embeddings::default() });
        }
        let id = self.last_ticket.fetch_add(1, Ordering::Relaxed);
        let (reply, receiver) = oneshot::channel();
        let bytes: usize = request.texts.iter().map(String::len).sum();
        let kind = request.provider.kind;
        let (submitted, request) = match bytes > MEASURE_APART {
            false => (ticket::submit(id, lane, &request, kind, reply), request),
            true => {
                let work = move || (ticket::submit(id, lane, &request, kind, reply), request);
                spawn_blocking(work).await.map_err(|_| {
                    let message = "the embedder failed to measure these texts";
                    Failure::new(FailureClass::BadReply, message)
                })?
            }
        };
        let submitted = Box::new(submitted);
        let desk = self.desk(&request);
        let provider = Box::new(request.provider);
        let (model, input_type, is_test) = (request.model, request.input_type, request.is_test);
        let key = GroupKey { model, input_type, is_test };
        let message = Message::Submit { id, submitted, provider, key, more: request.more };
        let mut waiting = Waiting { desk: desk.clone(), id, receiver, answered: false };
        // A desk that has just closed drops what it is given, and that is told below.
        let _ = desk.send(message);
        let outcome = (&mut waiting.receiver).await;
        waiting.answered = true;
        outcome.unwrap_or_else(|_| {
            let message = "the embedder is shutting down";
            Err(Failure::new(FailureClass::Unavailable, message))
        })
    }

    /// The desk of a request's account, opened if it is not.
    fn desk(&self, request: &Request) -> mpsc::UnboundedSender<Message> {
        let mut desks = lock(&self.desks);
        desks.retain(|_, desk| !desk.is_closed());
        let desk = desks.entry(account(&request.provider)).or_insert_with(|| {
            let (sender, inbox) = mpsc::unbounded_channel();
            let desk = Desk::new(self.shared.clone(), request.provider.clone());
            tokio::spawn(desk.run(inbox));
            sender
        });
        desk.clone()
    }
}

/// Somebody who waits for a ticket, and who says so when they go.
struct Waiting {
    desk: mpsc::UnboundedSender<Message>,
    id: u64,
    receiver: oneshot::Receiver<Outcome>,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.receiver.close();
            let _ = self.desk.send(Message::Gone(self.id));
        }
    }
}
