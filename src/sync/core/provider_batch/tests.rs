//! Batches at a simulated provider: whatever crashes between whatever steps, every text comes back, and none is paid twice.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use embedd_wire::{
    BatchAnswer, BatchEnd, BatchOrder, BatchState, BatchText, Embeddings, Failure, FailureClass,
};

use super::super::model::random::Random;
use super::*;

/// Texts of a batch.
const MOST: usize = 4;
/// Keys of a page.
const PAGE: usize = 3;
/// How long a batch that was handed in is not in the provider's list.
const HIDDEN: Duration = Duration::from_secs(10);

/// What is noted of a text.
#[derive(Clone, Debug, PartialEq)]
enum Noted {
    InBatch(String),
    Vector,
    Refused,
}

/// A batch of the provider.
#[derive(Clone, Debug)]
struct Batch {
    token: String,
    ids: Vec<String>,
    since: Instant,
    state: Option<BatchState>,
    /// How many of its texts it has done when it ends.
    done: usize,
    is_deleted: bool,
}

/// Database, provider and clock.
struct World {
    random: Random,
    now: Instant,
    source: Vec<String>,
    texts: BTreeMap<String, Noted>,
    batches: BTreeMap<String, Option<String>>,
    provider: BTreeMap<String, Batch>,
    paid: HashMap<String, u32>,
    is_finished: bool,
    is_wanted: bool,
    tokens: u32,
}

fn answer(batch: &Batch, state: BatchState) -> BatchAnswer {
    let done = &batch.ids[..batch.done];
    let is_refused = |id: &&String| id.ends_with('!');
    let ids: Vec<String> = done.iter().filter(|id| !is_refused(id)).cloned().collect();
    let refused = done.iter().filter(is_refused).map(|id| (id.clone(), "no".to_string())).collect();
    let embeddings = Embeddings { truncated: vec![false; ids.len()], ..Embeddings::default() };
    BatchAnswer::Ended(Box::new(BatchEnd { state, reason: None, ids, embeddings, refused }))
}

impl World {
    fn new(seed: u64, texts: usize) -> Self {
        let mut random = Random(seed);
        let mut text = |n: usize| match random.below(8) {
            0 => format!("t{n}!"),
            1 => "t0".to_string(),
            _ => format!("t{n}"),
        };
        let source = (0..texts).map(&mut text).collect();
        Self {
            random,
            now: Instant::now(),
            source,
            texts: BTreeMap::new(),
            batches: BTreeMap::new(),
            provider: BTreeMap::new(),
            paid: HashMap::new(),
            is_finished: false,
            is_wanted: true,
            tokens: 0,
        }
    }

    /// Runs a transaction.
    fn write(&mut self, step: &BatchStep) -> BatchOutcome {
        match step {
            BatchStep::Resume => BatchOutcome::Resumed(
                self.batches
                    .iter()
                    .map(|(token, name)| crate::provider_batch::Noted {
                        token: token.clone(),
                        name: name.clone(),
                        age: Duration::ZERO,
                        is_foreign: false,
                    })
                    .collect(),
            ),
            BatchStep::Read { after } => {
                let from = after.as_ref().map_or(0, |key| key.parse::<usize>().unwrap() + 1);
                let keys: Vec<usize> = (from..self.source.len()).take(PAGE).collect();
                let is_new = |id: &&String| !self.texts.contains_key(*id);
                let new = keys.iter().map(|key| &self.source[*key]).filter(is_new);
                let text = |id: &String| BatchText { id: id.clone(), text: id.clone() };
                BatchOutcome::Texts {
                    texts: new.map(text).collect(),
                    last: keys.last().map(ToString::to_string),
                }
            }
            BatchStep::Plan { ids } => {
                assert!(ids.len() <= 4 && !ids.is_empty());
                self.tokens += 1;
                let token = format!("token{}", self.tokens);
                for id in ids {
                    let before = self.texts.insert(id.clone(), Noted::InBatch(token.clone()));
                    assert_eq!(before, None, "{id} is in two batches");
                }
                self.batches.insert(token.clone(), None);
                BatchOutcome::Planned(token)
            }
            BatchStep::SetName { token, name, left_out } => {
                self.batches.insert(token.clone(), Some(name.clone()));
                left_out.iter().for_each(|id| drop(self.texts.remove(id)));
                BatchOutcome::Done
            }
            BatchStep::Store { token, end } => {
                end.ids.iter().for_each(|id| drop(self.texts.insert(id.clone(), Noted::Vector)));
                for (id, _) in &end.refused {
                    self.texts.insert(id.clone(), Noted::Refused);
                }
                self.forget(token)
            }
            BatchStep::Forget { token } => self.forget(token),
            BatchStep::Finish => {
                self.is_finished = true;
                BatchOutcome::Done
            }
            BatchStep::SetDone { .. } | BatchStep::Ask(_) => BatchOutcome::Done,
        }
    }

    fn forget(&mut self, token: &str) -> BatchOutcome {
        self.batches.remove(token);
        let before = self.texts.len();
        self.texts.retain(|_, noted| *noted != Noted::InBatch(token.to_string()));
        BatchOutcome::Ended { is_complete: self.texts.len() == before }
    }

    /// The provider works on an order.
    fn work(&mut self, order: &BatchOrder) -> Result<BatchAnswer, Failure> {
        let failure = || Err(Failure::new(FailureClass::Unavailable, "down"));
        if self.random.below(10) == 0 {
            return failure();
        }
        let answer = match order {
            BatchOrder::Submit { token, texts } => {
                let taken = if self.random.below(5) == 0 { 1 } else { texts.len() };
                let name = format!("batch of {token}");
                assert!(!self.provider.contains_key(&name), "{name} is handed in twice");
                let ids = texts[..taken].iter().map(|text| text.id.clone()).collect();
                let (token, since) = (token.clone(), self.now);
                let batch = Batch { token, ids, since, state: None, done: 0, is_deleted: false };
                self.provider.insert(name.clone(), batch);
                BatchAnswer::Submitted { batch: name, texts: taken as u32 }
            }
            BatchOrder::Find { token } => {
                let is_it = |(_, batch): &(&String, &Batch)| {
                    batch.token == *token && self.now >= batch.since + HIDDEN
                };
                let batch = self.provider.iter().find(is_it).map(|(name, _)| name.clone());
                BatchAnswer::Found { batch }
            }
            BatchOrder::Collect { batch: name } => {
                let batch = self.provider.get_mut(name).unwrap();
                assert!(!batch.is_deleted);
                let roll = self.random.below(8) as u64;
                if batch.state.is_none() && roll < 4 {
                    let all = batch.ids.len();
                    (batch.state, batch.done) = match roll {
                        0 => (Some(BatchState::Failed), 0),
                        1 => (Some(BatchState::Expired), all / 2),
                        _ => (Some(BatchState::Completed), all),
                    };
                    for id in batch.ids.iter().take(batch.done) {
                        *self.paid.entry(id.clone()).or_default() += 1;
                    }
                }
                match batch.state {
                    Some(state) => answer(batch, state),
                    None => BatchAnswer::Working { done: roll, total: 8 },
                }
            }
            BatchOrder::Cancel { batch: name } => {
                let batch = self.provider.get_mut(name).unwrap();
                if batch.state.is_some() {
                    return Err(Failure::new(FailureClass::Refused, "it has ended"));
                }
                (batch.state, batch.done) = (Some(BatchState::Cancelled), 1);
                *self.paid.entry(batch.ids[0].clone()).or_default() += 1;
                BatchAnswer::Done
            }
            BatchOrder::Delete { batch: name } => {
                let noted = self.batches.values().flatten().any(|known| known == name);
                assert!(!noted, "{name} is deleted before it is stored");
                self.provider.get_mut(name).unwrap().is_deleted = true;
                BatchAnswer::Done
            }
        };
        // The answer is lost on the way.
        if self.random.below(10) == 0 { failure() } else { Ok(answer) }
    }
}

fn run(seed: u64, cancels: bool) -> World {
    let mut world = World::new(seed, 1 + seed as usize % 20);
    let mut machine = ProviderBatches::default();
    for turn in 0..20_000 {
        if cancels && turn == 40 {
            world.is_wanted = false;
        }
        let waiting = (world.is_wanted && !world.is_finished).then_some((1, 1));
        machine.set_task(world.is_wanted && !world.is_finished, waiting);
        let is_over = world.is_finished || !world.is_wanted;
        if is_over && machine.is_idle() && world.batches.is_empty() {
            return world;
        }
        // The process ends; an order that it gave may be carried out.
        if turn < 1000 && world.random.below(30) == 0 {
            machine = ProviderBatches::default();
            continue;
        }
        world.now += Duration::from_millis(world.random.below(5000) as u64);
        let now = world.now;
        let Some(step) = machine.next(MOST, true, now) else {
            let due = machine.due(now).unwrap_or(now);
            world.now = world.now.max(due);
            continue;
        };
        if let BatchStep::Ask(order) = step {
            machine.asked(&order);
            // The task may be cancelled while the embedder works on the order.
            if cancels && turn >= 20 {
                world.is_wanted = false;
                machine.set_task(false, None);
            }
            let is_lost = world.random.below(20) == 0;
            if is_lost && world.random.below(2) == 0 {
                // It never arrived.
                machine.lost(now);
                continue;
            }
            let answer = world.work(&order);
            match is_lost {
                true => machine.lost(now),
                false => drop(machine.on_answer(answer, now)),
            }
            continue;
        }
        if world.random.below(20) == 0 {
            machine.done(step, BatchOutcome::Failed, now);
            continue;
        }
        let outcome = world.write(&step);
        // The transaction is committed, and the process ends before it knows.
        if turn < 1000 && world.random.below(40) == 0 {
            machine = ProviderBatches::default();
            continue;
        }
        machine.done(step, outcome, now);
    }
    panic!("seed {seed} does not come to an end: {:?} {:?}", world.batches, world.texts);
}

#[test]
fn every_text_comes_back_once_whatever_crashes() {
    for seed in 0..3000 {
        let world = run(seed, false);
        for id in &world.source {
            let noted = world.texts.get(id);
            assert!(matches!(noted, Some(Noted::Vector | Noted::Refused)), "seed {seed}: {id}");
        }
        let twice: Vec<_> = world.paid.iter().filter(|(_, paid)| **paid > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}");
    }
}

#[test]
fn a_cancelled_task_leaves_nothing_at_the_provider_and_keeps_what_is_paid() {
    for seed in 0..1000 {
        let world = run(seed, true);
        assert!(world.provider.values().all(|b| b.state.is_some() || world.now < b.since));
        for (id, paid) in &world.paid {
            assert_eq!(*paid, 1, "seed {seed}: {id}");
            let noted = world.texts.get(id);
            assert!(matches!(noted, Some(Noted::Vector | Noted::Refused)), "seed {seed}: {id}");
        }
    }
}

#[test]
fn a_batch_that_the_provider_does_not_know_is_given_up_after_days_or_when_it_is_not_wanted() {
    let now = Instant::now();
    let noted = |age| crate::provider_batch::Noted {
        token: "t".to_string(),
        name: Some("b".to_string()),
        age,
        is_foreign: false,
    };
    let gone = BatchAnswer::Ended(Box::new(BatchEnd {
        state: BatchState::Gone,
        reason: None,
        ids: Vec::new(),
        embeddings: Embeddings::default(),
        refused: Vec::new(),
    }));
    for (is_wanted, age, gives_up) in
        [(true, Duration::ZERO, false), (true, BELIEVE_GONE, true), (false, Duration::ZERO, true)]
    {
        let mut machine = ProviderBatches::default();
        machine.set_task(is_wanted, None);
        machine.done(BatchStep::Resume, BatchOutcome::Resumed(vec![noted(age)]), now);
        machine.asked(&BatchOrder::Collect { batch: "b".to_string() });
        let news = machine.on_answer(Ok(gone.clone()), now);
        assert_eq!(matches!(news, BatchNews::Fails { is_stuck: true, .. }), !gives_up);
        let stores = matches!(machine.next(8, true, now), Some(BatchStep::Store { .. }));
        assert_eq!(stores, gives_up, "{is_wanted} {age:?}");
    }
}

#[test]
fn a_batch_of_another_cluster_is_neither_cancelled_nor_deleted() {
    let now = Instant::now();
    let noted = crate::provider_batch::Noted {
        token: "t".to_string(),
        name: Some("b".to_string()),
        age: Duration::ZERO,
        is_foreign: true,
    };
    let mut machine = ProviderBatches::default();
    machine.set_task(true, None);
    machine.done(BatchStep::Resume, BatchOutcome::Resumed(vec![noted]), now);
    let collect = BatchOrder::Collect { batch: "b".to_string() };
    assert_eq!(machine.next(MOST, true, now), Some(BatchStep::Ask(collect)));
    machine.set_task(false, None);
    let forget = BatchStep::Forget { token: "t".to_string() };
    assert_eq!(machine.next(MOST, true, now), Some(forget.clone()));
    machine.done(forget, BatchOutcome::Ended { is_complete: false }, now);
    assert_eq!(machine.next(MOST, true, now), None);
    assert!(machine.is_idle());
}

#[test]
fn a_batch_is_smaller_where_vectors_come_as_text() {
    assert_eq!(most_texts(Kind::Openai, 1536), 2730);
    assert_eq!(most_texts(Kind::Gemini, 3072), 341);
    assert_eq!((most_texts(Kind::Voyage, 8), most_texts(Kind::Voyage, usize::MAX)), (10_000, 1));
}
