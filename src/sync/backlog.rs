//! The keys of one vector table that wait for work or are in work: folded, fresh changes first, never one key in two batches.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Why a key is in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A row of the queue names it.
    QueueRow(i64),
    /// The page of a backfill names it.
    Page,
}

/// A key taken into work, with everything that is waiting for it.
#[derive(Clone, Debug)]
pub struct Taken {
    pub key: String,
    pub origins: Vec<Origin>,
}

/// The backlog of one vector table.
#[derive(Default)]
pub struct Backlog {
    /// Keys in the order of their changes; a key that is no longer in `waiting` was taken through the other list.
    fresh: VecDeque<String>,
    paged: VecDeque<String>,
    waiting: HashMap<String, Vec<Origin>>,
    in_work: HashSet<String>,
    /// Keys that changed again while they were in work.
    held: HashSet<String>,
    /// Keys still to be done of each queue row.
    rows: BTreeMap<i64, usize>,
    page_left: usize,
}

impl Backlog {
    /// Adds the keys of a queue row.
    pub fn add_row(&mut self, id: i64, keys: Vec<String>) {
        let mut distinct = HashSet::new();
        for key in keys {
            if distinct.insert(key.clone()) {
                self.add(key, Origin::QueueRow(id));
            }
        }
        self.rows.insert(id, distinct.len());
    }

    /// Adds the keys of a backfill's next page.
    pub fn add_page(&mut self, keys: Vec<String>) {
        self.page_left += keys.len();
        for key in keys {
            self.add(key, Origin::Page);
        }
    }

    fn add(&mut self, key: String, origin: Origin) {
        match self.waiting.get_mut(&key) {
            Some(origins) => origins.push(origin),
            None => {
                self.waiting.insert(key.clone(), vec![origin]);
                match origin {
                    Origin::QueueRow(_) => self.fresh.push_back(key),
                    Origin::Page => self.paged.push_back(key),
                }
            }
        }
    }

    /// Takes up to `count` keys into work: changes first, then, if allowed, those of the page.
    pub fn take(&mut self, count: usize, paged_too: bool) -> Vec<Taken> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = match self.fresh.pop_front() {
                Some(key) => Some(key),
                None if paged_too => self.paged.pop_front(),
                None => None,
            };
            let Some(key) = next else { break };
            if self.in_work.contains(&key) {
                self.held.insert(key);
            } else if let Some(origins) = self.waiting.remove(&key) {
                self.in_work.insert(key.clone());
                taken.push(Taken { key, origins });
            }
        }
        taken
    }

    /// Puts keys back that could not be done, to be taken first.
    pub fn give_back(&mut self, keys: Vec<Taken>) {
        for Taken { key, origins } in keys.into_iter().rev() {
            self.release(&key);
            match self.waiting.get_mut(&key) {
                Some(newer) => newer.extend(origins),
                None => {
                    let only_page = origins.iter().all(|o| *o == Origin::Page);
                    self.waiting.insert(key.clone(), origins);
                    if only_page {
                        self.paged.push_front(key);
                    } else {
                        self.fresh.push_front(key);
                    }
                }
            }
        }
    }

    fn release(&mut self, key: &str) {
        self.in_work.remove(key);
        if let Some(key) = self.held.take(key) {
            self.fresh.push_front(key);
        }
    }

    /// Queue rows that are done once these keys are.
    pub fn rows_done_with(&self, keys: &[Taken]) -> Vec<i64> {
        let mut fewer: HashMap<i64, usize> = HashMap::new();
        for origin in keys.iter().flat_map(|k| &k.origins) {
            if let Origin::QueueRow(id) = origin {
                *fewer.entry(*id).or_default() += 1;
            }
        }
        fewer
            .into_iter()
            .filter(|(id, done)| self.rows.get(id).is_some_and(|left| left <= done))
            .map(|(id, _)| id)
            .collect()
    }

    /// Notes that keys are done, after the transaction that did them has committed.
    pub fn finish(&mut self, keys: &[Taken]) {
        for id in self.rows_done_with(keys) {
            self.rows.remove(&id);
        }
        for taken in keys {
            self.release(&taken.key);
            for origin in &taken.origins {
                match origin {
                    Origin::QueueRow(id) => {
                        if let Some(left) = self.rows.get_mut(id) {
                            *left -= 1;
                        }
                    }
                    Origin::Page => self.page_left -= 1,
                }
            }
        }
    }

    /// Keys in work.
    pub fn in_work(&self) -> Vec<String> {
        self.in_work.iter().cloned().collect()
    }

    /// Keys waiting to be taken.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits and nothing is in work.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_work.is_empty()
    }

    /// Whether every key of the page is done.
    pub fn is_page_done(&self) -> bool {
        self.page_left == 0
    }

    /// Queue rows read and not done.
    pub fn rows(&self) -> impl Iterator<Item = i64> {
        self.rows.keys().copied()
    }

    /// Oldest queue row that is not done.
    pub fn lowest_row(&self) -> Option<i64> {
        self.rows.first_key_value().map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| w.to_string()).collect()
    }

    fn names(taken: &[Taken]) -> Vec<&str> {
        taken.iter().map(|t| t.key.as_str()).collect()
    }

    #[test]
    fn changes_of_one_key_are_folded_and_finish_all_their_rows() {
        let mut backlog = Backlog::default();
        backlog.add_row(1, keys(&["a", "b", "a"]));
        backlog.add_row(2, keys(&["a"]));
        let taken = backlog.take(1, true);
        assert_eq!(names(&taken), ["a"]);
        assert_eq!(backlog.rows_done_with(&taken), [2]);
        backlog.finish(&taken);
        let taken = backlog.take(10, true);
        assert_eq!(names(&taken), ["b"]);
        assert_eq!(backlog.rows_done_with(&taken), [1]);
        backlog.finish(&taken);
        assert!(backlog.is_empty());
        assert_eq!(backlog.lowest_row(), None);
    }

    #[test]
    fn a_key_that_changes_while_in_work_waits_for_its_end() {
        let mut backlog = Backlog::default();
        backlog.add_row(1, keys(&["a"]));
        let first = backlog.take(10, true);
        backlog.add_row(2, keys(&["a"]));
        assert!(backlog.take(10, true).is_empty());
        backlog.finish(&first);
        let second = backlog.take(10, true);
        assert_eq!(names(&second), ["a"]);
        assert_eq!(backlog.rows_done_with(&second), [2]);
    }

    #[test]
    fn work_given_back_is_taken_first_and_keeps_newer_changes() {
        let mut backlog = Backlog::default();
        backlog.add_row(1, keys(&["a", "b"]));
        let first = backlog.take(1, true);
        backlog.add_row(2, keys(&["a"]));
        backlog.give_back(first);
        let again = backlog.take(10, true);
        assert_eq!(names(&again), ["b", "a"]);
        assert_eq!(backlog.rows_done_with(&again).len(), 2);
        backlog.finish(&again);
        assert!(backlog.is_empty());
        assert!(backlog.take(10, true).is_empty());
    }

    #[test]
    fn fresh_changes_go_before_the_page() {
        let mut backlog = Backlog::default();
        backlog.add_page(keys(&["a", "b", "c"]));
        backlog.add_row(7, keys(&["z", "b"]));
        assert_eq!(names(&backlog.take(1, true)), ["z"]);
        assert!(names(&backlog.take(3, false)).is_empty());
        let page = backlog.take(10, true);
        assert_eq!(names(&page), ["a", "b", "c"]);
        assert!(!backlog.is_page_done());
        backlog.finish(&page);
        assert!(backlog.is_page_done());
        assert_eq!(backlog.lowest_row(), Some(7));
    }
}
