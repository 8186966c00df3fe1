//! The texts that wait for one model of one account, and how they are packed into requests.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use embedd_wire::Priority;

use super::load::Load;
use super::ticket::{Item, Taker};

/// Bytes of text in one request, unless one text has more: Gemini takes four megabytes, quotation marks and all.
const BATCH_BYTES: u64 = 3 << 20;

/// Numbers in the vectors of one reply, at most.
const BATCH_NUMBERS: usize = 4 << 20;

/// How often a batch is too much in a row before its size is suspected.
const LIMITED: u32 = 6;

/// How often a single text has to pass meanwhile for that to be believed.
const OUTDONE: u32 = 3;

/// What one request may hold, where it is so many texts and tokens, and vectors of so many dimensions: its reply has to stay
/// within bounds too.
pub fn caps(texts: u64, tokens: u64, dimensions: u32) -> Load {
    let most = BATCH_NUMBERS / (dimensions.max(1) as usize);
    Load { texts: texts.clamp(1, most.max(1) as u64), tokens, bytes: BATCH_BYTES }
}

/// A text in a request, and everybody who wants its vector.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: Arc<str>,
    pub tokens: u32,
    pub takers: Vec<Taker>,
}

/// Texts that are sent together.
#[derive(Debug, Clone)]
pub struct Batch {
    pub texts: Vec<Text>,
    pub priority: Priority,
    /// How often it was sent in vain, and how often the service wanted no more just then.
    pub attempts: u32,
    pub limited: u32,
    /// How often the service took another text while it wanted no more of this.
    pub outdone: u32,
    /// The number of the refused request that it is a half of.
    pub half: Option<u64>,
    /// When its texts were first sent.
    pub first_sent: Option<Instant>,
}

impl Batch {
    /// Tokens of all texts.
    pub fn tokens(&self) -> u64 {
        self.load().tokens
    }

    /// What it holds.
    pub fn load(&self) -> Load {
        let mut load = Load::default();
        self.texts.iter().for_each(|text| load.add(text.tokens, text.text.len()));
        load
    }

    /// The tickets that wait for it; one that waits for several texts is named as often.
    pub fn tickets(&self) -> impl Iterator<Item = u64> {
        self.texts.iter().flat_map(|text| text.takers.iter().map(|(ticket, _)| *ticket))
    }

    /// A batch that was not sent yet.
    pub fn new(texts: Vec<Text>, priority: Priority) -> Batch {
        let (attempts, limited, outdone) = (0, 0, 0);
        Batch { texts, priority, attempts, limited, outdone, half: None, first_sent: None }
    }

    /// Whether it was too much so often that its size may be to blame: services with limits of tokens or texts a minute
    /// refuse what is larger than these in the same words as what only comes too early.
    pub fn is_suspect(&self) -> bool {
        self.limited >= LIMITED && self.texts.len() > 1
    }

    /// The service has taken another text meanwhile; true when that shows that it is the size.
    pub fn outdone(&mut self) -> bool {
        if self.limited >= LIMITED && self.outdone + 1 < OUTDONE {
            self.outdone += 1;
            return false;
        }
        true
    }

    /// Two batches of half the texts each; the batch has more than one.
    pub fn halves(mut self) -> [Batch; 2] {
        let second = self.texts.split_off(self.texts.len() / 2);
        [Batch { texts: second, ..self.clone() }, self]
    }

    /// Batches of its texts that hold no more than this each, unless one text does.
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

    /// Drops the takers that are gone, and texts nobody wants any more.
    pub fn retain(&mut self, is_awaited: impl Fn(u64) -> bool) {
        for text in &mut self.texts {
            text.takers.retain(|(ticket, _)| is_awaited(*ticket));
        }
        self.texts.retain(|text| !text.takers.is_empty());
    }
}

/// What waits, by priority; within one, each lane has its turn.
#[derive(Default)]
pub struct Line {
    lanes: [VecDeque<(u64, VecDeque<Item>)>; 3],
    /// Batches that were sent in vain, whole or as halves; they go first.
    again: [VecDeque<Batch>; 3],
    texts: [usize; 3],
    tokens: [u64; 3],
    bytes: [u64; 3],
}

impl Line {
    /// Adds texts behind their lane's others.
    pub fn push(&mut self, lane: u64, priority: Priority, items: Vec<Item>) {
        let level = priority as usize;
        self.texts[level] += items.len();
        self.tokens[level] += items.iter().map(|item| u64::from(item.tokens)).sum::<u64>();
        self.bytes[level] += items.iter().map(|item| item.text.len() as u64).sum::<u64>();
        let lanes = &mut self.lanes[level];
        match lanes.iter_mut().find(|(id, _)| *id == lane) {
            Some((_, waiting)) => waiting.extend(items),
            None => lanes.push_back((lane, items.into())),
        }
    }

    /// Adds a batch that is to be sent again, before everything else of its priority.
    pub fn push_again(&mut self, batch: Batch) {
        self.again[batch.priority as usize].push_front(batch);
    }

    /// Whether anything of this priority waits.
    pub fn waits(&self, priority: Priority) -> bool {
        self.texts[priority as usize] > 0 || !self.again[priority as usize].is_empty()
    }

    /// Whether what waits is a whole request, so that waiting for more brings nothing.
    pub fn is_full(&self, priority: Priority, caps: Load) -> bool {
        let level = priority as usize;
        !self.again[level].is_empty()
            || self.texts[level] as u64 >= caps.texts
            || self.tokens[level] >= caps.tokens
    }

    /// Takes the next request out: as many texts as it may hold, equal ones once. None when nobody waits any more.
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
            // What is larger than what has been learned since is cut to that.
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
        while let Some((lane, mut waiting)) = self.lanes[level].pop_front() {
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
                if !is_awaited(item.taker.0) {
                    continue;
                }
                match known {
                    Some(place) => batch.texts[place].takers.push(item.taker),
                    None => {
                        places.insert(item.text.clone(), batch.texts.len());
                        load = with;
                        let takers = vec![item.taker];
                        batch.texts.push(Text { text: item.text, tokens: item.tokens, takers });
                    }
                }
            }
            if !waiting.is_empty() {
                // Its next turn comes last.
                self.lanes[level].push_back((lane, waiting));
            }
            if full {
                break;
            }
        }
        (!batch.texts.is_empty()).then_some(batch)
    }

    /// What the next request will hold, or about.
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

    /// The tickets of everything that waits.
    pub fn tickets(&self) -> impl Iterator<Item = u64> {
        let waiting = self.lanes.iter().flatten().flat_map(|(_, items)| items);
        let again = self.again.iter().flatten().flat_map(Batch::tickets);
        waiting.map(|item| item.taker.0).chain(again)
    }

    /// Whether nothing waits at all.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.texts.iter().all(|count| *count == 0) && self.again.iter().all(VecDeque::is_empty)
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        *self = Line::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Load = Load { texts: 3, tokens: 100, bytes: 1000 };

    fn items(ticket: u64, texts: &[&str], tokens: u32) -> Vec<Item> {
        let numbered = (0..).zip(texts);
        numbered
            .map(|(n, text)| Item { taker: (ticket, n), text: (*text).into(), tokens })
            .collect()
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.texts.iter().map(|text| &*text.text).collect()
    }

    #[test]
    fn requests_are_as_full_as_they_may_be_and_equal_texts_go_once() {
        let mut line = Line::default();
        line.push(1, Priority::Change, items(1, &["a", "b"], 10));
        assert!(!line.is_full(Priority::Change, CAPS));
        line.push(1, Priority::Change, items(2, &["b", "c", "d"], 10));
        assert!(line.is_full(Priority::Change, CAPS));
        let batch = line.next(Priority::Change, CAPS, |_| true).unwrap();
        assert_eq!(texts(&batch), ["a", "b", "c"]);
        assert_eq!(batch.texts[1].takers, [(1, 1), (2, 0)]);
        assert_eq!(texts(&line.next(Priority::Change, CAPS, |_| true).unwrap()), ["d"]);
        assert!(line.is_empty() && line.next(Priority::Change, CAPS, |_| true).is_none());
    }

    #[test]
    fn tokens_are_a_limit_too_but_a_large_text_goes_alone() {
        let mut line = Line::default();
        line.push(1, Priority::Backfill, items(1, &["a", "b", "c"], 60));
        line.push(1, Priority::Backfill, items(2, &["huge"], 1000));
        let mut sizes = Vec::new();
        while let Some(batch) = line.next(Priority::Backfill, CAPS, |_| true) {
            sizes.push(texts(&batch).len());
        }
        assert_eq!(sizes, [1, 1, 1, 1]);
    }

    #[test]
    fn lanes_take_turns_and_those_gone_are_skipped() {
        let mut line = Line::default();
        line.push(1, Priority::Change, items(1, &["a", "b", "c", "d"], 1));
        line.push(2, Priority::Change, items(2, &["x"], 1));
        line.push(3, Priority::Change, items(3, &["gone"], 1));
        let is_awaited = |ticket| ticket != 3;
        assert_eq!(texts(&line.next(Priority::Change, CAPS, is_awaited).unwrap()), ["a", "b", "c"]);
        assert_eq!(texts(&line.next(Priority::Change, CAPS, is_awaited).unwrap()), ["x", "d"]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_batch_is_split_until_one_text_is_left() {
        let mut line = Line::default();
        line.push(1, Priority::Change, items(1, &["a", "b", "c"], 1));
        let batch = line.next(Priority::Change, CAPS, |_| true).unwrap();
        let mut all = Vec::new();
        for half in batch.halves() {
            line.push_again(half);
        }
        while let Some(half) = line.next(Priority::Change, CAPS, |_| true) {
            all.push(texts(&half).join(" "));
        }
        assert_eq!(all, ["a", "b c"]);
    }

    #[test]
    fn a_batch_is_cut_to_what_is_known_to_be_taken() {
        let mut line = Line::default();
        line.push(1, Priority::Change, items(1, &["a", "b", "c"], 60));
        let all = Load { tokens: 200, ..CAPS };
        let batch = line.next(Priority::Change, all, |_| true).unwrap();
        assert_eq!(batch.load(), Load { texts: 3, tokens: 180, bytes: 3 });
        line.push_again(batch);
        let two = Load { texts: 2, ..all };
        assert_eq!(line.ahead(Priority::Change, two), Load { texts: 2, tokens: 180, bytes: 3 });
        assert_eq!(texts(&line.next(Priority::Change, two, |_| true).unwrap()), ["a", "b"]);
        // A text that is more than that goes alone.
        let few = Load { tokens: 10, ..all };
        assert_eq!(texts(&line.next(Priority::Change, few, |_| true).unwrap()), ["c"]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_reply_stays_within_bounds() {
        assert_eq!(caps(100_000, 1, 4096).texts, 1024);
        assert_eq!(caps(100, 1, 0).texts, 100);
    }
}
