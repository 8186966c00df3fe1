//! Reads what is to be done: vector tables, tasks and the queue, in one short transaction a round.

use std::collections::BTreeMap;
use std::time::Instant;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::follow;
use super::scan::Scan;
use super::schedule::Batch;
use super::work::Work;
use crate::catalog::{self, Status, SyncMode, VectorTable};
use crate::error::Result;
use crate::foreign::depend;
use crate::queue::{self, Change, Reading, Row};
use crate::shared::{self, Portion};
use crate::task::{self, Task};
use crate::worker::transaction::{self, RolledBack};
use crate::{guc, server};

/// Keys in memory beyond which no more of a table's queue is read.
const ENOUGH: usize = 2000;
/// Keys in memory beyond which no more is read, also when the provider is what they wait for.
const TOO_MANY: usize = 200_000;
/// Queue rows of one table read at once.
const ROWS_AT_ONCE: i64 = 64;

/// What a reading has found.
pub enum Seen {
    /// The extension is not there.
    NoExtension,
    /// It was dropped and created again: nothing in memory is true any more.
    AnotherExtension,
    /// Its objects are older than the library.
    OldInstallation,
    /// The tables are up to date; `more` when a queue holds rows beyond those read.
    Read { more: bool },
}

/// How far a worker has read the queue of one table.
///
/// A transaction takes the id of its queue row while it runs, so a lower id may become visible after a higher one. The
/// transactions that ran at the last reading are remembered, and when one has ended its rows are looked up by its number:
/// what is before `after` is never read again, however long somebody's transaction or snapshot lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub after: i64,
    /// Transactions that may still bring rows with ids up to `after`.
    pub open: Vec<u64>,
}

impl Position {
    /// Those of the open transactions that have ended by now.
    fn ended(&self, open_now: &[u64]) -> Vec<u64> {
        self.open.iter().copied().filter(|x| !open_now.contains(x)).collect()
    }

    /// Moves on behind the last row that was read.
    fn advance(&mut self, last: Option<i64>, open_now: &[u64]) {
        self.after = last.unwrap_or(self.after);
        self.open = open_now.to_vec();
    }
}

/// Reads for the engine and remembers what it need not read again.
pub struct Reader {
    portion: Portion,
    /// The only vector table that is looked after, by a worker for a batch run.
    only: Option<i32>,
    extension: Option<pg_sys::Oid>,
    /// What was seen of embedd's own tables, and when.
    fingerprint: Option<i64>,
    touches: u32,
    looked_at: Option<Instant>,
    open_tasks: Vec<Task>,
    /// How far the queue of tables that nobody fills will be read once what was read of it is removed.
    passed: Vec<(i32, Position)>,
    batches: Vec<Batch>,
    /// Vector tables that came with a dump and are not all there yet.
    incomplete: Vec<i32>,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(portion: Portion, only: Option<i32>) -> Self {
        Self {
            portion,
            only,
            extension: None,
            fingerprint: None,
            touches: 0,
            looked_at: None,
            open_tasks: Vec::new(),
            passed: Vec::new(),
            batches: Vec::new(),
            incomplete: Vec::new(),
        }
    }

    /// The vector tables that are compared every now and then, as they were last seen.
    pub fn batch_tables(&self) -> &[Batch] {
        &self.batches
    }

    /// Whether what was read of the tables may be believed until one of them changes.
    pub fn is_settled(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Has the vector tables read again in the next round.
    pub fn look_again(&mut self) {
        self.fingerprint = None;
    }

    /// Brings the tables in memory up to date.
    pub fn read(
        &mut self,
        tables: &mut BTreeMap<i32, Work>,
    ) -> std::result::Result<Seen, RolledBack> {
        self.passed.clear();
        let seen = transaction::run(|| {
            let Some(extension) = server::extension() else { return Ok(Seen::NoExtension) };
            if self.extension.is_some_and(|known| known != extension) {
                return Ok(Seen::AnotherExtension);
            }
            Spi::connect_mut(|client| {
                if !server::is_updated(client)? {
                    return Ok(Seen::OldInstallation);
                }
                self.extension = Some(extension);
                self.read_tables(client, tables)?;
                let more = self.read_queue(client, tables)?;
                Ok(Seen::Read { more })
            })
        })?;
        for (id, position) in self.passed.drain(..) {
            if let Some(work) = tables.get_mut(&id) {
                work.position = position;
            }
        }
        Ok(seen)
    }

    /// What is seen of embedd's own tables, when they and the sources are to be looked at: one of them has changed, or it
    /// is time.
    fn shall_look(&mut self, client: &SpiClient<'_>) -> Result<Option<i64>> {
        // SAFETY: a plain global of the process.
        let touches = shared::config_changes(unsafe { pg_sys::MyDatabaseId });
        let is_due = self.looked_at.is_none_or(|at| at.elapsed() >= guc::poll_interval());
        let is_touched = self.touches != touches;
        let fingerprint = catalog::fingerprint(client)?;
        if self.fingerprint == Some(fingerprint) && !is_due && !is_touched {
            return Ok(None);
        }
        self.touches = touches;
        self.looked_at = Some(Instant::now());
        Ok(Some(fingerprint))
    }

    /// Reads vector tables and tasks when one of them has changed.
    fn read_tables(
        &mut self,
        client: &mut SpiClient<'_>,
        tables: &mut BTreeMap<i32, Work>,
    ) -> Result<()> {
        if let Some(fingerprint) = self.shall_look(client)? {
            if self.portion.index == 0
                && self.only.is_none()
                && queue::share_out(client, self.portion.count)?
            {
                pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, || {
                    // SAFETY: a plain global of the process.
                    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                });
            }
            let mut found: BTreeMap<i32, VectorTable> =
                catalog::all(client)?.into_iter().map(|t| (t.id, t)).collect();
            found.retain(|id, _| self.only.is_none_or(|only| only == *id));
            let mut settled = self.adopt(client, &mut found)?;
            if self.only.is_none() {
                let portion = self.portion;
                let is_mine = |id| queue::portion_of_table(id, portion.count) == portion.index;
                self.batches = Batch::all(client, found.values().filter(|t| is_mine(t.id)))?;
                found.retain(|_, table| table.stored.sync_mode == SyncMode::Trigger);
            }
            tables.retain(|id, _| found.contains_key(id));
            for (id, mut table) in found {
                settled &= depend::follow(client, &mut table)?;
                table.reads_run = self.only.is_some();
                let (mend, broken) = follow::look(client, &mut table)?;
                // One worker sees to it, and the others find it done.
                let is_mine = queue::portion_of_table(id, self.portion.count) == self.portion.index;
                let mend = mend.filter(|_| is_mine);
                let work = match tables.remove(&id) {
                    Some(mut work) => {
                        work.update(table);
                        work
                    }
                    None => {
                        let position = catalog::position(client, id, self.portion)?;
                        let (after, open) = position.unwrap_or_default();
                        Work::new(table, self.portion, Position { after, open })
                    }
                };
                tables.insert(id, work.found(mend, broken));
            }
            self.open_tasks = task::open(client)?;
            // What is not settled is looked at again in the next round, at the latest by the poll; and so is what changes
            // while it is read, as statements after a write of our own see more than those before it.
            self.fingerprint = settled.then_some(fingerprint);
        }
        for task in &self.open_tasks {
            if let Some(work) = tables.get_mut(&task.table_id)
                && work.is_active()
                && work.scan.is_none()
                && queue::portion_of_table(task.table_id, self.portion.count) == self.portion.index
            {
                work.scan = Some(Scan::of_task(client, task, self.portion)?);
            }
        }
        for work in tables.values_mut() {
            // Between two readings of the catalog names may change hands; the number of the table never does.
            work.table.source_name = server::qualified_name(work.table.source);
            work.table.relation_name = server::qualified_name(work.table.relation);
            work.table.owner = server::owner_of(work.table.relation).unwrap_or(work.table.owner);
        }
        Ok(())
    }

    /// Takes over vector tables that came from another cluster with a dump or an upgrade, and has them gone over once.
    /// False when some of them are not complete yet: whoever restores them fills and finishes them without us.
    ///
    /// Where embedd's own tables are filled by logical replication the other cluster is alive and keeps its work.
    fn adopt(
        &mut self,
        client: &mut SpiClient<'_>,
        found: &mut BTreeMap<i32, VectorTable>,
    ) -> Result<bool> {
        if found.values().all(VectorTable::is_at_home) {
            return Ok(true);
        }
        if catalog::is_subscribed(client)? {
            found.retain(|_, t| t.is_at_home());
            return Ok(true);
        }
        let mut incomplete = Vec::new();
        for table in found.values_mut().filter(|t| !t.is_at_home()) {
            if !follow::is_complete(client, table)? {
                incomplete.push(table.id);
                continue;
            }
            follow::settle(client, table)?;
            queue::remove_foreign(client, table.id)?;
            if !matches!(table.status, Status::Pending) {
                // A task that is open already goes over everything that it has not reached; begin it anew.
                task::restart_or_ask(client, table.id, task::Kind::Rebackfill)?;
            }
            log!("vector table \"{}\" came from another cluster and is gone over once", table.name);
        }
        found.retain(|id, _| !incomplete.contains(id));
        if self.incomplete != incomplete && !incomplete.is_empty() {
            log!(
                "{} vector tables came from another cluster and wait for their triggers and primary keys",
                incomplete.len()
            );
        }
        self.incomplete = incomplete;
        Ok(self.incomplete.is_empty())
    }

    /// Reads more of the queue of every table that has room for it; true when there is still more.
    fn read_queue(
        &mut self,
        client: &mut SpiClient<'_>,
        tables: &mut BTreeMap<i32, Work>,
    ) -> Result<bool> {
        let mut after = Vec::new();
        for (id, work) in tables.iter() {
            let pending = work.table.status == Status::Pending;
            // What waits for the provider must not hide a change that needs none: a deleted row has to go.
            let waiting = work.backlog.len();
            let has_room = waiting - work.backlog.parked_len() < ENOUGH && waiting < TOO_MANY;
            if pending || (work.is_active() && has_room) {
                after.push((*id, work.position.after));
            }
        }
        let Reading { rows, open } = queue::read(client, self.portion, &after, ROWS_AT_ONCE)?;
        let mut ended = Vec::new();
        for (id, _) in &after {
            if let Some(work) = tables.get(id) {
                ended.extend(work.position.ended(&open));
            }
        }
        ended.sort_unstable();
        ended.dedup();
        let mut unneeded: Vec<(i32, i64)> = Vec::new();
        for row in queue::read_of(client, self.portion, &ended)? {
            let Some(work) = tables.get_mut(&row.table_id) else { continue };
            let is_late = row.id <= work.position.after
                && work.position.open.contains(&row.transaction)
                && after.iter().any(|(id, _)| *id == row.table_id);
            if is_late {
                unneeded.extend(take(work, row));
            }
        }
        let mut read: BTreeMap<i32, (i64, Option<i64>)> =
            after.iter().map(|(id, _)| (*id, (0, None))).collect();
        for row in rows {
            let Some(work) = tables.get_mut(&row.table_id) else { continue };
            if let Some((count, last)) = read.get_mut(&row.table_id) {
                *count += 1;
                *last = Some(row.id);
            }
            unneeded.extend(take(work, row));
        }
        let mut more = false;
        for (id, (count, last)) in read {
            more |= count >= ROWS_AT_ONCE;
            let Some(work) = tables.get_mut(&id) else { continue };
            let ids: Vec<i64> =
                unneeded.iter().filter(|(t, _)| *t == id).map(|(_, n)| *n).collect();
            if ids.is_empty() {
                work.position.advance(last, &open);
            } else if queue::remove_unneeded(client, self.portion, id, &ids)? {
                let mut position = work.position.clone();
                position.advance(last, &open);
                self.passed.push((id, position));
            } else {
                self.fingerprint = None;
                more = true;
            }
        }
        Ok(more)
    }
}

/// Puts a row of the queue into the backlog of its table; comes back with table and id of one that nobody needs.
fn take(work: &mut Work, row: Row) -> Option<(i32, i64)> {
    match row.change {
        // Nothing is embedded before the backfill, and the backfill reads every row as it is then.
        _ if work.table.status == Status::Pending => return Some((row.table_id, row.id)),
        Change::Keys(keys) => {
            let keys = keys.iter().map(|key| work.table.shown(key)).collect();
            work.backlog.add_row(row.id, keys, row.is_paged);
        }
        Change::Sweep(sweep) => work.marks.push((row.id, sweep)),
    }
    None
}
