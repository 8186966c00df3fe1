//! Runs the local model on two pools of threads: one for questions, and one for documents, which yields to questions.
//!
//! Changes go before backfills, and connections take turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embedd_wire::{Config, Embeddings, Failure, FailureClass, LOCAL_MODEL, LogLevel, Request};
use tokio::sync::oneshot;

use super::job::{Job, JobQueue, Outcome, Task, lock};
use super::loading::load;
use super::local::{Gate, Model, RunningQuestion, Scratch, Tokens};
use super::log::LogSender;
use super::thread_pool::{ThreadPool, lower_priority, thread_count};

/// How long a failure to load the model is cached.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// The local model and its threads; both are created by the first request.
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// A scheduler without threads and without a loaded model.
    pub fn new(config: &Config, log: LogSender) -> Scheduler {
        Scheduler::with_gate(config, log, Arc::default())
    }

    /// The same with this gate.
    pub fn with_gate(config: &Config, log: LogSender, gate: Arc<Gate>) -> Scheduler {
        let state = State {
            path: config.local_model_path.clone(),
            generation: 0,
            wanted: thread_count(config.local_threads),
            threads: [0; 2],
            idle_unload: config.local_idle_unload,
            queues: Default::default(),
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

    /// Applies changed settings; requests that have begun finish with the model they began with.
    pub fn reconfigure(&self, config: &Config) {
        let mut state = lock(&self.shared.state);
        if state.path != config.local_model_path {
            state.path = config.local_model_path.clone();
            state.generation += 1;
            state.model = Slot::Empty;
        }
        state.wanted = thread_count(config.local_threads);
        state.idle_unload = config.local_idle_unload;
        for pool in ThreadPool::ALL {
            if state.threads[pool as usize] > 0 {
                // Fewer threads are slower but work; the next request tries again to start them.
                let _ = ensure_threads(&self.shared, &mut state, pool);
            }
        }
        self.shared.wake_all();
    }

    /// The directory of the model's files.
    pub fn model_path(&self) -> PathBuf {
        lock(&self.shared.state).path.clone()
    }

    /// Whether the model is in memory.
    pub fn is_loaded(&self) -> bool {
        matches!(lock(&self.shared.state).model, Slot::Loaded(_))
    }

    /// Embeds a request's texts; dropping the returned future cancels what has not begun.
    ///
    /// Clients take turns, and the requests of one client are served in order.
    pub async fn embed(&self, client_id: u64, request: Request) -> Outcome {
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
        self.shared.submit(Job::new(client_id, request, reply))?;
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
        state.queues = Default::default();
        self.shared.wake_all();
    }
}

/// A client's wait for a job; dropping it before the answer removes the job from the queue.
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
            state.queues.iter_mut().for_each(JobQueue::purge);
        }
    }
}

/// What the threads share. Lock order: a thread that holds the state may lock a job's progress, never the reverse.
struct Shared {
    state: Mutex<State>,
    /// Signalled when a pool may have work.
    changed: [Condvar; 2],
    /// Signalled when the model was loaded or failed to load.
    loaded: Condvar,
    gate: Arc<Gate>,
    log: LogSender,
}

/// The queues, the model and the threads.
struct State {
    path: PathBuf,
    /// Incremented when the path changes.
    generation: u64,
    /// The wanted and the actual number of threads of each pool.
    wanted: usize,
    threads: [usize; 2],
    idle_unload: Option<Duration>,
    /// Queued jobs, by priority.
    queues: [JobQueue; 3],
    model: Slot,
    /// Threads that are working.
    busy: usize,
    last_used: Instant,
    stopping: bool,
}

/// The state of the model.
enum Slot {
    Empty,
    Loading,
    Loaded(Arc<Model>),
    Failed(Instant, Failure),
}

impl Shared {
    /// Queues a job.
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), Failure> {
        let pool = ThreadPool::of(job.priority);
        let mut state = lock(&self.state);
        ensure_threads(self, &mut state, pool).map_err(|error| {
            let message = "could not start a thread for the local model";
            Failure::new(FailureClass::Unavailable, message)
                .with_detail(format!("The operating system says: {error}."))
        })?;
        state.queues[job.priority as usize].push(Arc::new(job));
        self.changed[pool as usize].notify_one();
        Ok(())
    }

    /// The main loop of a thread.
    fn work(&self, pool: ThreadPool) {
        let mut scratch = match pool {
            ThreadPool::Questions => Scratch::default(),
            ThreadPool::Documents => {
                lower_priority();
                Scratch::yielding_at(self.gate.clone())
            }
        };
        let mut running = None;
        while let Some(job) = self.next(pool, &mut running, &mut scratch) {
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

    /// Waits for the next job; none when the thread has to end. Unloads an idle model.
    ///
    /// A thread of the question pool counts as a running question from its first job until it has no more.
    fn next<'a>(
        &'a self,
        pool: ThreadPool,
        running: &mut Option<RunningQuestion<'a>>,
        scratch: &mut Scratch,
    ) -> Option<Arc<Job>> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping || state.threads[pool as usize] > state.wanted {
                state.threads[pool as usize] -= 1;
                *running = None;
                return None;
            }
            if let Some(job) = state.queues[pool.priorities()].iter_mut().find_map(JobQueue::take) {
                state.busy += 1;
                if pool == ThreadPool::Questions && running.is_none() {
                    *running = Some(self.gate.enter());
                }
                return Some(job);
            }
            *running = None;
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
                    let line = "unloaded the idle local model";
                    self.log.send(LogLevel::Debug, line);
                    lock(&self.state)
                }
                rest => wait(&self.changed[pool as usize], state, rest.unwrap_or(Duration::MAX)),
            };
        }
    }

    /// Wakes all threads, so that they check the state again.
    fn wake_all(&self) {
        self.changed.iter().for_each(Condvar::notify_all);
    }

    /// Does the next task of a job.
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
                    scratch.yield_to_questions();
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
                    let message =
                        "the local model returned a vector with values that are not finite";
                    return Err(Failure::new(FailureClass::BadReply, message));
                }
                lock(&job.progress).add_vectors(&batch, vectors, job.dimensions);
            }
        }
        Ok(())
    }

    /// Puts a job with remaining tasks back in front of its client's others.
    fn put_back(&self, job: &Arc<Job>) {
        lock(&self.state).queues[job.priority as usize].put_back(job.clone());
        self.changed[ThreadPool::of(job.priority) as usize].notify_one();
    }

    /// The model, loaded if necessary; one thread loads it while the others wait.
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
            // If the path changed meanwhile, this model is not the configured one.
            if state.generation == generation {
                state.model = slot;
            }
            self.loaded.notify_all();
        }
    }
}

/// Waits until the state changes, for at most this time.
fn wait<'a>(
    changed: &Condvar,
    state: MutexGuard<'a, State>,
    most: Duration,
) -> MutexGuard<'a, State> {
    changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
}

/// Starts the missing threads of a pool; an error if none could be started.
fn ensure_threads(
    shared: &Arc<Shared>,
    state: &mut State,
    pool: ThreadPool,
) -> std::io::Result<()> {
    while state.threads[pool as usize] < state.wanted {
        let worker = shared.clone();
        let builder = std::thread::Builder::new().name(pool.thread_name().to_string());
        match builder.spawn(move || worker.work(pool)) {
            Ok(_) => state.threads[pool as usize] += 1,
            Err(error) if state.threads[pool as usize] == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Returns freed memory to the operating system, so that unloading the model shows in the process's size.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call may be made at any time by any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
