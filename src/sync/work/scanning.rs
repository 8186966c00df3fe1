//! How the scan of a vector table begins and goes on, and how its indexes are built after it.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::{RETRY, Work};
use crate::catalog::Culprit;
use crate::process::Helper;
use crate::queue::Sweep;
use crate::sync::scan::{Scan, Step};
use crate::task::{self, Task};
use crate::transaction::{self, Patience};
use crate::{index, queue, shared};

/// How long a task may take for a page before marks go before it again.
const OWED: Duration = Duration::from_secs(10);

impl Work {
    /// Begins a scan where one is asked for. Marks go before a task, which may take long: what was truncated is not to be
    /// found meanwhile.
    fn begin_scan(&mut self, now: Instant) {
        let task_waits = self.waits_for_provider(now) || self.build_at.is_some();
        let makes_way = self.scan.as_ref().is_none_or(|scan| match scan.is_of_marks() {
            true => scan.can_make_way() && (self.task.is_none() || task_waits),
            false => scan.can_make_way() || (scan.waits_for_indexes() && self.builder.is_none()),
        });
        self.owes_task = self.owes_task.filter(|until| *until > now);
        let task_goes_first = self.owes_task.is_some() && self.task.is_some() && !task_waits;
        if !self.marks.is_empty() && makes_way && !task_goes_first {
            let before = self.scan.take().map(Scan::into_marks).unwrap_or_default();
            let marks = before.into_iter().chain(self.marks.drain(..)).collect();
            self.scan = Some(Scan::of_marks(marks, self.portion));
        }
        let (None, Some(task)) = (&self.scan, self.task) else { return };
        // A batch run compares what nobody is at work on.
        if self.table.reads_run && !self.backlog.is_empty() {
            return;
        }
        let (id, portion) = (self.table.id, self.portion);
        let begun = transaction::bounded(Patience::Some, || {
            Spi::connect_mut(|client| {
                let task = task::begin(client, task)?;
                if task.as_ref().is_some_and(Task::may_find_old_work) {
                    queue::write_for_others(id, portion, Sweep::Recheck);
                }
                Ok(task)
            })
        });
        match begun {
            Ok(Some(task)) => {
                if task.may_find_old_work() && portion.count > 1 {
                    // SAFETY: a plain global of the process.
                    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                }
                let mut scan = Scan::of_task(task, portion);
                // What is in work may be older than a change that nobody has noted.
                scan.wait_for(self.backlog.add_page(self.backlog.in_work()));
                self.scan = Some(scan);
            }
            Ok(None) => self.task = None,
            Err(failure) => self.rolled_back(&failure),
        }
    }

    /// Goes on with the scan of a table where it can; false when there is nothing to go on with.
    pub fn advance_scan(&mut self, now: Instant) -> bool {
        self.begin_scan(now);
        let Some(scan) = &mut self.scan else { return false };
        if scan.shall_look_at_indexes() {
            let table = &self.table;
            // Where a long transaction holds the table, the load goes on with its indexes.
            if let Err(failure) =
                transaction::bounded(Patience::Some, || Spi::connect_mut(|c| index::hold(c, table)))
            {
                debug1!("vector table \"{}\" keeps its indexes: {}", table.name, failure.message);
            }
        }
        if scan.waits_for_indexes() {
            self.look_after_builder(now);
            // Marks go first while there is nobody who builds.
            let task_waits = self.owes_task.is_none() || self.build_at.is_some();
            return self.builder.is_none() && !self.marks.is_empty() && task_waits;
        }
        if !scan.can_step(&self.backlog) {
            return false;
        }
        let (table, backlog) = (&mut self.table, &self.backlog);
        let stepped = transaction::bounded(scan.by().patience(), || {
            if scan.reads_source(table) {
                table.pin()?;
            }
            Spi::connect_mut(|client| scan.step(client, table, backlog))
        });
        if let Ok((_, next)) = &stepped {
            self.owes_task = self.owes_task.filter(|_| !next.has_passed(scan));
        }
        match stepped {
            Ok((Step::Page(page), mut next)) => {
                if page.is_shared() {
                    // SAFETY: a plain global of the process.
                    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                }
                let number = self.backlog.add_page(page.keys.clone());
                if page.has_gone {
                    // To be removed they need no provider.
                    self.backlog.unpark_keys(&page.keys);
                }
                next.add_page(number, page);
                self.scan = Some(next);
            }
            Ok((Step::Wait, next)) => {
                let has_got_on = next.is_newer_than(scan);
                self.scan = Some(next);
                return has_got_on;
            }
            Ok((Step::Done, next)) => {
                self.owes_task = next.is_of_marks().then(|| now + OWED);
                self.scan = None;
                if !next.is_of_marks() {
                    self.task = None;
                }
                self.succeeded();
            }
            // It begins as it is now.
            Ok((Step::Overtaken, _)) => self.scan = None,
            Err(failure) if failure.is_of_a_row() && scan.take_care() => {}
            Err(failure) => {
                if failure.is_cancelled() && scan.reads_rows() {
                    // Without a look at the rows there is less to be done at once.
                    scan.take_care();
                }
                self.rolled_back(&failure);
            }
        }
        true
    }

    /// Sees to it that a process builds the indexes; when it has ended, looks what came of it.
    pub fn look_after_builder(&mut self, now: Instant) {
        match &self.builder {
            Some(builder) if !builder.has_ended() => {}
            Some(_) => {
                self.builder = None;
                let id = self.table.id;
                // Not for another task that was asked for since.
                let Some(scan) = &self.scan else { return };
                let is_left = transaction::bounded(Patience::Some, || {
                    Spi::connect_mut(|c| Ok(index::is_held(c, id)? && !scan.is_overtaken(c)?))
                });
                match is_left {
                    Ok(false) => {
                        self.scan = None;
                        self.build_at = None;
                        self.succeeded();
                    }
                    // It has said why.
                    Ok(true) => {
                        self.has_error = true;
                        self.build_at = Some(now + RETRY.1);
                    }
                    Err(failure) => self.rolled_back(&failure),
                }
            }
            None if self.build_at.is_some_and(|at| at > now) => {}
            // What is in work now would be stored while the table is locked.
            None if !self.backlog.in_work().is_empty() => self.build_at = None,
            None => {
                self.build_at = None;
                self.builder = Helper::IndexBuilder.start(self.table.id, &self.table.name);
                if self.builder.is_none() {
                    self.build_at = Some(now + RETRY.1);
                    let reason = "no place for a process that builds its index: increase max_worker_processes";
                    self.note_failure(Culprit::Table, reason, false);
                }
            }
        }
    }
}
