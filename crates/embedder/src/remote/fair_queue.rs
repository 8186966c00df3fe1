//! The texts that wait for one model of one account, and how they are packed into batches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use embedd_wire::Priority;

use super::load::Load;
use super::pending::{Item, Waiter};

/// After this many rate limits in a row a batch may be too large.
const LIMITED: u32 = 6;

/// This many other texts have to be accepted meanwhile before a batch counts as too large.
const OTHERS_ACCEPTED: u32 = 3;

/// A text in a batch, and everyone who waits for its vector.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: Arc<str>,
    pub tokens: u32,
    pub waiters: Vec<Waiter>,
}

/// Texts that are sent together.
#[derive(Debug, Clone)]
pub struct Batch {
    pub texts: Vec<Text>,
    pub priority: Priority,
    /// How often sending it failed, and how often it was rate limited.
    pub attempts: u32,
    pub limited: u32,
    /// How often the service accepted another text while it rate limited this batch.
    pub others_accepted: u32,
    /// The number of the bisected request that it is a half of.
    pub half: Option<u64>,
    /// When its texts were first sent.
    pub first_sent: Option<Instant>,
}

impl Batch {
    /// Tokens of all texts.
    pub fn tokens(&self) -> u64 {
        self.load().tokens
    }

    /// Its size.
    pub fn load(&self) -> Load {
        let mut load = Load::default();
        self.texts.iter().for_each(|text| load.add(text.tokens, text.text.len()));
        load
    }

    /// The pending requests that wait for it; one that waits for several texts is listed several times.
    pub fn request_ids(&self) -> impl Iterator<Item = u64> {
        self.texts.iter().flat_map(|text| text.waiters.iter().map(|(request, _)| *request))
    }

    /// A batch that has not been sent.
    pub fn new(texts: Vec<Text>, priority: Priority) -> Batch {
        let (attempts, limited, others_accepted) = (0, 0, 0);
        Batch { texts, priority, attempts, limited, others_accepted, half: None, first_sent: None }
    }

    /// Whether it was rate limited so often that its size may be the reason: a service with limits of tokens or texts
    /// a minute refuses a batch larger than these with the same message as one that comes too early.
    pub fn may_be_too_large(&self) -> bool {
        self.limited >= LIMITED && self.texts.len() > 1
    }

    /// The service accepted another text meanwhile; true when that shows that the batch is too large.
    pub fn others_accepted(&mut self) -> bool {
        if self.limited >= LIMITED && self.others_accepted + 1 < OTHERS_ACCEPTED {
            self.others_accepted += 1;
            return false;
        }
        true
    }

    /// Bisects a batch of more than one text.
    pub fn halves(mut self) -> [Batch; 2] {
        let second = self.texts.split_off(self.texts.len() / 2);
        [Batch { texts: second, ..self.clone() }, self]
    }

    /// Splits a batch so that no part exceeds `most`, unless a single text does.
    pub fn cut(mut self, most: Load) -> Vec<Batch> {
        let mut pieces = Vec::new();
        while !self.load().is_within(most) && self.texts.len() > 1 {
            let mut load = Load::default();
            let fits = self.texts.iter().position(|text| {
                load.add(text.tokens, text.text.len());
                !load.is_within(most)
            });
            let rest = self.texts.split_off(fits.unwrap_or(1).max(1));
            let rest = Batch { texts: rest, ..self.clone() };
            pieces.push(Batch { half: None, ..self });
            self = Batch { half: None, ..rest };
        }
        pieces.push(self);
        pieces
    }

    /// Drops waiters that have gone, and texts without waiters.
    pub fn retain(&mut self, is_awaited: impl Fn(u64) -> bool) {
        for text in &mut self.texts {
            text.waiters.retain(|(request, _)| is_awaited(*request));
        }
        self.texts.retain(|text| !text.waiters.is_empty());
    }
}

/// What waits, by priority; within a priority the clients take turns.
#[derive(Default)]
pub struct FairQueue {
    clients: [VecDeque<(u64, VecDeque<Item>)>; 3],
    /// Batches to be sent again, whole or bisected; they go first.
    again: [VecDeque<Batch>; 3],
    texts: [usize; 3],
    tokens: [u64; 3],
    bytes: [u64; 3],
}

impl FairQueue {
    /// Appends texts to their client's queue.
    pub fn push(&mut self, client_id: u64, priority: Priority, items: Vec<Item>) {
        let level = priority as usize;
        self.texts[level] += items.len();
        self.tokens[level] += items.iter().map(|item| u64::from(item.tokens)).sum::<u64>();
        self.bytes[level] += items.iter().map(|item| item.text.len() as u64).sum::<u64>();
        let clients = &mut self.clients[level];
        match clients.iter_mut().find(|(id, _)| *id == client_id) {
            Some((_, waiting)) => waiting.extend(items),
            None => clients.push_back((client_id, items.into())),
        }
    }

    /// Adds a batch that is to be sent again, in front of everything else of its priority.
    pub fn push_again(&mut self, batch: Batch) {
        self.again[batch.priority as usize].push_front(batch);
    }

    /// Whether anything of this priority waits.
    pub fn waits(&self, priority: Priority) -> bool {
        self.texts[priority as usize] > 0 || !self.again[priority as usize].is_empty()
    }

    /// Whether the waiting texts fill a batch, so that waiting for more has no use.
    pub fn is_full(&self, priority: Priority, caps: Load) -> bool {
        let level = priority as usize;
        !self.again[level].is_empty()
            || self.texts[level] as u64 >= caps.texts
            || self.tokens[level] >= caps.tokens
    }

    /// Takes the next batch out: as many texts as it may hold, without duplicates. None when nothing has a waiter.
    pub fn next(
        &mut self,
        priority: Priority,
        caps: Load,
        is_awaited: impl Fn(u64) -> bool,
    ) -> Option<Batch> {
        let level = priority as usize;
        while let Some(mut batch) = self.again[level].pop_front() {
            batch.retain(&is_awaited);
            if batch.texts.is_empty() {
                continue;
            }
            // A batch larger than the limits learned since is split.
            let mut pieces = batch.cut(caps).into_iter();
            let first = pieces.next();
            for piece in pieces.rev() {
                self.again[level].push_front(piece);
            }
            return first;
        }
        let mut batch = Batch::new(Vec::new(), priority);
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        let mut load = Load::default();
        while let Some((client_id, mut waiting)) = self.clients[level].pop_front() {
            let mut full = false;
            while let Some(item) = waiting.pop_front() {
                let known = places.get(&item.text).copied();
                let mut with = load;
                with.add(item.tokens, item.text.len());
                full = known.is_none() && !batch.texts.is_empty() && !with.is_within(caps);
                if full {
                    waiting.push_front(item);
                    break;
                }
                self.texts[level] -= 1;
                self.tokens[level] -= u64::from(item.tokens);
                self.bytes[level] -= item.text.len() as u64;
                if !is_awaited(item.waiter.0) {
                    continue;
                }
                match known {
                    Some(place) => batch.texts[place].waiters.push(item.waiter),
                    None => {
                        places.insert(item.text.clone(), batch.texts.len());
                        load = with;
                        let waiters = vec![item.waiter];
                        batch.texts.push(Text { text: item.text, tokens: item.tokens, waiters });
                    }
                }
            }
            if !waiting.is_empty() {
                // The client's next turn comes last.
                self.clients[level].push_back((client_id, waiting));
            }
            if full {
                break;
            }
        }
        (!batch.texts.is_empty()).then_some(batch)
    }

    /// An estimate of what the next batch will hold.
    pub fn ahead(&self, priority: Priority, caps: Load) -> Load {
        let level = priority as usize;
        if let Some(batch) = self.again[level].front() {
            return batch.load().min(caps);
        }
        let waiting = self.texts[level].max(1) as u64;
        let texts = waiting.min(caps.texts);
        let share = |of_all: u64| of_all.div_ceil(waiting).saturating_mul(texts);
        Load { texts, tokens: share(self.tokens[level]), bytes: share(self.bytes[level]) }.min(caps)
    }

    /// The pending requests of everything that waits.
    pub fn request_ids(&self) -> impl Iterator<Item = u64> {
        let waiting = self.clients.iter().flatten().flat_map(|(_, items)| items);
        let again = self.again.iter().flatten().flat_map(Batch::request_ids);
        waiting.map(|item| item.waiter.0).chain(again)
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.texts.iter().all(|count| *count == 0) && self.again.iter().all(VecDeque::is_empty)
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        *self = FairQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Load = Load { texts: 3, tokens: 100, bytes: 1000 };

    fn items(request: u64, texts: &[&str], tokens: u32) -> Vec<Item> {
        let numbered = (0..).zip(texts);
        numbered
            .map(|(n, text)| Item { waiter: (request, n), text: (*text).into(), tokens })
            .collect()
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.texts.iter().map(|text| &*text.text).collect()
    }

    #[test]
    fn batches_are_filled_and_duplicates_are_sent_once() {
        let mut queue = FairQueue::default();
        queue.push(1, Priority::Change, items(1, &["a", "b"], 10));
        assert!(!queue.is_full(Priority::Change, CAPS));
        queue.push(1, Priority::Change, items(2, &["b", "c", "d"], 10));
        assert!(queue.is_full(Priority::Change, CAPS));
        let batch = queue.next(Priority::Change, CAPS, |_| true).unwrap();
        assert_eq!(texts(&batch), ["a", "b", "c"]);
        assert_eq!(batch.texts[1].waiters, [(1, 1), (2, 0)]);
        assert_eq!(texts(&queue.next(Priority::Change, CAPS, |_| true).unwrap()), ["d"]);
        assert!(queue.is_empty() && queue.next(Priority::Change, CAPS, |_| true).is_none());
    }

    #[test]
    fn tokens_limit_a_batch_and_a_larger_text_is_sent_alone() {
        let mut queue = FairQueue::default();
        queue.push(1, Priority::Backfill, items(1, &["a", "b", "c"], 60));
        queue.push(1, Priority::Backfill, items(2, &["huge"], 1000));
        let mut sizes = Vec::new();
        while let Some(batch) = queue.next(Priority::Backfill, CAPS, |_| true) {
            sizes.push(texts(&batch).len());
        }
        assert_eq!(sizes, [1, 1, 1, 1]);
    }

    #[test]
    fn clients_take_turns_and_cancelled_requests_are_skipped() {
        let mut queue = FairQueue::default();
        queue.push(1, Priority::Change, items(1, &["a", "b", "c", "d"], 1));
        queue.push(2, Priority::Change, items(2, &["x"], 1));
        queue.push(3, Priority::Change, items(3, &["gone"], 1));
        let is_awaited = |request| request != 3;
        assert_eq!(
            texts(&queue.next(Priority::Change, CAPS, is_awaited).unwrap()),
            ["a", "b", "c"]
        );
        assert_eq!(texts(&queue.next(Priority::Change, CAPS, is_awaited).unwrap()), ["x", "d"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_is_bisected_down_to_single_texts() {
        let mut queue = FairQueue::default();
        queue.push(1, Priority::Change, items(1, &["a", "b", "c"], 1));
        let batch = queue.next(Priority::Change, CAPS, |_| true).unwrap();
        let mut all = Vec::new();
        for half in batch.halves() {
            queue.push_again(half);
        }
        while let Some(half) = queue.next(Priority::Change, CAPS, |_| true) {
            all.push(texts(&half).join(" "));
        }
        assert_eq!(all, ["a", "b c"]);
    }

    #[test]
    fn a_batch_is_split_to_the_learned_limits() {
        let mut queue = FairQueue::default();
        queue.push(1, Priority::Change, items(1, &["a", "b", "c"], 60));
        let all = Load { tokens: 200, ..CAPS };
        let batch = queue.next(Priority::Change, all, |_| true).unwrap();
        assert_eq!(batch.load(), Load { texts: 3, tokens: 180, bytes: 3 });
        queue.push_again(batch);
        let two = Load { texts: 2, ..all };
        assert_eq!(queue.ahead(Priority::Change, two), Load { texts: 2, tokens: 180, bytes: 3 });
        assert_eq!(texts(&queue.next(Priority::Change, two, |_| true).unwrap()), ["a", "b"]);
        // A text above the limit is sent alone.
        let few = Load { tokens: 10, ..all };
        assert_eq!(texts(&queue.next(Priority::Change, few, |_| true).unwrap()), ["c"]);
        assert!(queue.is_empty());
    }
}
