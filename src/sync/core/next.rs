//! Which action comes next for a vector table.

use std::time::{Duration, Instant};

use embedd_wire::Priority;

use super::action::Action;
use super::in_flight::{Batch, Stage};
use super::limits::{Room, Share};
use super::{Builder, BulkChange, FixKind, TableSync};

/// For so long bulk changes wait for a scan to get ahead.
const BULK_WAIT: Duration = Duration::from_secs(10);

impl TableSync {
    /// The next action; none when there is nothing to do before something happens or is due.
    pub fn next(&mut self, now: Instant, room: &Room<'_>) -> Option<Action> {
        self.health.end_pauses(now);
        self.end_loops(now);
        let has_nothing = self.is_queue_read && self.backlog.is_empty() && !self.has_work();
        if self.health.says_error() && has_nothing {
            self.health.has_nothing_left(now);
        }
        let may_write = !self.health.is_resting(now);
        // What is paid for comes first.
        if may_write {
            let ready =
                self.in_flight.ready(now, |s| matches!(s, Stage::Store(..) | Stage::Fail(_)));
            if let Some(id) = ready {
                return Some(match self.in_flight.get(id).map(|batch| &batch.stage) {
                    Some(Stage::Fail(_)) => Action::Fail(id),
                    _ => Action::Store(id),
                });
            }
        }
        // While the source is broken the pause is for what is to be put right.
        if self.fix.is_some() && may_write && !room.is_draining {
            return Some(Action::FixSource);
        }
        if let Some(report) = self.health.report(now) {
            return Some(Action::Report(report.clone()));
        }
        if let Some(action) = self.write_progress(now) {
            return Some(action);
        }
        if !self.is_active() {
            self.give_back_unsent();
            return None;
        }
        if !may_write || room.is_draining {
            return None;
        }
        if !self.unacknowledged.is_empty() {
            let rows = self.unacknowledged.clone();
            return Some(Action::Acknowledge { rows, keys: self.backlog.in_flight() });
        }
        if self.config.has_old && self.config.is_owner && !self.swap.old.is_waiting(now) {
            return Some(Action::DropOld);
        }
        self.next_of_scan(now).or_else(|| self.next_batch(now, room))
    }

    /// When the next action is due without anything happening before.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let progress = self.progress.due(now);
        let rest = self.health.rest_until().filter(|until| *until > now);
        let after_rest = |at: Instant| rest.map_or(at, |rest| at.max(rest));
        let held = self.in_flight.due(now).map(after_rest);
        let is_waiting = self.is_active() || self.fix.is_some() || self.health.has_error();
        let health = self.health.due().filter(|_| is_waiting);
        let bulk = self.bulk_since.map(|since| after_rest(since + BULK_WAIT));
        let bulk = bulk.filter(|at| self.is_active() && *at > now);
        let swap = self.swap.due().map(after_rest).filter(|at| self.is_active() && *at > now);
        [progress, held, health, bulk, swap].into_iter().flatten().min()
    }

    /// The last word before the worker leaves: how far it is, if that is to be written.
    pub fn last_action(&self, now: Instant) -> Option<Action> {
        self.progress.due(now)?;
        let (has_synced, rate) = self.progress.to_write(now);
        Some(Action::WriteProgress { complete_to: self.complete_to(), has_synced, rate })
    }

    fn write_progress(&mut self, now: Instant) -> Option<Action> {
        let is_idle = self.backlog.is_empty() && self.scan.is_none();
        if !self.progress.is_due(is_idle, now) {
            return None;
        }
        self.last_action(now)
    }

    /// The sync was paused, or the source is gone: what has not reached the embedder waits in the backlog, and so does
    /// what could not be stored. Before a first backfill the backlog keeps nothing, so what is paid for waits where it is.
    fn give_back_unsent(&mut self) {
        if self.config.is_pending && !self.health.is_broken() {
            return self.take_back_unsent(|_| true);
        }
        self.give_back_where(|batch| !matches!(batch.stage, Stage::Embed(..)));
    }

    /// What is not at the embedder, and not paid for, waits in the backlog again.
    pub(super) fn take_back_unsent(&mut self, is_wanted: impl Fn(&Batch) -> bool) {
        let is_unsent = |batch: &Batch| matches!(batch.stage, Stage::Load(_) | Stage::Send(_));
        self.give_back_where(|batch| is_unsent(batch) && is_wanted(batch));
    }

    fn give_back_where(&mut self, is_wanted: impl Fn(&Batch) -> bool) {
        let back = self.in_flight.remove_where(is_wanted);
        for batch in back.into_iter().rev() {
            batch.keys.iter().for_each(|taken| self.health.release_row(&taken.key));
            self.backlog.give_back(batch.keys);
        }
    }

    fn end_loops(&mut self, now: Instant) {
        for key in self.loops.ended(now) {
            self.health.release_row(&key);
            self.health.succeeded(Some(now));
        }
    }

    fn next_of_scan(&mut self, now: Instant) -> Option<Action> {
        if self.shall_take_bulk_changes(now) {
            let rows = self.bulk_changes.iter().map(|(id, _)| *id).collect();
            let has_changed = self.bulk_changes.iter().any(|(_, c)| *c == BulkChange::Changed);
            return Some(Action::TakeBulkChanges { rows, has_changed });
        }
        let Some(scan) = &self.scan else {
            // A batch run compares what no batch is at work on.
            let may_begin = (!self.config.is_run || self.backlog.is_empty())
                && !self.swap.begin.is_waiting(now);
            return self.task.filter(|_| may_begin).map(Action::BeginTask);
        };
        if scan.awaits_indexes() {
            let (task, attempt) = (scan.task().id, scan.task().attempt);
            return match self.builder {
                Builder::Ended => Some(Action::CheckIndexes { task, attempt }),
                Builder::Running => None,
                Builder::None if self.health.index.is_waiting(now) => None,
                // What is in flight now would be stored while the table is locked.
                Builder::None => self.in_flight.is_empty().then_some(Action::BuildIndexes),
            };
        }
        if scan.awaits_swap() {
            let (task, attempt) = (scan.task().id, scan.task().attempt);
            let tries = self.swap.tries();
            let is_waiting = self.swap.is_waiting(now) || self.health.index.is_waiting(now);
            return (!is_waiting).then_some(Action::Swap { task, attempt, tries });
        }
        if scan.shall_defer_indexes() {
            return Some(Action::DeferIndexes);
        }
        scan.next_step(&self.backlog).map(Action::Scan)
    }

    /// Whether bulk changes restart the scan now. Rows that have gone are not to be found for long; but a scan that is
    /// restarted again and again has to get ahead in between.
    fn shall_take_bulk_changes(&self, now: Instant) -> bool {
        let Some(since) = self.bulk_since else { return false };
        let Some(scan) = &self.scan else { return true };
        if scan.awaits_indexes() {
            return self.builder == Builder::None;
        }
        scan.may_restart() || self.health.is_provider_resting(now) || now >= since + BULK_WAIT
    }

    /// Whether no changes are worked on because the indexes are built: the build locks the rows against writing.
    fn builds_indexes(&self, now: Instant) -> bool {
        self.scan.as_ref().is_some_and(super::scan::Scan::awaits_indexes)
            && (self.builder != Builder::None || !self.health.index.is_waiting(now))
    }

    fn next_batch(&mut self, now: Instant, room: &Room<'_>) -> Option<Action> {
        if let Some(id) = self.to_send(now) {
            return Some(Action::Send(id));
        }
        if room.is_closed {
            return None;
        }
        let may_load = |priority| {
            // Before its first batch its account is not known, and nothing of it is in flight.
            let has_room =
                self.share.is_none_or(|share| room.limits.has_room(Share { priority, ..share }));
            // A request at a time, so that it is known what the embedder ended over.
            has_room && (room.quarantine_texts.is_none() || !room.has_requests)
        };
        let may = [Priority::Change, Priority::Backfill].map(may_load);
        let of = |priority| if priority == Priority::Backfill { may[1] } else { may[0] };
        if let Some(id) = self.in_flight.ready(now, |stage| matches!(stage, Stage::Load(_)))
            && let Some(batch) = self.in_flight.get(id)
            && of(batch.priority)
        {
            if room.quarantine_texts.is_some_and(|most| batch.keys.len() > most) {
                self.in_flight.bisect(id);
                return self.next_batch(now, room);
            }
            return Some(Action::Load(id));
        }
        if self.builds_indexes(now) {
            return None;
        }
        self.retry_provider(now, room.batch_texts);
        let count = room.batch_texts.min(self.window);
        let count = room.quarantine_texts.map_or(count, |most| count.min(most));
        for priority in [Priority::Change, Priority::Backfill] {
            if !of(priority) {
                continue;
            }
            let taken = match priority {
                Priority::Backfill => self.backlog.take_paged(count),
                _ => self.backlog.take_changed(count),
            };
            let mut keys = Vec::new();
            for taken in taken {
                match self.loops.on_change(&taken.key, now) {
                    None => keys.push(taken),
                    Some(pause) => self.slow_down(taken, priority, now + pause, now),
                }
            }
            if !keys.is_empty() {
                return Some(Action::Load(self.in_flight.add(Batch::new(keys, priority))));
            }
        }
        None
    }

    /// Has a row wait that changes again each time it is stored.
    fn slow_down(
        &mut self,
        taken: super::backlog::TakenKey,
        priority: Priority,
        until: Instant,
        now: Instant,
    ) {
        let reason = super::loops::reason(&taken.key);
        self.health.hold_row(taken.key.clone(), &reason, now);
        let mut batch = Batch::new(vec![taken], priority);
        batch.hold(until);
        self.in_flight.add(batch);
    }

    /// Takes back what awaits the provider: a batch, to see whether it is there again, and the rest when it is.
    fn retry_provider(&mut self, now: Instant, batch_texts: usize) {
        if self.health.is_provider_resting(now) || self.backlog.awaiting_provider_len() == 0 {
            return;
        }
        match self.health.has_provider_failed() {
            false => self.backlog.retry_provider(usize::MAX),
            true if !self.in_flight.has_trial() => self.backlog.retry_provider(batch_texts),
            true => {}
        }
    }

    /// Whether a key has changed, or is in flight.
    pub fn has_key(&self, key: &str) -> bool {
        self.backlog.has_key(key)
    }

    /// Whether the phase of the task may be stored: all that was read before it is complete.
    pub fn may_store_phase(&self) -> bool {
        self.scan.as_ref().is_some_and(|scan| !scan.has_pages())
    }

    /// The task, and its attempt, whose scan waits for the batch API of the provider.
    pub fn awaits_provider_batch(&self) -> Option<(i64, i32)> {
        let scan =
            self.scan.as_ref().filter(|scan| super::scan::Scan::awaits_provider_batch(scan))?;
        Some((scan.task().id, scan.task().attempt))
    }

    /// What was awaited from the batch API has come.
    pub fn provider_batch_ended(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.provider_batch_ended();
        }
    }

    /// What has to be put right with the source.
    pub fn fix(&self) -> Option<FixKind> {
        self.fix
    }
}
