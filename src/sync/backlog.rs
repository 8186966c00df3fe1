//! The keys of one vector table that wait for work or are in work: folded, fresh changes first, never one key in two batches.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Why a key is in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A row of the queue names it, because it changed.
    QueueRow(i64),
    /// A row of the queue names it, because another worker's scan has found it.
    PagedRow(i64),
    /// This page of a scan names it.
    Page(u64),
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
    /// Keys that wait for the provider, and how many of them only a page names.
    parked: HashSet<String>,
    parked_paged: usize,
    /// Keys still to be done of each queue row.
    rows: BTreeMap<i64, usize>,
    /// Keys still to be done of each page.
    pages: BTreeMap<u64, usize>,
    last_page: u64,
}

impl Backlog {
    /// Adds the keys of a queue row, which changes overtake when it is paged. One that is there already is not added again.
    pub fn add_row(&mut self, id: i64, keys: Vec<String>, is_paged: bool) {
        if self.rows.contains_key(&id) {
            return;
        }
        let mut distinct = HashSet::new();
        let origin = if is_paged { Origin::PagedRow(id) } else { Origin::QueueRow(id) };
        for key in keys {
            if distinct.insert(key.clone()) {
                self.add(key, origin);
            }
        }
        self.rows.insert(id, distinct.len());
    }

    /// Adds the keys of a page, and gives it a number.
    pub fn add_page(&mut self, keys: Vec<String>) -> u64 {
        self.last_page += 1;
        if !keys.is_empty() {
            self.pages.insert(self.last_page, keys.len());
        }
        for key in keys {
            self.add(key, Origin::Page(self.last_page));
        }
        self.last_page
    }

    fn add(&mut self, key: String, origin: Origin) {
        match self.waiting.get_mut(&key) {
            Some(origins) => {
                let only_page = only_page(origins);
                origins.push(origin);
                let is_change = matches!(origin, Origin::QueueRow(_));
                if is_change && self.parked.remove(&key) {
                    // Whatever it needed of the provider, it may need something else now.
                    self.parked_paged -= usize::from(only_page);
                    self.fresh.push_back(key);
                } else if only_page && is_change {
                    // A change does not wait for the turn of its page.
                    self.fresh.push_back(key);
                }
            }
            None => {
                self.waiting.insert(key.clone(), vec![origin]);
                match origin {
                    Origin::QueueRow(_) => self.fresh.push_back(key),
                    Origin::Page(_) | Origin::PagedRow(_) => self.paged.push_back(key),
                }
            }
        }
    }

    /// Takes up to `count` keys into work that have changed.
    pub fn take_fresh(&mut self, count: usize) -> Vec<Taken> {
        self.take(count, false)
    }

    /// Takes up to `count` keys into work that pages name.
    pub fn take_paged(&mut self, count: usize) -> Vec<Taken> {
        self.take(count, true)
    }

    fn take(&mut self, count: usize, paged: bool) -> Vec<Taken> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let from = if paged { &mut self.paged } else { &mut self.fresh };
            let Some(key) = from.pop_front() else { break };
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
                Some(newer) => {
                    let only_page = only_page(newer);
                    newer.extend(origins);
                    if only_page {
                        self.fresh.push_front(key);
                    }
                }
                None => {
                    let only_page = only_page(&origins);
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

    /// Puts keys aside that can only be done by the provider, until it is there again; a change takes one back.
    pub fn park(&mut self, keys: Vec<Taken>) {
        for Taken { key, origins } in keys {
            self.release(&key);
            match self.waiting.get_mut(&key) {
                // It has changed again, and is looked at for that in any case.
                Some(newer) => {
                    let waits_for_page = only_page(newer);
                    newer.extend(origins);
                    if waits_for_page {
                        self.fresh.push_front(key);
                    }
                }
                None => {
                    self.parked_paged += usize::from(only_page(&origins));
                    self.waiting.insert(key.clone(), origins);
                    self.parked.insert(key);
                }
            }
        }
    }

    /// Takes up to so many keys back that were put aside.
    pub fn unpark(&mut self, count: usize) {
        let keys: Vec<String> = self.parked.iter().take(count).cloned().collect();
        for key in keys {
            match self.take_back(&key) {
                Some(true) => self.paged.push_back(key),
                _ => self.fresh.push_back(key),
            }
        }
    }

    /// Takes back those of some keys that were put aside: they can be done without the provider now.
    pub fn unpark_keys(&mut self, keys: &[String]) {
        for key in keys {
            if self.take_back(key).is_some() {
                self.fresh.push_back(key.clone());
            }
        }
    }

    /// Takes a key back that was put aside, if it was; true when only pages name it.
    fn take_back(&mut self, key: &str) -> Option<bool> {
        self.parked.take(key)?;
        let only_page = self.waiting.get(key).is_some_and(|origins| only_page(origins));
        self.parked_paged -= usize::from(only_page);
        Some(only_page)
    }

    /// Keys that are put aside and that only pages name.
    pub fn parked_paged_len(&self) -> usize {
        self.parked_paged
    }

    /// Keys that are put aside.
    pub fn parked_len(&self) -> usize {
        self.parked.len()
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
            if let Origin::QueueRow(id) | Origin::PagedRow(id) = origin {
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
                    Origin::QueueRow(id) | Origin::PagedRow(id) => {
                        if let Some(left) = self.rows.get_mut(id) {
                            *left -= 1;
                        }
                    }
                    Origin::Page(page) => {
                        if let Some(left) = self.pages.get_mut(page) {
                            *left -= 1;
                            if *left == 0 {
                                self.pages.remove(page);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether a key in work has changed again since it was taken.
    pub fn has_newer(&self, key: &str) -> bool {
        self.waiting.contains_key(key)
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
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_work.is_empty()
    }

    /// Whether every key of a page is done.
    pub fn is_page_done(&self, page: u64) -> bool {
        !self.pages.contains_key(&page)
    }

    /// Keys waiting to be taken that have changed.
    pub fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    /// Keys waiting that pages name, those put aside included.
    pub fn paged_len(&self) -> usize {
        self.paged.len() + self.parked_paged
    }

    /// Oldest queue row that is not done.
    pub fn lowest_row(&self) -> Option<i64> {
        self.rows.first_key_value().map(|(id, _)| *id)
    }
}

/// Whether nothing but a scan names a key.
fn only_page(origins: &[Origin]) -> bool {
    !origins.iter().any(|origin| matches!(origin, Origin::QueueRow(_)))
}

#[cfg(test)]
mod tests;
