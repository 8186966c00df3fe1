//! Runs the local model on threads of its own: some for questions, and some for documents, which give way to questions.
//!
//! Changes go before backfills, and each connection has its turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embedd_wire::{Config, Embeddings, Failure, FailureClass, LOCAL_MODEL, LogLevel, Request};
use tokio::sync::oneshot;

use super::crew::{Crew, lower_priority, thread_count};
use super::job::{Job, Lanes, Outcome, Task, lock};
use super::loading::load;
use super::local::{Gate, Model, Precedence, Scratch, Tokens};
use super::log::LogSender;

/// How long a model that could not be loaded is not tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// The local model and its threads; both are made when the first request needs them.
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// A scheduler without threads and without a model, so far.
    pub fn new(config: &Config, log: LogSender) -> Scheduler {
        Scheduler::with_gate(config, log, Arc::default())
    }

    /// The same, where questions pass documents at this gate.
    pub fn with_gate(config: &Config, log: LogSender, gate: Arc<Gate>) -> Scheduler {
        let state = State {
            path: config.local_model_path.clone(),
            generation: 0,
            wanted: thread_count(config.local_threads),
            threads: [0; 2],
            idle_unload: config.local_idle_unload,
            lanes: Default::default(),
            model: Slot::Empty,
            busy: 0,
            last_used: Instant::now(),
            stopping: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            changed: Default::default(),
            loaded: Condvar::new(),
            gate,
            log,
        };
        Scheduler { shared: Arc::new(shared) }
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
        for crew in Crew::ALL {
            if state.threads[crew as usize] > 0 {
                // With too few of them the work goes on, only slower; the next request tries again.
                let _ = ensure_threads(&self.shared, &mut state, crew);
            }
        }
        self.shared.wake_all();
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
        self.shared.wake_all();
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
    /// There may be something to do for a thread of a crew.
    changed: [Condvar; 2],
    /// A model was loaded, or could not be.
    loaded: Condvar,
    gate: Arc<Gate>,
    log: LogSender,
}

/// What is to be done, with what, and by how many.
struct State {
    path: PathBuf,
    /// Counts the changes of the path.
    generation: u64,
    /// Threads of each crew.
    wanted: usize,
    threads: [usize; 2],
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
        let crew = Crew::of(job.priority);
        let mut state = lock(&self.state);
        ensure_threads(self, &mut state, crew).map_err(|error| {
            let message = "could not start a thread for the local model";
            Failure::new(FailureClass::Unavailable, message)
                .with_detail(format!("The operating system says: {error}."))
        })?;
        state.lanes[job.priority as usize].push(Arc::new(job));
        self.changed[crew as usize].notify_one();
        Ok(())
    }

    /// What a thread does, until it is not needed any more.
    fn work(&self, crew: Crew) {
        let mut scratch = match crew {
            Crew::Questions => Scratch::default(),
            Crew::Documents => {
                lower_priority();
                Scratch::giving_way(self.gate.clone())
            }
        };
        let mut precedence = None;
        while let Some(job) = self.next(crew, &mut precedence, &mut scratch) {
            let step = catch_unwind(AssertUnwindSafe(|| self.step(&job, &mut scratch)));
            let failure = match step {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => {
                    scratch.clear();
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
    ///
    /// A thread has precedence over documents from its first question until there is none for it any more.
    fn next<'a>(
        &'a self,
        crew: Crew,
        precedence: &mut Option<Precedence<'a>>,
        scratch: &mut Scratch,
    ) -> Option<Arc<Job>> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping || state.threads[crew as usize] > state.wanted {
                state.threads[crew as usize] -= 1;
                *precedence = None;
                return None;
            }
            if let Some(job) = state.lanes[crew.priorities()].iter_mut().find_map(Lanes::take) {
                state.busy += 1;
                if crew == Crew::Questions && precedence.is_none() {
                    *precedence = Some(self.gate.enter());
                }
                return Some(job);
            }
            *precedence = None;
            let loaded = matches!(state.model, Slot::Loaded(_));
            if !loaded {
                scratch.clear();
            }
            let idle = state.idle_unload.filter(|_| loaded && state.busy == 0);
            let idle = idle.map(|idle| idle.saturating_sub(state.last_used.elapsed()));
            state = match idle {
                Some(Duration::ZERO) => {
                    let model = std::mem::replace(&mut state.model, Slot::Empty);
                    self.wake_all();
                    drop(state);
                    drop(model);
                    give_memory_back();
                    let line = "unloaded the local model, which nobody used";
                    self.log.send(LogLevel::Debug, line);
                    lock(&self.state)
                }
                rest => wait(&self.changed[crew as usize], state, rest.unwrap_or(Duration::MAX)),
            };
        }
    }

    /// Has all threads look at the state again.
    fn wake_all(&self) {
        self.changed.iter().for_each(Condvar::notify_all);
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
                let tokenize = |text: &String| {
                    scratch.give_way();
                    model.tokenize(text)
                };
                let tokens = texts.iter().map(tokenize).collect();
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
        self.changed[Crew::of(job.priority) as usize].notify_one();
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
                    state = wait(&self.loaded, state, Duration::MAX);
                    continue;
                }
                Slot::Empty | Slot::Failed(..) => {}
            }
            state.model = Slot::Loading;
            let (path, generation) = (state.path.clone(), state.generation);
            drop(state);
            let slot = match load(&path, &self.log) {
                Ok(model) => Slot::Loaded(model),
                Err(failure) => Slot::Failed(Instant::now(), failure),
            };
            state = lock(&self.state);
            // Meanwhile the setting may have changed: then this model is not the one that is wanted.
            if state.generation == generation {
                state.model = slot;
            }
            self.loaded.notify_all();
        }
    }
}

/// Waits until it is told that the state has changed, or so long.
fn wait<'a>(
    changed: &Condvar,
    state: MutexGuard<'a, State>,
    most: Duration,
) -> MutexGuard<'a, State> {
    changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
}

/// Starts a crew's threads that are missing; an error when there is none at all.
fn ensure_threads(shared: &Arc<Shared>, state: &mut State, crew: Crew) -> std::io::Result<()> {
    while state.threads[crew as usize] < state.wanted {
        let worker = shared.clone();
        let builder = std::thread::Builder::new().name(crew.thread_name().to_string());
        match builder.spawn(move || worker.work(crew)) {
            Ok(_) => state.threads[crew as usize] += 1,
            Err(error) if state.threads[crew as usize] == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Hands freed memory back to the operating system, so that an unloaded model is really gone.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call may be made at any time by any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
