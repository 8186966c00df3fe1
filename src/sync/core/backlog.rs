//! The keys of one vector table that wait: folded, changes before pages of a scan, never one key in two batches.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::planted::{Fault, is_planted};

/// Why a key waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A row of the queue has it, because it changed.
    QueueRow(i64),
    /// A row of the queue has it, because the scan of another worker has found it.
    PagedRow(i64),
    /// A page of a scan has it.
    Page(u64),
}

/// A key that was taken into a batch, with everything that waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenKey {
    pub key: String,
    pub origins: Vec<Origin>,
}

impl TakenKey {
    /// Whether the scan of another worker waits for it.
    pub fn is_of_another_scan(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::PagedRow(_)))
    }
}

/// The backlog of one vector table.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Keys in the order of their changes; a key that is no longer in `waiting` was taken through the other list.
    changed: VecDeque<String>,
    paged: VecDeque<String>,
    waiting: HashMap<String, Vec<Origin>>,
    in_flight: HashSet<String>,
    /// Keys that changed again while they were in flight.
    held: HashSet<String>,
    /// Keys that only the provider can complete, and how many of them only a page has.
    awaiting_provider: BTreeSet<String>,
    awaiting_provider_paged: usize,
    /// Keys that each queue row still has.
    rows: BTreeMap<i64, usize>,
    /// Keys that each page still has.
    pages: BTreeMap<u64, usize>,
    /// Pages that a scan has found, here or through another worker's queue rows; the others are loaded again for what is
    /// in flight.
    found: HashSet<u64>,
    found_rows: HashSet<i64>,
    /// Keys in flight whose changes were dropped.
    doubtful: HashSet<String>,
    last_page: u64,
}

impl Backlog {
    /// Adds the keys of a queue row, which changes overtake when it is paged. A row that is there already is not added again.
    pub fn add_row(&mut self, id: i64, keys: Vec<String>, is_paged: bool) {
        if self.rows.contains_key(&id) {
            return;
        }
        let origin = if is_paged { Origin::PagedRow(id) } else { Origin::QueueRow(id) };
        let mut distinct = HashSet::new();
        for key in keys {
            if distinct.insert(key.clone()) {
                self.add(key, origin);
            }
        }
        self.rows.insert(id, distinct.len());
        if is_paged {
            self.found_rows.insert(id);
        }
    }

    /// Adds the keys of a page that a scan has found, and gives the page a number.
    pub fn add_found_page(&mut self, keys: Vec<String>) -> u64 {
        let number = self.add_page(keys);
        if self.pages.contains_key(&number) {
            self.found.insert(number);
        }
        number
    }

    /// Adds keys that are to be loaded again as a page, and gives the page a number.
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
        let is_change = matches!(origin, Origin::QueueRow(_));
        let Some(origins) = self.waiting.get_mut(&key) else {
            self.waiting.insert(key.clone(), vec![origin]);
            let list = if is_change { &mut self.changed } else { &mut self.paged };
            return list.push_back(key);
        };
        let was_paged = is_paged(origins);
        origins.push(origin);
        if is_change && self.awaiting_provider.remove(&key) {
            // After the change it may need no provider.
            self.awaiting_provider_paged -= usize::from(was_paged);
            self.changed.push_back(key);
        } else if was_paged && is_change {
            // A change does not wait for the turn of its page.
            self.changed.push_back(key);
        }
    }

    /// Takes up to `count` keys that have changed.
    pub fn take_changed(&mut self, count: usize) -> Vec<TakenKey> {
        self.take(count, false)
    }

    /// Takes up to `count` keys that only pages have.
    pub fn take_paged(&mut self, count: usize) -> Vec<TakenKey> {
        self.take(count, true)
    }

    fn take(&mut self, count: usize, paged: bool) -> Vec<TakenKey> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let from = if paged { &mut self.paged } else { &mut self.changed };
            let Some(key) = from.pop_front() else { break };
            if self.awaiting_provider.contains(&key) {
                // It was taken through the other list, and this is what is left of it here.
            } else if self.in_flight.contains(&key) && !is_planted(Fault::KeyInTwoBatches) {
                self.held.insert(key);
            } else if let Some(origins) = self.waiting.remove(&key) {
                self.in_flight.insert(key.clone());
                taken.push(TakenKey { key, origins });
            }
        }
        taken
    }

    /// Puts keys back in front of the others.
    pub fn give_back(&mut self, keys: Vec<TakenKey>) {
        for taken in keys.into_iter().rev() {
            let Some(TakenKey { key, origins }) = self.join_newer(taken) else { continue };
            let list = if is_paged(&origins) { &mut self.paged } else { &mut self.changed };
            list.push_front(key.clone());
            self.waiting.insert(key, origins);
        }
    }

    /// Puts keys back that only the provider can complete. They wait until it is tried again; a change takes one back.
    pub fn await_provider(&mut self, keys: Vec<TakenKey>) {
        for taken in keys {
            let Some(TakenKey { key, origins }) = self.join_newer(taken) else { continue };
            self.awaiting_provider_paged += usize::from(is_paged(&origins));
            self.waiting.insert(key.clone(), origins);
            self.awaiting_provider.insert(key);
        }
    }

    /// Ends the flight of a key. Where it has changed again meanwhile it is loaded for that in any case, and what waited for
    /// it waits for that; else it comes back.
    fn join_newer(&mut self, mut taken: TakenKey) -> Option<TakenKey> {
        self.release(&taken.key);
        taken.origins.retain(|origin| is_wanted(origin, &self.rows, &self.pages));
        if taken.origins.is_empty() {
            return None;
        }
        let Some(newer) = self.waiting.get_mut(&taken.key) else { return Some(taken) };
        let was_paged = is_paged(newer);
        newer.extend(taken.origins);
        if was_paged {
            self.changed.push_front(taken.key);
        }
        None
    }

    /// Takes back up to so many keys that await the provider.
    pub fn retry_provider(&mut self, count: usize) {
        let keys: Vec<String> = self.awaiting_provider.iter().take(count).cloned().collect();
        for key in keys {
            match self.take_back(&key) {
                Some(true) => self.paged.push_back(key),
                _ => self.changed.push_back(key),
            }
        }
    }

    /// Takes back those of some keys that await the provider: their rows are gone, which needs none.
    pub fn retry_without_provider(&mut self, keys: &[String]) {
        for key in keys {
            if self.take_back(key).is_some() {
                self.changed.push_back(key.clone());
            }
        }
    }

    /// Takes back a key that awaits the provider, if it does; true when only pages have it.
    fn take_back(&mut self, key: &str) -> Option<bool> {
        self.awaiting_provider.take(key)?;
        let is_paged = self.waiting.get(key).is_some_and(|origins| is_paged(origins));
        self.awaiting_provider_paged -= usize::from(is_paged);
        Some(is_paged)
    }

    fn release(&mut self, key: &str) {
        self.in_flight.remove(key);
        self.doubtful.remove(key);
        if let Some(key) = self.held.take(key) {
            self.changed.push_front(key);
        }
    }

    /// Queue rows that are complete once these keys are.
    pub fn rows_complete_with<'a>(&self, keys: impl IntoIterator<Item = &'a TakenKey>) -> Vec<i64> {
        let mut complete: HashMap<i64, usize> = HashMap::new();
        for origin in keys.into_iter().flat_map(|k| &k.origins) {
            if let Origin::QueueRow(id) | Origin::PagedRow(id) = origin {
                *complete.entry(*id).or_default() += 1;
            }
        }
        let is_last = |(id, keys): &(i64, usize)| {
            let left = self.rows.get(id);
            left.is_some_and(|left| left <= keys || is_planted(Fault::RowCompleteWithFirstKey))
        };
        let mut rows: Vec<i64> = complete.into_iter().filter(is_last).map(|(id, _)| id).collect();
        rows.sort_unstable();
        rows
    }

    /// Notes that keys are complete, after the transaction that did them has committed.
    pub fn complete(&mut self, keys: &[TakenKey]) {
        for id in self.rows_complete_with(keys) {
            self.rows.remove(&id);
            self.found_rows.remove(&id);
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
                                self.found.remove(page);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether a scan has found some of what is here.
    pub fn has_found(&self) -> bool {
        !self.found.is_empty() || !self.found_rows.is_empty()
    }

    /// Drops what waits only because a scan has found it: its task was cancelled, and with it the queue rows for other
    /// workers. A key in flight is dropped when it comes back.
    pub fn drop_found(&mut self) {
        for page in self.found.drain() {
            self.pages.remove(&page);
        }
        for row in self.found_rows.drain() {
            self.rows.remove(&row);
        }
        let (rows, pages) = (&self.rows, &self.pages);
        for (key, origins) in &mut self.waiting {
            let was_paged = is_paged(origins);
            origins.retain(|origin| is_wanted(origin, rows, pages));
            if origins.is_empty() && self.awaiting_provider.remove(key) {
                self.awaiting_provider_paged -= usize::from(was_paged);
            }
        }
        self.waiting.retain(|_, origins| !origins.is_empty());
        self.paged.retain(|key| self.waiting.contains_key(key));
    }

    /// Drops all that waits: the vector table was never filled, and its first load will read everything.
    pub fn drop_waiting(&mut self) {
        let Self { in_flight, last_page, .. } = std::mem::take(self);
        *self = Self { doubtful: in_flight.clone(), in_flight, last_page, ..Self::default() };
    }

    /// Whether a key in flight has changed again since it was taken, or may have.
    pub fn has_newer(&self, key: &str) -> bool {
        self.waiting.contains_key(key) || self.doubtful.contains(key)
    }

    /// Whether a key waits or is in flight.
    pub fn has_key(&self, key: &str) -> bool {
        self.waiting.contains_key(key) || self.in_flight.contains(key)
    }

    /// Keys in flight.
    pub fn in_flight(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.in_flight.iter().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Keys that wait, those that await the provider included.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Whether every key of a page is complete.
    pub fn is_page_complete(&self, page: u64) -> bool {
        !self.pages.contains_key(&page)
    }

    /// Keys that have changed and may be taken; some of them may have been taken already.
    pub fn changed_len(&self) -> usize {
        self.changed.len()
    }

    /// Keys that only pages have, those that await the provider included.
    pub fn paged_len(&self) -> usize {
        self.paged.len() + self.awaiting_provider_paged
    }

    /// Keys that only pages have and that await the provider.
    pub fn awaiting_provider_paged_len(&self) -> usize {
        self.awaiting_provider_paged
    }

    /// Keys that await the provider.
    pub fn awaiting_provider_len(&self) -> usize {
        self.awaiting_provider.len()
    }

    /// The oldest queue row that is not complete.
    pub fn lowest_row(&self) -> Option<i64> {
        self.rows.first_key_value().map(|(id, _)| *id)
    }
}

/// Whether what a key waits for was not dropped.
fn is_wanted(origin: &Origin, rows: &BTreeMap<i64, usize>, pages: &BTreeMap<u64, usize>) -> bool {
    match origin {
        Origin::QueueRow(_) => true,
        Origin::PagedRow(id) => rows.contains_key(id),
        Origin::Page(page) => pages.contains_key(page),
    }
}

/// Whether only pages have a key.
fn is_paged(origins: &[Origin]) -> bool {
    !origins.iter().any(|origin| matches!(origin, Origin::QueueRow(_)))
}

#[cfg(test)]
mod tests;
