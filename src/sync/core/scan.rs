//! The scan of one task: all orphans, then all of the source, then the indexes, page by page, with checkpoints. Pure.

use std::collections::VecDeque;

use super::Config;
use super::action::{FoundPage, Lookup, ScanStep, Then};
use super::backlog::Backlog;
use super::planted::{Fault, is_planted};
use crate::task::{Checkpoint, Phase, Task};

/// Which page is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    pub phase: Phase,
    /// The key after which it begins.
    pub after: Option<String>,
    pub lookup: Lookup,
}

/// A page that was read.
#[derive(Clone, Debug)]
struct Page {
    /// Its number in the backlog.
    number: u64,
    phase: Phase,
    /// Where a restart may go on once it is complete; none when nothing can be said.
    resume: Option<Option<String>>,
    rows: i64,
    different: i64,
    /// Queue rows through which other workers have their part of it.
    handed_out: Vec<HandedOut>,
}

/// A queue row for another worker: its worker and its id.
pub type HandedOut = (u16, i64);

/// Pages that wait for other workers, beyond which no more are read.
const HANDED_OUT_PAGES: usize = 4;

/// A scan under way. Its keys go through the same backlog as changes.
#[derive(Clone, Debug)]
pub struct Scan {
    task: Task,
    phase: Phase,
    /// Passes over the source that are left, by the key after which each begins. The last one makes a restart go on
    /// where it is; what a pass before it has read may have changed since, all at once.
    passes: VecDeque<Option<String>>,
    /// The last key that was read in this phase and pass.
    read_to: Option<String>,
    /// Pages that were read and are not complete, in their order.
    pages: VecDeque<Page>,
    /// Whether everything is read.
    is_read: bool,
    /// Whether it is decided if the indexes are dropped for the load.
    has_deferred: bool,
    /// Keys of a page.
    page: usize,
    /// Whether it is a batch run, and has compared source and vector table.
    is_run: bool,
    has_compared: bool,
    lookup: Lookup,
    /// Pages of the source that were read.
    source_pages: u64,
    /// Whether the other workers' parts may be looked at: once in each round.
    may_look: bool,
    /// Queue rows through which other workers have not acknowledged yet that it begins.
    others: Vec<HandedOut>,
}

impl Scan {
    /// The scan of a task from where it is. Keys in flight may be older than what the task is about: the scan waits
    /// until they were loaded again, in the page of the backlog with this number.
    ///
    /// It begins when the other workers have acknowledged these queue rows.
    pub fn new(task: Task, in_flight: u64, others: Vec<HandedOut>, config: Config) -> Self {
        let is_run = config.is_run;
        let source = match task.phase {
            Phase::Source => task.last_key.clone(),
            _ => None,
        };
        let is_read = task.phase >= Phase::Index;
        let passes = if is_read { VecDeque::new() } else { [source].into() };
        let mut scan = Self {
            phase: task.phase,
            passes,
            read_to: task.last_key.clone().filter(|_| task.phase != Phase::ProviderBatch),
            pages: VecDeque::new(),
            is_read,
            has_deferred: task.last_key.is_some(),
            page: config.page,
            is_run,
            has_compared: false,
            lookup: Lookup::Index,
            source_pages: 0,
            may_look: true,
            others,
            task,
        };
        if is_run && !scan.is_read {
            (scan.phase, scan.read_to) = (Phase::Source, None);
        }
        scan.pages.push_back(Page {
            number: in_flight,
            phase: scan.phase,
            resume: None,
            rows: 0,
            different: 0,
            handed_out: Vec::new(),
        });
        scan
    }

    /// The scan of the same task after bulk changes: the orphans first, then the source on from where `before` was, so
    /// that many bulk changes never keep it from getting ahead, then all of the source where any row may have changed.
    pub fn after_bulk_changes(mut self, before: Option<Self>, has_changed: bool) -> Self {
        // A task that was open and has no scan, or was restarted by a session since, owes all of the source.
        let is_same = before.as_ref().map_or(self.task.attempt <= 1, |before| {
            before.task.id == self.task.id && before.task.attempt + 2 == self.task.attempt
        });
        self.has_deferred = true;
        let mut left = VecDeque::new();
        if let Some(mut before) = before {
            if before.phase == Phase::Source
                && !before.is_read
                && let Some(pass) = before.passes.front_mut()
            {
                pass.clone_from(&before.read_to);
            }
            left = before.passes;
            self.pages.extend(before.pages.into_iter().map(|page| Page { resume: None, ..page }));
        }
        self.passes = match left.front().cloned().flatten() {
            _ if !is_same => [None].into(),
            _ if !has_changed => left,
            None => [None].into(),
            reached => [reached, None].into(),
        };
        self
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Whether it is to be decided if the indexes are dropped for the load.
    pub fn shall_defer_indexes(&self) -> bool {
        !self.has_deferred && self.phase == Phase::Source
    }

    /// That was decided.
    pub fn has_deferred_indexes(&mut self) {
        self.has_deferred = true;
    }

    /// Whether all rows are complete, and the indexes are to be built.
    pub fn awaits_indexes(&self) -> bool {
        self.phase == Phase::Index && self.pages.is_empty()
    }

    /// Whether all rows are complete and the indexes are built, and the shadow is to be swapped in.
    pub fn awaits_swap(&self) -> bool {
        let is_complete = self.phase == Phase::Swap && self.pages.is_empty();
        is_complete && self.others.is_empty()
            || is_planted(Fault::SwapsTooEarly) && self.source_pages > 0
    }

    /// Whether bulk changes that have come may restart it: it removes no orphans, and has got ahead since it began to
    /// read the source.
    pub fn may_restart(&self) -> bool {
        !self.others.is_empty()
            || matches!(self.phase, Phase::ProviderBatch | Phase::Swap)
            || (self.phase == Phase::Source && self.source_pages > 0)
    }

    /// Whether it waits until the vectors of all new texts have come from the batch API of the provider.
    pub fn awaits_provider_batch(&self) -> bool {
        // Not for its pages: a row that is locked must not hold up all others.
        self.phase == Phase::ProviderBatch && self.others.is_empty()
    }

    /// Whether a page that was read is not complete: what is stored of the task must not be further yet.
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// They have come.
    pub fn provider_batch_ended(&mut self) {
        if self.phase == Phase::ProviderBatch {
            self.phase = Phase::Source;
        }
    }

    /// Whether it does nothing but wait until the other workers have acknowledged that it begins.
    pub fn awaits_workers(&self) -> bool {
        !self.may_look && !self.others.is_empty()
    }

    /// The next step, if there is one.
    pub fn next_step(&self, backlog: &Backlog) -> Option<ScanStep> {
        if self.awaits_indexes() || self.awaits_swap() {
            return None;
        }
        if !self.others.is_empty() {
            return self.may_look.then(|| self.step(None, Then::LookAt(self.others.clone())));
        }
        let handed_out: Vec<HandedOut> =
            self.pages.iter().flat_map(|page| page.handed_out.iter().copied()).collect();
        let complete = self.complete_pages(backlog);
        let is_waiting = complete < self.pages.len();
        let then = if self.may_look && !handed_out.is_empty() {
            Then::LookAt(handed_out)
        } else if self.is_run && !self.has_compared && !self.is_read {
            // It compares what no batch is at work on.
            if is_waiting {
                return None;
            }
            Then::Compare
        } else if self.phase == Phase::ProviderBatch {
            if complete == 0 {
                return None;
            }
            Then::Rest
        } else if !self.is_read && (!is_waiting || self.has_room(backlog)) {
            Then::Read(Find { phase: self.phase, after: self.read_to.clone(), lookup: self.lookup })
        } else if self.is_read && !is_waiting {
            Then::Finish
        } else if complete > 0 {
            Then::Rest
        } else {
            return None;
        };
        Some(self.step(self.checkpoint(complete), then))
    }

    fn step(&self, checkpoint: Option<Checkpoint>, then: Then) -> ScanStep {
        ScanStep { task: self.task.clone(), checkpoint, then }
    }

    /// How many pages at the front are complete.
    fn complete_pages(&self, backlog: &Backlog) -> usize {
        let is_complete =
            |page: &&Page| page.handed_out.is_empty() && backlog.is_page_complete(page.number);
        match is_planted(Fault::CheckpointTooEarly) {
            true => self.pages.len(),
            false => self.pages.iter().take_while(is_complete).count(),
        }
    }

    /// The checkpoint after so many pages.
    fn checkpoint(&self, pages: usize) -> Option<Checkpoint> {
        let pages = self.pages.iter().take(pages);
        let last =
            pages.clone().rev().find_map(|page| page.resume.clone().map(|key| (page.phase, key)));
        let rows = pages.clone().map(|page| page.rows).sum();
        let different = pages.map(|page| page.different).sum();
        let (phase, last_key) = last?;
        Some(Checkpoint { phase, last_key, rows, different })
    }

    fn has_room(&self, backlog: &Backlog) -> bool {
        let mut waiting = backlog.paged_len();
        if self.phase == Phase::Orphans {
            // To remove rows needs no provider.
            waiting -= backlog.awaiting_provider_paged_len();
        }
        let handed_out = self.pages.iter().filter(|page| !page.handed_out.is_empty()).count();
        waiting <= self.page / 2 && handed_out < HANDED_OUT_PAGES
    }

    /// A step was committed: its checkpoint is written.
    pub fn stepped(&mut self, backlog: &Backlog) {
        self.pages.drain(..self.complete_pages(backlog));
    }

    /// Those of the queue rows for other workers that are still there.
    pub fn looked_at(&mut self, left: &[HandedOut]) {
        self.may_look = false;
        if !self.others.is_empty() {
            return self.others.retain(|row| left.contains(row));
        }
        for page in &mut self.pages {
            page.handed_out.retain(|row| left.contains(row));
        }
    }

    /// A round begins: other workers may have done their parts.
    pub fn look_again(&mut self) {
        self.may_look = true;
    }

    /// Source and vector table were compared, in a batch run.
    pub fn compared(&mut self) {
        self.has_compared = true;
    }

    /// A page was read, which is in the backlog under this number; without a last key it ends the phase or the pass.
    pub fn add_page(&mut self, number: u64, page: &FoundPage) {
        let is_last_pass = self.phase == Phase::Orphans || self.passes.len() <= 1;
        let FoundPage { last, rows, different, handed_out, .. } = page;
        self.lookup = Lookup::Index;
        if let Some(last) = last {
            self.read_to = Some(last.clone());
            self.pages.push_back(Page {
                number,
                phase: self.phase,
                // A batch run that is interrupted compares again.
                resume: is_last_pass.then(|| Some(last.clone()).filter(|_| !self.is_run)),
                rows: *rows,
                different: *different,
                handed_out: handed_out.clone(),
            });
            self.source_pages += u64::from(self.phase == Phase::Source);
            return;
        }
        match self.phase {
            Phase::Orphans if self.task.is_batch_price => self.phase = Phase::ProviderBatch,
            Phase::Orphans => self.phase = Phase::Source,
            _ => drop(self.passes.pop_front()),
        }
        match self.passes.front() {
            Some(after) => self.read_to = after.clone(),
            None => self.is_read = true,
        }
    }

    /// The task is complete but for its indexes.
    pub fn await_indexes(&mut self) {
        (self.phase, self.is_read) = (Phase::Index, true);
    }

    /// The shadow is complete, and is to be swapped in.
    pub fn await_swap(&mut self) {
        (self.phase, self.is_read) = (Phase::Swap, true);
    }

    /// A row of the page could not be read: the next try does not look at the rows themselves. False when it did not
    /// this time.
    pub fn read_without_rows(&mut self) -> bool {
        std::mem::replace(&mut self.lookup, Lookup::FullScan) == Lookup::Index
    }
}
