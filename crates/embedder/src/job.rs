//! Requests to the local model, and the queue they wait in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embedd_wire::{Embeddings, Failure, FailureClass, Priority, Request};
use tokio::sync::oneshot;

use super::local::{Model, Tokens};

/// The most texts in a batch.
const BATCH_TEXTS: usize = 32;

/// The most word pieces in a batch, unless one text has more: a question may have to wait for a whole batch.
const BATCH_TOKENS: usize = 512;

/// The most bytes of text tokenized in one task, unless one text has more.
const TOKENIZE_BYTES: usize = 64 << 10;

/// The outcome of a request.
pub type Outcome = Result<Embeddings, Failure>;

/// Distinct texts by number, as word pieces, to be embedded together.
pub type Batch = Vec<(usize, Tokens)>;

/// A request to the local model.
pub struct Job {
    /// The client that sent it.
    pub client_id: u64,
    /// Its priority.
    pub priority: Priority,
    /// The dimensions of its vectors.
    pub dimensions: usize,
    /// Its state.
    pub progress: Mutex<Progress>,
}

/// The state of a job.
pub struct Progress {
    /// The model it began with; it finishes with the same.
    pub model: Option<Arc<Model>>,
    /// For each text of the request, its number among the distinct texts.
    slots: Vec<usize>,
    /// Distinct texts that are not tokenized yet.
    texts: VecDeque<String>,
    tokens: Vec<Tokens>,
    /// Batches that no thread has taken yet.
    batches: Vec<Batch>,
    truncated: Vec<bool>,
    vectors: Vec<Vec<f32>>,
    /// Distinct texts that have no vector yet.
    missing: usize,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// The next task of a job.
pub enum Task {
    /// Nothing is left, or the client has gone.
    Nothing,
    /// Tokenize these texts.
    Tokenize(Vec<String>),
    /// Embed this batch; the flag says whether there are more.
    Embed(Batch, bool),
}

impl Job {
    /// A job whose outcome goes to `reply`; duplicates are embedded once.
    pub fn new(client_id: u64, request: Request, reply: oneshot::Sender<Outcome>) -> Job {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut slots = Vec::with_capacity(request.texts.len());
        let mut firsts = Vec::with_capacity(request.texts.len());
        for text in &request.texts {
            let next = numbers.len();
            let number = *numbers.entry(text).or_insert(next);
            slots.push(number);
            firsts.push(number == next);
        }
        let missing = numbers.len();
        let texts = request.texts.into_iter().zip(firsts);
        let progress = Progress {
            model: None,
            slots,
            texts: texts.filter_map(|(text, first)| first.then_some(text)).collect(),
            tokens: Vec::new(),
            batches: Vec::new(),
            truncated: Vec::new(),
            vectors: vec![Vec::new(); missing],
            missing,
            reply: Some(reply),
        };
        Job {
            client_id,
            priority: request.priority,
            dimensions: request.model.dimensions as usize,
            progress: Mutex::new(progress),
        }
    }
}

impl Job {
    /// Checks that the model has the dimensions of the request.
    pub fn check_dimensions(&self, model: &Model) -> Result<(), Failure> {
        let (has, wanted) = (model.dimensions(), self.dimensions);
        if has == wanted {
            return Ok(());
        }
        let message = format!("local model makes vectors of {has} dimensions, not {wanted}");
        Err(Failure::new(FailureClass::Refused, message)
            .with_hint(format!("Leave the dimensions out, or set them to {has}.")))
    }
}

impl Progress {
    /// Whether the client still waits for the outcome.
    pub fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Sends the outcome, unless one was sent before.
    pub fn answer(&mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            // The client may have gone meanwhile.
            let _ = reply.send(outcome);
        }
    }

    /// Takes the next task out, so that no other thread does it too.
    pub fn next_task(&mut self) -> Task {
        if !self.is_awaited() {
            return Task::Nothing;
        }
        let mut bytes = 0;
        let mut texts = Vec::new();
        while let Some(text) = self.texts.front() {
            bytes += text.len();
            if !texts.is_empty() && bytes > TOKENIZE_BYTES {
                break;
            }
            texts.extend(self.texts.pop_front());
        }
        if !texts.is_empty() {
            return Task::Tokenize(texts);
        }
        match self.batches.pop() {
            Some(batch) => Task::Embed(batch, !self.batches.is_empty()),
            None => Task::Nothing,
        }
    }

    /// Stores the word pieces of the texts taken last; when all texts are tokenized, makes the batches.
    pub fn add_tokens(&mut self, tokens: Vec<Tokens>) {
        self.truncated.extend(tokens.iter().map(|tokens| tokens.truncated));
        self.tokens.extend(tokens);
        if self.texts.is_empty() {
            let mut sorted: Batch =
                std::mem::take(&mut self.tokens).into_iter().enumerate().collect();
            sorted.sort_by_key(|(_, tokens)| tokens.ids.len());
            self.batches = batches(sorted);
        }
    }

    /// Stores the vectors of a batch; the last batch completes the job.
    pub fn add_vectors(
        &mut self,
        batch: &[(usize, Tokens)],
        vectors: Vec<Vec<f32>>,
        dimensions: usize,
    ) {
        for ((number, _), vector) in batch.iter().zip(vectors) {
            self.vectors[*number] = vector;
        }
        self.missing = self.missing.saturating_sub(batch.len());
        if self.missing == 0 {
            let mut values = Vec::with_capacity(self.slots.len() * dimensions);
            self.slots.iter().for_each(|slot| values.extend_from_slice(&self.vectors[*slot]));
            let truncated = self.slots.iter().map(|slot| self.truncated[*slot]).collect();
            self.answer(Ok(Embeddings { dimensions, values, truncated, ..Embeddings::default() }));
        }
    }
}

/// Groups texts into batches, keeping their order.
fn batches(texts: Batch) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut pieces = 0;
    for (number, tokens) in texts {
        pieces += tokens.ids.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_TEXTS && pieces <= BATCH_TOKENS => {
                batch.push((number, tokens));
            }
            _ => {
                pieces = tokens.ids.len();
                batches.push(vec![(number, tokens)]);
            }
        }
    }
    batches
}

/// A queue in which clients take turns.
#[derive(Default)]
pub struct JobQueue(VecDeque<Client>);

/// The jobs of one client, at least one.
struct Client {
    id: u64,
    jobs: VecDeque<Arc<Job>>,
}

impl JobQueue {
    /// Appends a job to its client's queue.
    pub fn push(&mut self, job: Arc<Job>) {
        self.jobs(job.client_id).push_back(job);
    }

    /// Puts a job in front of its client's queue.
    pub fn put_back(&mut self, job: Arc<Job>) {
        self.jobs(job.client_id).push_front(job);
    }

    /// Takes the first job of the client whose turn it is; that client then goes to the end.
    pub fn take(&mut self) -> Option<Arc<Job>> {
        let mut client = self.0.pop_front()?;
        let job = client.jobs.pop_front();
        if !client.jobs.is_empty() {
            self.0.push_back(client);
        }
        job
    }

    /// Drops jobs whose clients have gone.
    pub fn purge(&mut self) {
        for client in &mut self.0 {
            client.jobs.retain(|job| lock(&job.progress).is_awaited());
        }
        self.0.retain(|client| !client.jobs.is_empty());
    }

    fn jobs(&mut self, id: u64) -> &mut VecDeque<Arc<Job>> {
        let at = self.0.iter().position(|client| client.id == id).unwrap_or_else(|| {
            self.0.push_back(Client { id, jobs: VecDeque::new() });
            self.0.len() - 1
        });
        &mut self.0[at].jobs
    }
}

/// Locks a mutex even if another thread panicked while it held the lock: no state is left half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
