//! Requests on their way through the local model, and the queue they wait in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embedd_wire::{Embeddings, Failure, FailureClass, Priority, Request};
use tokio::sync::oneshot;

use super::local::{Model, Tokens};

/// Texts that are embedded together, at most.
const BATCH_TEXTS: usize = 32;

/// Word pieces that are embedded together, unless one text has more: what a question may have to wait for.
const BATCH_TOKENS: usize = 512;

/// Bytes of text that are cut into word pieces together, unless one text has more.
const TOKENIZE_BYTES: usize = 64 << 10;

/// What a request comes to.
pub type Outcome = Result<Embeddings, Failure>;

/// Different texts by their number, as word pieces, to be embedded together.
pub type Batch = Vec<(usize, Tokens)>;

/// A request on its way through the model.
pub struct Job {
    /// Whom it came from.
    pub lane: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Numbers a vector shall have.
    pub dimensions: usize,
    /// How far it has come.
    pub progress: Mutex<Progress>,
}

/// How far a job has come.
pub struct Progress {
    /// The model it began with, and is finished with.
    pub model: Option<Arc<Model>>,
    /// For each text of the request, its number among the different ones.
    slots: Vec<usize>,
    /// Different texts that are not word pieces yet.
    texts: VecDeque<String>,
    tokens: Vec<Tokens>,
    /// Batches that nobody has begun.
    batches: Vec<Batch>,
    truncated: Vec<bool>,
    vectors: Vec<Vec<f32>>,
    /// Different texts that have no vector yet.
    missing: usize,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// The next thing to be done for a job.
pub enum Task {
    /// It is answered, or nobody waits for it any more.
    Nothing,
    /// Cut these texts into word pieces.
    Tokenize(Vec<String>),
    /// Embed this batch; whether there are more of them.
    Embed(Batch, bool),
}

impl Job {
    /// A job whose outcome goes to `reply`; equal texts are embedded once.
    pub fn new(lane: u64, request: Request, reply: oneshot::Sender<Outcome>) -> Job {
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
            lane,
            priority: request.priority,
            dimensions: request.model.dimensions as usize,
            progress: Mutex::new(progress),
        }
    }
}

impl Job {
    /// Whether the model makes the vectors that were asked for.
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
    /// Whether somebody still waits for the outcome.
    pub fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Tells the outcome, if nothing was told before.
    pub fn answer(&mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            // Nobody may be waiting any more, and then nobody misses it.
            let _ = reply.send(outcome);
        }
    }

    /// What is to be done next; it is taken out, so nobody else does it too.
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

    /// Takes word pieces of the texts handed out last; those of the last texts of all make the batches.
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

    /// Takes the vectors of a batch; those of the last batch are the end of the job.
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

/// Cuts texts into batches, in the order they have.
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

/// A queue in which every lane has its turn.
#[derive(Default)]
pub struct Lanes(VecDeque<Lane>);

/// The jobs of one lane; there is at least one.
struct Lane {
    id: u64,
    jobs: VecDeque<Arc<Job>>,
}

impl Lanes {
    /// Adds a job behind its lane's others.
    pub fn push(&mut self, job: Arc<Job>) {
        self.jobs(job.lane).push_back(job);
    }

    /// Adds a job before its lane's others.
    pub fn put_back(&mut self, job: Arc<Job>) {
        self.jobs(job.lane).push_front(job);
    }

    /// Takes the first job of the lane whose turn it is; the lane's next turn comes last.
    pub fn take(&mut self) -> Option<Arc<Job>> {
        let mut lane = self.0.pop_front()?;
        let job = lane.jobs.pop_front();
        if !lane.jobs.is_empty() {
            self.0.push_back(lane);
        }
        job
    }

    /// Drops the jobs nobody waits for.
    pub fn purge(&mut self) {
        for lane in &mut self.0 {
            lane.jobs.retain(|job| lock(&job.progress).is_awaited());
        }
        self.0.retain(|lane| !lane.jobs.is_empty());
    }

    fn jobs(&mut self, id: u64) -> &mut VecDeque<Arc<Job>> {
        let at = self.0.iter().position(|lane| lane.id == id).unwrap_or_else(|| {
            self.0.push_back(Lane { id, jobs: VecDeque::new() });
            self.0.len() - 1
        });
        &mut self.0[at].jobs
    }
}

/// Locks, also after a panic of another holder: nothing here is left half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
