//! Runs the local model on threads of its own: questions first, then changes, then backfills, each connection in turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use embedd_wire::{Config, Embeddings, Failure, FailureClass, LOCAL_MODEL, LogLevel, Request};
use tokio::sync::oneshot;

use super::job::{Job, Lanes, Outcome, Task, lock};
use super::local::{Model, ModelError, Scratch, Tokens};
use super::log::LogSender;

/// How long a model that could not be loaded is not tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// What helps against a model that is not there or not right.
const MODEL_HINT: &str = "Run make model PG_CONFIG=..., or set embedd.local_model_path to a directory \
                          that has the model's files.";

/// The local model and its threads; both are made when the first request needs them.
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// A scheduler without threads and without a model, so far.
    pub fn new(config: &Config, log: LogSender) -> Scheduler {
        let state = State {
            path: config.local_model_path.clone(),
            generation: 0,
            wanted: thread_count(config.local_threads),
            threads: 0,
            idle_unload: config.local_idle_unload,
            lanes: Default::default(),
            model: Slot::Empty,
            busy: 0,
            last_used: Instant::now(),
            stopping: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { state, changed, log });
        Scheduler { shared }
    }

    /// Takes other settings on; requests that have begun are finished with the model they began with.
    pub fn reconfigure(&self, config: &Config) {
        let mut state = lock(&self.shared.state);
        if state.path != config.local_model_path {
            state.path = config.local_model_path.clone();
            state.generation += 1;
            state.model = Slot::Empty;
        }
        state.wanted = thread_count(config.local_threads);
        state.idle_unload = config.local_idle_unload;
        if state.threads > 0 {
            // With too few of them the work goes on, only slower; the next request tries again.
            let _ = ensure_threads(&self.shared, &mut state);
        }
        self.shared.changed.notify_all();
    }

    /// Whether the model is in memory.
    pub fn is_loaded(&self) -> bool {
        matches!(lock(&self.shared.state).model, Slot::Loaded(_))
    }

    /// Embeds a request's texts; when the returned future is dropped, what has not begun is not done.
    ///
    /// The lane is whom the request came from: lanes take turns, and one's requests are served in their order.
    pub async fn embed(&self, lane: u64, request: Request) -> Outcome {
        if request.model.name != LOCAL_MODEL {
            let message = format!("unknown local model \"{}\"", request.model.name);
            return Err(Failure::new(FailureClass::Refused, message)
                .with_detail(format!("The local model is \"{LOCAL_MODEL}\".")));
        }
        if request.texts.is_empty() {
            let dimensions = request.model.dimensions as usize;
            return Ok(Embeddings { dimensions, ..Embeddings::default() });
        }
        let (reply, receiver) = oneshot::channel();
        self.shared.submit(Job::new(lane, request, reply))?;
        let mut waiting = Waiting { shared: &self.shared, receiver, answered: false };
        let outcome = (&mut waiting.receiver).await;
        waiting.answered = true;
        let message = "the embedder is shutting down";
        outcome.unwrap_or_else(|_| Err(Failure::new(FailureClass::Unavailable, message)))
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.stopping = true;
        state.lanes = Default::default();
        self.shared.changed.notify_all();
    }
}

/// Somebody who waits for a job, which leaves the queue when they go.
struct Waiting<'a> {
    shared: &'a Shared,
    receiver: oneshot::Receiver<Outcome>,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.receiver.close();
            let mut state = lock(&self.shared.state);
            state.lanes.iter_mut().for_each(Lanes::purge);
        }
    }
}

/// What the threads share. Whoever holds the state may lock a job's progress, never the other way round.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    log: LogSender,
}

/// What is to be done, with what, and by how many.
struct State {
    path: PathBuf,
    /// Counts the changes of the path.
    generation: u64,
    wanted: usize,
    threads: usize,
    idle_unload: Option<Duration>,
    /// What waits, by priority.
    lanes: [Lanes; 3],
    model: Slot,
    /// Threads at work.
    busy: usize,
    last_used: Instant,
    stopping: bool,
}

/// The model, as far as it is there.
enum Slot {
    Empty,
    Loading,
    Loaded(Arc<Model>),
    Failed(Instant, Failure),
}

impl Shared {
    /// Puts a job into its queue.
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        ensure_threads(self, &mut state).map_err(|error| {
            let message = "could not start a thread for the local model";
            Failure::new(FailureClass::Unavailable, message)
                .with_detail(format!("The operating system says: {error}."))
        })?;
        state.lanes[job.priority as usize].push(Arc::new(job));
        self.changed.notify_one();
        Ok(())
    }

    /// What a thread does, until it is not needed any more.
    fn work(&self) {
        lower_priority();
        let mut scratch = Scratch::default();
        while let Some(job) = self.next(&mut scratch) {
            let step = catch_unwind(AssertUnwindSafe(|| self.step(&job, &mut scratch)));
            let failure = match step {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => {
                    scratch = Scratch::default();
                    let message = "the local model failed on these texts";
                    Some(Failure::new(FailureClass::BadReply, message))
                }
            };
            if let Some(failure) = failure {
                lock(&job.progress).answer(Err(failure));
            }
            let mut state = lock(&self.state);
            state.busy -= 1;
            state.last_used = Instant::now();
        }
    }

    /// Waits for the next job; none when the thread is not needed any more. Unloads a model nobody uses.
    fn next(&self, scratch: &mut Scratch) -> Option<Arc<Job>> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping || state.threads > state.wanted {
                state.threads -= 1;
                return None;
            }
            if let Some(job) = state.lanes.iter_mut().find_map(Lanes::take) {
                state.busy += 1;
                return Some(job);
            }
            let loaded = matches!(state.model, Slot::Loaded(_));
            if !loaded {
                *scratch = Scratch::default();
            }
            let idle = state.idle_unload.filter(|_| loaded && state.busy == 0);
            let idle = idle.map(|idle| idle.saturating_sub(state.last_used.elapsed()));
            state = match idle {
                Some(Duration::ZERO) => {
                    let model = std::mem::replace(&mut state.model, Slot::Empty);
                    self.changed.notify_all();
                    drop(state);
                    drop(model);
                    give_memory_back();
                    let line = "unloaded the local model, which nobody used";
                    self.log.send(LogLevel::Debug, line);
                    lock(&self.state)
                }
                rest => self.wait(state, rest.unwrap_or(Duration::MAX)),
            };
        }
    }

    /// Waits for a change of the state, or so long.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let woken = self.changed.wait_timeout(state, most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Does the next piece of a job.
    fn step(&self, job: &Arc<Job>, scratch: &mut Scratch) -> Result<(), Failure> {
        let known = lock(&job.progress).model.clone();
        let model = match known {
            Some(model) => model,
            None => {
                let model = self.model()?;
                job.check_dimensions(&model)?;
                lock(&job.progress).model = Some(model.clone());
                model
            }
        };
        let task = lock(&job.progress).next_task();
        match task {
            Task::Nothing => {}
            Task::Tokenize(texts) => {
                let tokens = texts.iter().map(|text| model.tokenize(text)).collect();
                lock(&job.progress).add_tokens(tokens);
                self.put_back(job);
            }
            Task::Embed(batch, more) => {
                if more {
                    self.put_back(job);
                }
                let tokens: Vec<&Tokens> = batch.iter().map(|(_, tokens)| tokens).collect();
                let vectors = model.embed(&tokens, scratch);
                if !vectors.iter().flatten().all(|value| value.is_finite()) {
                    let message = "the local model made a vector that is none";
                    return Err(Failure::new(FailureClass::BadReply, message));
                }
                lock(&job.progress).add_vectors(&batch, vectors, job.dimensions);
            }
        }
        Ok(())
    }

    /// Puts a job with more to do in front of its lane's others.
    fn put_back(&self, job: &Arc<Job>) {
        lock(&self.state).lanes[job.priority as usize].put_back(job.clone());
        self.changed.notify_one();
    }

    /// The model, loaded if it is not there; only one thread loads it, the others wait.
    fn model(&self) -> Result<Arc<Model>, Failure> {
        let mut state = lock(&self.state);
        loop {
            match &state.model {
                Slot::Loaded(model) => return Ok(model.clone()),
                Slot::Failed(when, failure) if when.elapsed() < FAILURE_KEPT => {
                    return Err(failure.clone());
                }
                Slot::Loading => {
                    state = self.wait(state, Duration::MAX);
                    continue;
                }
                Slot::Empty | Slot::Failed(..) => {}
            }
            state.model = Slot::Loading;
            let (path, generation) = (state.path.clone(), state.generation);
            drop(state);
            let slot = self.load(&path);
            state = lock(&self.state);
            // Meanwhile the setting may have changed: then this model is not the one that is wanted.
            if state.generation == generation {
                state.model = slot;
            }
            self.changed.notify_all();
        }
    }

    /// Reads the model's files.
    fn load(&self, path: &Path) -> Slot {
        let begin = Instant::now();
        let failure = match catch_unwind(|| Model::open(path)) {
            Ok(Ok(model)) => {
                let (path, took) = (path.display(), begin.elapsed().as_millis());
                let line = format!(
                    "loaded the local model from \"{path}\" in {took} ms ({})",
                    model.instructions().name()
                );
                self.log.send(LogLevel::Log, line);
                return Slot::Loaded(Arc::new(model));
            }
            Ok(Err(error)) => load_failure(&error),
            Err(_) => Failure::new(FailureClass::BadSetting, "local model is damaged")
                .with_detail(format!("Its files are in \"{}\".", path.display())),
        };
        let detail = failure.detail.as_deref().unwrap_or_default();
        let line = format!("{failure}: {detail}");
        self.log.send(LogLevel::Warning, line);
        Slot::Failed(Instant::now(), failure)
    }
}

/// How many threads a setting means; 0 is half of the processors.
fn thread_count(setting: usize) -> usize {
    match setting {
        0 => (available_parallelism().map_or(1, usize::from) / 2).max(1),
        count => count,
    }
}

/// Starts the threads that are missing; an error when there is none at all.
fn ensure_threads(shared: &Arc<Shared>, state: &mut State) -> std::io::Result<()> {
    while state.threads < state.wanted {
        let worker = shared.clone();
        let builder = std::thread::Builder::new().name("embedd local".to_string());
        match builder.spawn(move || worker.work()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

/// What a model that cannot be loaded looks like to those who asked for it.
fn load_failure(error: &ModelError) -> Failure {
    let (message, hint) = match error {
        ModelError::Missing { .. } => ("local model is missing", MODEL_HINT),
        ModelError::Unreadable { .. } => (
            "local model cannot be read",
            "Let the operating system user of the server read the model's files.",
        ),
        ModelError::Damaged { .. } => ("local model is damaged", MODEL_HINT),
        ModelError::Unsupported { .. } => ("local model is of an unknown kind", MODEL_HINT),
    };
    let mut detail = format!("{error}.");
    if let Some(first) = detail.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let failure = Failure::new(FailureClass::BadSetting, message);
    failure.with_detail(detail).with_hint(hint)
}

/// Lets the calling thread run after those of sessions.
fn lower_priority() {
    // Elsewhere the niceness is the process's, and the embedder's answers would wait as well.
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only; on Linux process 0 means the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10)
    };
}

/// Hands freed memory back to the operating system, so that an unloaded model is really gone.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call may be made at any time by any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
