//! What follows from the outcome of an action.

use std::time::Instant;

use super::action::{Action, Blame, Failure, FoundPage, Loaded, Lookup, Outcome, ScanStep, Then};
use super::backlog::TakenKey;
use super::in_flight::{Batch, BatchId, Stage};
use super::planted::{Fault, is_planted};
use super::scan::{HandedOut, Scan};
use super::{Builder, FixKind, TableSync};
use crate::task::Task;

impl TableSync {
    /// An action has ended.
    pub fn done(&mut self, action: Action, outcome: Outcome, now: Instant) {
        let is_of_table = !matches!(
            action,
            Action::Report(_)
                | Action::WriteProgress { .. }
                | Action::FixSource
                | Action::Load(_)
                | Action::Send(_)
        );
        if is_of_table && !matches!(outcome, Outcome::Failed(_)) {
            self.health.recovered(Some(now));
        }
        match (action, outcome) {
            (Action::Report(report), Outcome::Done) => self.health.reported(&report),
            (Action::Report(_), _) => self.health.could_not_report(now),
            // How far it is is written for speed alone.
            (Action::WriteProgress { .. }, _) => self.progress.written(now),
            (Action::FixSource, Outcome::Done) => {
                if self.fix.take() == Some(FixKind::Clear) {
                    self.task = None;
                    self.scan = None;
                }
            }
            (Action::DeferIndexes, _) => {
                // Where a long transaction holds the table, the load goes on with its indexes.
                if let Some(scan) = &mut self.scan {
                    scan.has_deferred_indexes();
                }
            }
            (Action::TakeBulkChanges { rows, has_changed }, Outcome::Task(task)) => {
                self.bulk_changes.retain(|(id, _)| !rows.contains(id));
                self.bulk_since = self.bulk_since.filter(|_| !self.bulk_changes.is_empty());
                self.task = task.as_ref().map(|(task, _)| task.id);
                let before = self.scan.take();
                self.scan =
                    task.map(|task| self.begin(task).after_bulk_changes(before, has_changed));
            }
            (Action::Acknowledge { rows, .. }, Outcome::Done) => {
                self.unacknowledged.retain(|id| !rows.contains(id));
            }
            (Action::BeginTask(_), Outcome::NotYet) => self.swap.begin.fail(now, None),
            (Action::BeginTask(_), Outcome::Task(task)) => {
                self.swap.begin.reset();
                self.health.index.reset();
                self.task = task.as_ref().map(|(task, _)| task.id);
                self.scan = task.map(|task| self.begin(task));
            }
            (Action::Scan(step), outcome) => self.scan_stepped(&step, outcome, now),
            (Action::BuildIndexes, Outcome::Done) => self.builder = Builder::Running,
            (Action::BuildIndexes, Outcome::Failed(failure)) => {
                self.health.index_failed(Some(&failure.reason), false, now);
            }
            (Action::CheckIndexes { .. }, outcome) => self.indexes_checked(outcome, now),
            (Action::Swap { tries, .. }, outcome) => self.swap_tried(tries, outcome, now),
            (Action::DropOld, Outcome::Done) => {
                self.swap.old.reset();
                self.config.has_old = false;
            }
            (Action::DropOld, _) => self.swap.old.fail(now, None),
            (Action::Load(id), Outcome::Loaded(loaded)) => self.loaded(id, loaded, now),
            (Action::Send(id), Outcome::Sent(share)) => {
                if let Some(batch) = self.in_flight.get_mut(id)
                    && let Stage::Send(documents) = &mut batch.stage
                {
                    batch.stage = Stage::Embed(std::mem::take(documents));
                    self.share = Some(share);
                }
            }
            (Action::Send(id), _) => self.give_back(id),
            (Action::Store(id), Outcome::Done) => {
                self.window = self.window.saturating_mul(2);
                self.complete_batch(id, now);
            }
            (Action::Fail(id), Outcome::Done) => self.complete_batch(id, now),
            (Action::Load(id) | Action::Store(id), Outcome::Failed(failure)) => {
                self.batch_failed(id, &failure, now);
            }
            (Action::Fail(id), Outcome::Failed(failure)) => {
                self.give_back(id);
                self.table_failed(&failure, now);
            }
            (_, Outcome::Failed(failure)) => self.table_failed(&failure, now),
            (action, outcome) => {
                debug_assert!(false, "{outcome:?} is no outcome of {action:?}");
            }
        }
    }

    /// The scan of a task that has begun. What is in flight may be older than what the task is about.
    fn begin(&mut self, (task, others): (Task, Vec<HandedOut>)) -> Scan {
        let in_flight = match is_planted(Fault::ScanIgnoresInFlight) {
            true => Vec::new(),
            false => self.backlog.in_flight(),
        };
        let in_flight = self.backlog.add_page(in_flight);
        Scan::new(task, in_flight, others, self.config)
    }

    fn table_failed(&mut self, failure: &Failure, now: Instant) {
        if failure.blame == Blame::Slow {
            self.health.was_slow();
        }
        self.health.table_failed(&failure.reason, !failure.is_transient, now);
    }

    fn succeeded(&mut self, now: Instant) {
        self.progress.has_synced();
        self.health.succeeded(Some(now));
    }

    /// Keys are complete, and so are their queue rows.
    fn complete(&mut self, keys: &[TakenKey], now: Instant) {
        self.backlog.complete(keys);
        for taken in keys {
            self.loops.on_stored(&taken.key, now);
            if !self.loops.is_loop(&taken.key) {
                self.health.release_row(&taken.key);
            }
        }
        self.progress.add_rows(keys.len());
        self.succeeded(now);
    }

    fn complete_batch(&mut self, id: BatchId, now: Instant) {
        if let Some(batch) = self.in_flight.remove(id) {
            self.complete(&batch.keys, now);
        }
    }

    fn give_back(&mut self, id: BatchId) {
        if let Some(batch) = self.in_flight.remove(id) {
            self.backlog.give_back(batch.keys);
        }
    }

    fn loaded(&mut self, id: BatchId, loaded: Loaded, now: Instant) {
        let Some(batch) = self.in_flight.remove(id) else { return };
        let Loaded { complete, unread, to_embed, provider } = loaded;
        let some = |numbers: &[usize]| -> Vec<TakenKey> {
            numbers.iter().map(|number| batch.keys[*number].clone()).collect()
        };
        if !unread.is_empty() {
            // Its documents are large: fewer are read at once.
            self.window = (batch.keys.len() - unread.len()).max(1);
            self.in_flight.add(Batch::new(some(&unread), batch.priority));
        } else if to_embed.is_empty() {
            self.window = self.window.saturating_mul(2);
        }
        let complete = some(&complete);
        if !complete.is_empty() {
            self.complete(&complete, now);
        }
        if to_embed.is_empty() {
            return;
        }
        let (numbers, documents): (Vec<usize>, Vec<_>) = to_embed.into_iter().unzip();
        let keys = some(&numbers);
        if let Some(failure) = provider {
            self.backlog.await_provider(keys);
            // The provider is to blame, and never a row.
            self.health.provider_failed(&failure.reason, !failure.is_transient, None, now);
        } else if self.health.is_provider_resting(now) {
            self.backlog.await_provider(keys);
        } else {
            self.in_flight.add(Batch::at(keys, batch.priority, Stage::Send(documents)));
        }
    }

    /// A batch could not be loaded or stored: the one place that decides whether a row, a lock, the time or the table is
    /// to blame.
    fn batch_failed(&mut self, id: BatchId, failure: &Failure, now: Instant) {
        let Some(batch) = self.in_flight.get_mut(id) else { return };
        let is_alone = batch.keys.len() == 1;
        match failure.blame {
            Blame::LockedRow if !is_alone && is_planted(Fault::NoBisect) => batch.is_locked(now),
            Blame::Row | Blame::LockedRow if !is_alone => {
                batch.looks_for_lock |= failure.blame == Blame::LockedRow;
                self.in_flight.bisect(id);
            }
            // A key that its type does not accept (any more) is found by its text, mostly to be removed.
            Blame::Row if matches!(batch.stage, Stage::Load(Lookup::Index)) => {
                batch.stage = Stage::Load(Lookup::FullScan);
                batch.reason = Some(failure.reason.clone());
            }
            Blame::Row => batch.fail(&failure.reason),
            Blame::LockedRow => {
                batch.is_locked(now);
                let key = batch.keys[0].key.clone();
                self.health.hold_row(key, &failure.reason, now);
            }
            Blame::Slow => {
                if is_alone && std::mem::replace(&mut batch.was_slow, true) {
                    return batch.fail(&failure.reason);
                }
                if batch.reason.is_some() {
                    // The whole source was read for it in vain, and takes too long for another time.
                    batch.fail(&failure.reason);
                }
                self.window = (batch.keys.len() / 2).max(1);
                self.in_flight.bisect(id);
                self.table_failed(failure, now);
            }
            Blame::Table => {
                if is_planted(Fault::DropsVectors) {
                    self.give_back(id);
                }
                self.table_failed(failure, now);
            }
        }
    }

    fn scan_stepped(&mut self, step: &ScanStep, outcome: Outcome, now: Instant) {
        let Some(scan) = &mut self.scan else { return };
        match outcome {
            // It begins as the task is now.
            Outcome::Overtaken => self.scan = None,
            Outcome::Failed(failure) => {
                let may_read_less = matches!(step.then, Then::Read(_))
                    && matches!(failure.blame, Blame::Row | Blame::Slow);
                let reads_less = may_read_less && scan.read_without_rows();
                if failure.blame != Blame::Row || !reads_less {
                    self.table_failed(&failure, now);
                }
            }
            Outcome::Page(page) => {
                scan.stepped(&self.backlog);
                let has_gone = matches!(&step.then, Then::Read(find) if find.phase == crate::task::Phase::Orphans);
                self.add_page(&page, has_gone);
            }
            Outcome::Left(left) => {
                scan.stepped(&self.backlog);
                scan.looked_at(&left);
            }
            Outcome::AwaitsIndexes => {
                scan.stepped(&self.backlog);
                scan.await_indexes();
            }
            Outcome::AwaitsSwap => {
                scan.stepped(&self.backlog);
                scan.await_swap();
            }
            Outcome::Done => {
                scan.stepped(&self.backlog);
                match step.then {
                    Then::Finish => self.task_complete(now),
                    Then::Compare => scan.compared(),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn add_page(&mut self, page: &FoundPage, has_gone: bool) {
        let number = self.backlog.add_found_page(page.keys.clone());
        if has_gone {
            // To be removed they need no provider.
            self.backlog.retry_without_provider(&page.keys);
        }
        if let Some(scan) = &mut self.scan {
            scan.add_page(number, page);
        }
    }

    fn task_complete(&mut self, now: Instant) {
        self.scan = None;
        self.task = None;
        self.succeeded(now);
    }

    /// A swap was tried. Where a lock was in the way it is tried again soon; what it failed for otherwise is the table's.
    fn swap_tried(&mut self, tries: u32, outcome: Outcome, now: Instant) {
        match outcome {
            // What works otherwise does not end this trouble.
            Outcome::Failed(failure) => {
                self.health.index_failed(Some(&failure.reason), !failure.is_transient, now)
            }
            Outcome::NotYet => self.swap.was_locked(tries, now),
            Outcome::IsBehind => self.swap.was_behind(now),
            outcome => {
                self.swap.reset();
                self.health.index.reset();
                match outcome {
                    Outcome::Done => self.task_complete(now),
                    // An index was created on the live table meanwhile.
                    Outcome::AwaitsIndexes => {
                        if let Some(scan) = &mut self.scan {
                            scan.await_indexes();
                        }
                    }
                    _ => self.scan = None,
                }
            }
        }
    }

    fn indexes_checked(&mut self, outcome: Outcome, now: Instant) {
        if let Outcome::Failed(failure) = &outcome {
            return self.table_failed(failure, now);
        }
        self.builder = Builder::None;
        match outcome {
            Outcome::Done => {
                self.health.index.reset();
                self.task_complete(now);
            }
            Outcome::AwaitsSwap => {
                self.health.index.reset();
                if let Some(scan) = &mut self.scan {
                    scan.await_swap();
                }
            }
            Outcome::Overtaken => self.scan = None,
            // The process has said why.
            _ => self.health.index_failed(None, false, now),
        }
    }
}
