//! Hands the new texts of a backfill to the batch API of a provider and waits for their vectors. Pure.
//!
//! A batch is noted before it is handed in and found again by its token, so a crash between any two steps neither loses
//! nor pays twice. What comes back is kept by text; the scan of the task stores it afterwards like any other vector.

mod answer;
mod known;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use embedd_wire::{BatchEnd, BatchOrder, BatchText, Kind};

use self::known::{Known, resumed};
use crate::backoff::Backoff;
use crate::provider_batch::Noted;

/// Vector elements of a batch: all of its vectors are in memory at once. Gemini sends them as text, in one reply.
const NUMBERS: usize = 4 << 20;
const NUMBERS_AS_TEXT: usize = 1 << 20;
/// Texts of a batch.
const TEXTS: usize = 10_000;
/// Bytes of its texts: Gemini takes 20 MB, with all that is around them.
const BYTES: usize = 8 << 20;
/// Batches that a provider has at a time: Gemini takes 100.
const BATCHES: usize = 90;
/// How long a batch may take to appear in the provider's list after it was handed in.
const FIND_AFTER: Duration = Duration::from_secs(15);
/// First and longest pause before a provider is asked again how far a batch is.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Looks after which the pause is the longest.
const LONG_AFTER: u32 = 6;
/// First and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First and longest pause before texts are handed in again after a batch has brought nothing.
const HAND_IN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// For so long a provider that does not know a batch is not believed: its address may be wrong.
const BELIEVE_GONE: Duration = Duration::from_secs(3 * 24 * 3600);

/// What is to be done. Each is one transaction, or one order for the embedder.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchStep {
    /// Read which batches are noted.
    Resume,
    /// Read the next new texts of the source, behind a key.
    Read { after: Option<String> },
    /// Note these texts as a batch.
    Plan { ids: Vec<String> },
    /// Give the embedder an order.
    Ask(BatchOrder),
    /// Note the name of a batch, and which texts it does not have.
    SetName { token: String, name: String, left_out: Vec<String> },
    /// Note how many texts of a batch are done.
    SetDone { token: String, done: u64 },
    /// Store what a batch brought.
    Store { token: String, end: Box<BatchEnd> },
    /// Forget a batch that does not exist.
    Forget { token: String },
    /// Every text is back: the task goes on.
    Finish,
}

impl BatchStep {
    /// Whether it writes what an answer has brought, so that it is tried until it is done.
    fn follows_answer(&self) -> bool {
        matches!(
            self,
            Self::SetName { .. } | Self::SetDone { .. } | Self::Store { .. } | Self::Forget { .. }
        )
    }
}

/// How a step has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchOutcome {
    Done,
    /// The batches that are noted.
    Resumed(Vec<Noted>),
    /// New texts, and the last key that was read, none at the end.
    Texts {
        texts: Vec<BatchText>,
        last: Option<String>,
    },
    /// A batch is noted under this token.
    Planned(String),
    /// A batch is stored or forgotten; `is_complete` when it brought something for each text.
    Ended {
        is_complete: bool,
    },
    /// The task has ended or was restarted.
    Overtaken,
    /// The transaction was rolled back.
    Failed,
}

/// What the status has to say after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchNews {
    /// The provider works.
    Works,
    /// It does not, for this reason; `is_stuck` when a user has to act.
    Fails { reason: String, is_stuck: bool },
}

/// Where a pass over the source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Pass {
    #[default]
    Begins,
    Behind(String),
    Ended,
}

/// The batches of one vector table.
#[derive(Clone, Debug)]
pub struct ProviderBatches {
    /// The task that waits for them, and its attempt.
    task: Option<(i64, i32)>,
    /// Whether a task is open that waits for them now or will.
    is_wanted: bool,
    /// None before they were read.
    known: Option<BTreeMap<String, Known>>,
    pass: Pass,
    /// Some texts are to be read again: another pass follows.
    is_incomplete: bool,
    gathered: Vec<BatchText>,
    gathered_bytes: usize,
    /// Noted, and not handed in.
    to_submit: Option<(String, Vec<BatchText>)>,
    /// What the embedder is working on.
    asked: Option<BatchOrder>,
    /// Transactions that follow from an answer, in their order.
    to_write: VecDeque<BatchStep>,
    /// Ended batches that are to be deleted at the provider.
    to_delete: Vec<String>,
    pause: Backoff,
    hand_in: Backoff,
}

impl Default for ProviderBatches {
    fn default() -> Self {
        Self {
            task: None,
            is_wanted: false,
            known: None,
            pass: Pass::default(),
            is_incomplete: false,
            gathered: Vec::new(),
            gathered_bytes: 0,
            to_submit: None,
            asked: None,
            to_write: VecDeque::new(),
            to_delete: Vec::new(),
            pause: Backoff::new(RETRY.0, RETRY.1),
            hand_in: Backoff::new(HAND_IN.0, HAND_IN.1),
        }
    }
}

/// Texts of a batch of vectors with so many dimensions, for a provider of this kind.
pub fn most_texts(kind: Kind, dimensions: usize) -> usize {
    let numbers = if kind == Kind::Gemini { NUMBERS_AS_TEXT } else { NUMBERS };
    (numbers / dimensions.max(1)).clamp(1, TEXTS)
}

impl ProviderBatches {
    /// Follows the open task: whether it is at the batch price, and its number and attempt while its scan waits for the
    /// batches. Without such a task the batches are cancelled.
    pub fn set_task(&mut self, is_wanted: bool, waiting: Option<(i64, i32)>) {
        self.is_wanted = is_wanted;
        self.set_waiting(waiting);
        let is_submitted = matches!(self.asked, Some(BatchOrder::Submit { .. }));
        if let Some((token, _)) = self.to_submit.take_if(|_| !is_wanted && !is_submitted) {
            // It was never handed in.
            self.to_write.push_back(BatchStep::Forget { token });
        }
    }

    fn set_waiting(&mut self, task: Option<(i64, i32)>) {
        if self.task != task {
            self.task = task;
            self.begin_pass();
        }
    }

    fn begin_pass(&mut self) {
        (self.pass, self.is_incomplete) = (Pass::Begins, false);
        self.gathered.clear();
        self.gathered_bytes = 0;
    }

    /// Whether nothing is known to be at a provider, and no task waits.
    pub fn is_idle(&self) -> bool {
        !self.is_wanted
            && self.known.as_ref().is_none_or(BTreeMap::is_empty)
            && self.asked.is_none()
            && self.to_write.is_empty()
            && self.to_delete.is_empty()
    }

    /// Whether a batch may have been handed in a moment ago, so that it is to be looked for soon. A worker that leaves
    /// before begins the wait again.
    pub fn is_settling(&self, now: Instant) -> bool {
        let mut known = self.known.iter().flatten();
        known.any(|(_, batch)| batch.name.is_none() && batch.look_at > now)
    }

    /// Whether the embedder works on an order, or what it brought is to be written.
    pub fn is_busy(&self) -> bool {
        self.asked.is_some() || !self.to_write.is_empty()
    }

    /// The next step; none before something happens or is due. A batch has `most` texts. Without `may_begin` nothing is
    /// begun, and what has come is written.
    pub fn next(&mut self, most: usize, may_begin: bool, now: Instant) -> Option<BatchStep> {
        let Some(known) = &self.known else { return may_begin.then_some(BatchStep::Resume) };
        if self.pause.is_waiting(now) {
            return None;
        }
        if let Some(step) = self.to_write.pop_front() {
            return Some(step);
        }
        if !may_begin || self.asked.is_some() {
            return None;
        }
        if let Some(name) = self.to_delete.first() {
            return Some(BatchStep::Ask(BatchOrder::Delete { batch: name.clone() }));
        }
        if let Some((token, texts)) = &self.to_submit {
            let (token, texts) = (token.clone(), texts.clone());
            return Some(BatchStep::Ask(BatchOrder::Submit { token, texts }));
        }
        let due = known.iter().filter(|(_, batch)| batch.look_at <= now);
        if let Some((token, batch)) = due.min_by_key(|(_, batch)| batch.look_at) {
            if batch.is_foreign && !self.is_wanted {
                return Some(BatchStep::Forget { token: token.clone() });
            }
            return Some(BatchStep::Ask(match &batch.name {
                None => BatchOrder::Find { token: token.clone() },
                Some(name) if !self.is_wanted && !batch.is_cancelled => {
                    BatchOrder::Cancel { batch: name.clone() }
                }
                Some(name) => BatchOrder::Collect { batch: name.clone() },
            }));
        }
        self.task?;
        if self.hand_in.is_waiting(now) {
            return None;
        }
        let has_room = known.len() < BATCHES;
        let is_full = self.gathered.len() >= most || self.gathered_bytes >= BYTES;
        match &self.pass {
            _ if has_room && is_full => Some(self.plan(most)),
            _ if is_full => None,
            Pass::Begins => has_room.then_some(BatchStep::Read { after: None }),
            Pass::Behind(key) => has_room.then(|| BatchStep::Read { after: Some(key.clone()) }),
            Pass::Ended if !self.gathered.is_empty() => has_room.then(|| self.plan(most)),
            Pass::Ended if !known.is_empty() => None,
            Pass::Ended if self.is_incomplete => Some(BatchStep::Read { after: None }),
            Pass::Ended => Some(BatchStep::Finish),
        }
    }

    /// The first texts that were gathered, as many as go together.
    fn plan(&self, most: usize) -> BatchStep {
        let mut bytes = 0;
        let texts = self.gathered.iter().take(most);
        let fits = |text: &&BatchText| {
            let is_first = bytes == 0;
            bytes += text.text.len() + 1;
            is_first || bytes <= BYTES
        };
        BatchStep::Plan { ids: texts.take_while(fits).map(|text| text.id.clone()).collect() }
    }

    /// When the next step is due without anything happening before.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if !self.to_write.is_empty() {
            return self.pause.until();
        }
        if self.asked.is_some() {
            return None;
        }
        let looks = self.known.iter().flatten().map(|(_, batch)| batch.look_at);
        let hand_in = self.hand_in.until().filter(|at| *at > now && self.task.is_some());
        let pause = self.pause.until().filter(|at| *at > now);
        let next = looks.chain(hand_in).min();
        match pause {
            Some(pause) if !self.is_idle() => Some(next.map_or(pause, |at| at.max(pause))),
            _ => next,
        }
    }

    /// Whether texts are not handed in for a while, so that what else works does not end the trouble.
    pub fn is_held(&self, now: Instant) -> bool {
        self.hand_in.is_waiting(now)
    }

    /// Another provider, another key or another cap of it: it is asked at once.
    pub fn provider_changed(&mut self) {
        self.pause.reset();
        self.hand_in.reset();
    }

    /// A step was begun by giving the embedder an order.
    pub fn asked(&mut self, order: &BatchOrder) {
        self.asked = Some(match order {
            // Its texts are not needed: whether they have arrived is found out by the token.
            BatchOrder::Submit { token, .. } => {
                BatchOrder::Submit { token: token.clone(), texts: Vec::new() }
            }
            order => order.clone(),
        });
    }

    /// A step that is a transaction has ended.
    pub fn done(&mut self, step: BatchStep, outcome: BatchOutcome, now: Instant) {
        match (step, outcome) {
            (step, BatchOutcome::Failed) => {
                self.pause.fail(now, None);
                if step.follows_answer() {
                    self.to_write.push_front(step);
                }
            }
            (BatchStep::Resume, BatchOutcome::Resumed(noted)) => {
                self.known =
                    Some(noted.into_iter().map(|n| (n.token.clone(), resumed(n, now))).collect());
            }
            (BatchStep::Read { after }, BatchOutcome::Texts { texts, last }) => {
                if after.is_none() {
                    self.begin_pass();
                }
                self.gather(texts);
                self.pass = last.map_or(Pass::Ended, Pass::Behind);
            }
            (BatchStep::Plan { ids }, BatchOutcome::Planned(token)) => {
                let texts: Vec<BatchText> = self.gathered.drain(..ids.len()).collect();
                self.gathered_bytes = self.gathered.iter().map(|text| text.text.len()).sum();
                let batch = Known::new(None, now + FIND_AFTER, now);
                self.known.get_or_insert_default().insert(token.clone(), batch);
                self.to_submit = Some((token, texts));
            }
            (BatchStep::SetName { token, name, left_out }, BatchOutcome::Done) => {
                self.is_incomplete |= !left_out.is_empty();
                if let Some(batch) = self.batch(&token) {
                    batch.name = Some(name);
                    batch.look_at = now + LOOK.0;
                }
            }
            (BatchStep::Store { token, end }, BatchOutcome::Ended { is_complete }) => {
                match end.ids.is_empty() && !is_complete {
                    true => self.hand_in.fail(now, None),
                    false => self.hand_in.reset(),
                }
                self.ended(&token, is_complete);
            }
            (BatchStep::Forget { token }, BatchOutcome::Ended { is_complete }) => {
                self.ended(&token, is_complete);
            }
            (BatchStep::Finish, BatchOutcome::Done) => self.set_waiting(None),
            // The task is known as it is now in the next round.
            (_, BatchOutcome::Overtaken) => self.set_waiting(None),
            _ => {}
        }
    }

    /// A batch is not at the provider any more.
    fn ended(&mut self, token: &str, is_complete: bool) {
        self.is_incomplete |= !is_complete;
        let gone = self.known.as_mut().and_then(|known| known.remove(token));
        let own = gone.filter(|batch| !batch.is_foreign);
        self.to_delete.extend(own.and_then(|batch| batch.name));
    }

    fn gather(&mut self, texts: Vec<BatchText>) {
        // Equal texts of several pages are one.
        let mut ids: HashSet<String> = self.gathered.iter().map(|text| text.id.clone()).collect();
        for text in texts {
            if ids.insert(text.id.clone()) {
                self.gathered_bytes += text.text.len();
                self.gathered.push(text);
            }
        }
    }

    fn batch(&mut self, token: &str) -> Option<&mut Known> {
        self.known.as_mut().and_then(|known| known.get_mut(token))
    }

    fn token_of(&self, name: &str) -> Option<String> {
        let mut known = self.known.iter().flatten();
        known.find(|(_, batch)| batch.name.as_deref() == Some(name)).map(|(token, _)| token.clone())
    }
}
