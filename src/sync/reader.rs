//! Reads what is to be done: vector tables, tasks and the queue, in one short transaction a round.

use std::collections::BTreeMap;
use std::time::Instant;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::core::Cursor;
use super::effects::source_fix::{self, SourceFix};
use super::schedule::BatchTable;
use super::table::Table;
use crate::catalog::{self, Reused, Status, SyncMode, VectorTable};
use crate::error::Result;
use crate::extension;
use crate::fdw::depend;
use crate::guc;
use crate::provider_batch;
use crate::queue::{self, Change, Reading, Row};
use crate::relation;
use crate::shared::{self, WorkerIndex};
use crate::table;
use crate::task::{self, OpenTask};
use crate::transaction::{self, TxError};

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

/// Reads for the engine and remembers what it need not read again.
pub struct Reader {
    portion: WorkerIndex,
    /// The only vector table that is looked after, by a worker for a batch run.
    only: Option<i32>,
    extension: Option<pg_sys::Oid>,
    /// What was seen of embedd's own tables, and when.
    fingerprint: Option<i64>,
    touches: u32,
    looked_at: Option<Instant>,
    open_tasks: Vec<OpenTask>,
    /// How far the queue of tables without a backfill is read once what was read of it is removed.
    passed: Vec<(i32, Cursor)>,
    batches: Vec<BatchTable>,
    /// Vector tables that came with a dump and are not all there yet.
    incomplete: Vec<i32>,
    /// Vector tables whose rows cannot be read, and why.
    damaged: Vec<(i32, String)>,
    /// Why nothing could be read the last time, logged once.
    unreadable: Option<String>,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(portion: WorkerIndex, only: Option<i32>) -> Self {
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
            damaged: Vec::new(),
            unreadable: None,
        }
    }

    /// The vector tables of sync mode batch, as they were last read.
    pub fn batch_tables(&self) -> &[BatchTable] {
        &self.batches
    }

    /// Whether what was read of the tables may be believed until one of them changes.
    pub fn is_settled(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// When it last looked at vector tables and sources.
    pub fn looked_at(&self) -> Option<Instant> {
        self.looked_at
    }

    /// Has the vector tables read again in the next round.
    pub fn look_again(&mut self) {
        self.fingerprint = None;
    }

    /// Writes a log line on why nothing could be read, once.
    pub fn could_not_read(&mut self, reason: String) {
        if self.unreadable.as_ref() != Some(&reason) {
            log!("could not read the queue: {reason}");
            self.unreadable = Some(reason);
        }
    }

    /// Brings the tables in memory up to date.
    pub fn read(
        &mut self,
        tables: &mut BTreeMap<i32, Table>,
    ) -> std::result::Result<Seen, TxError> {
        self.passed.clear();
        let seen = transaction::run(|| {
            let Some(extension) = extension::oid() else { return Ok(Seen::NoExtension) };
            if self.extension.is_some_and(|known| known != extension) {
                return Ok(Seen::AnotherExtension);
            }
            Spi::connect_mut(|client| {
                if !extension::is_updated(client)? {
                    return Ok(Seen::OldInstallation);
                }
                self.extension = Some(extension);
                self.read_tables(client, tables)?;
                let more = self.read_queue(client, tables)?;
                Ok(Seen::Read { more })
            })
        })?;
        if matches!(seen, Seen::Read { .. }) {
            self.unreadable = None;
        }
        for (id, cursor) in self.passed.drain(..) {
            if let Some(table) = tables.get_mut(&id) {
                table.sync.queue_read(cursor, true);
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
        tables: &mut BTreeMap<i32, Table>,
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
            if self.portion.index == 0 && catalog::delete_built_in_models(client)? {
                log!("the model catalog is left to the subscription that copies it");
            }
            let catalog::Found { tables: all, damaged } = catalog::all(client)?;
            self.report_damaged(damaged);
            let mut found: BTreeMap<i32, VectorTable> =
                all.into_iter().map(|t| (t.id, t)).collect();
            table::find_reused(&mut found);
            found.retain(|id, _| self.only.is_none_or(|only| only == *id));
            let settled = self.adopt(client, &mut found)?;
            if self.only.is_none() {
                let portion = self.portion;
                let is_mine = |id| queue::worker_of_table(id, portion.count) == portion.index;
                self.batches = BatchTable::all(client, found.values().filter(|t| is_mine(t.id)))?;
                found.retain(|_, table| table.stored.sync_mode == SyncMode::Trigger);
            }
            tables.retain(|id, _| found.contains_key(id));
            for (id, mut table) in found {
                table.reads_run = self.only.is_some();
                let mut look = source_fix::look(client, &mut table)?;
                // The owner of the table puts it right, and the other workers find it done.
                let is_mine = queue::worker_of_table(id, self.portion.count) == self.portion.index;
                if look.fix.is_none() && depend::refresh_provider(&mut table) {
                    look.fix = Some(SourceFix::Provider);
                }
                look.fix = look.fix.filter(|_| is_mine);
                match tables.get_mut(&id) {
                    Some(known) => known.update(table),
                    None => {
                        let position = catalog::position(client, id, self.portion)?;
                        let (after, open) = position.unwrap_or_default();
                        let cursor = Cursor::new(after, open);
                        tables.insert(id, Table::new(table, self.portion, cursor));
                    }
                }
                if let Some(known) = tables.get_mut(&id) {
                    known.set_source(look);
                }
            }
            let notes = provider_batch::notes(client)?;
            for (id, table) in tables.iter_mut() {
                table.notes = notes.get(id).copied().unwrap_or_default();
            }
            self.open_tasks = task::open(client)?;
            // What is not settled is looked at again in the next round, at the latest by the poll; and so is what changes
            // while it is read, as statements after a write of our own see more than those before it.
            self.fingerprint = settled.then_some(fingerprint);
        }
        for Table { config, sync, is_batch_price, .. } in tables.values_mut() {
            sync.begin_round();
            let id = config.id;
            let task = self.open_tasks.iter().find(|task| task.table_id == id);
            *is_batch_price = task.is_some_and(|task| task.is_batch_price);
            sync.set_task(task.map(|task| (task.id, task.attempts)));
            // Between two readings of the catalog names may change hands; the number of the table never does.
            config.source_name = catalog::source_name(config.source);
            config.relation_name = catalog::vectors_name(config.relation, config.origin_id);
            if config.relation_name.is_some() {
                config.owner = relation::owner_of(config.relation).unwrap_or(config.owner);
            }
            config.reuses = config.reuses.take().and_then(|reused| {
                let name = relation::qualified_name(reused.relation)?;
                Some(Reused { name, ..reused })
            });
        }
        Ok(())
    }

    /// Tells in the log, once, of vector tables whose rows in embedd.vector_tables cannot be read; the others go on.
    fn report_damaged(&mut self, damaged: Vec<(i32, String)>) {
        if self.damaged != damaged {
            for (id, reason) in &damaged {
                log!("vector table {id} is left out: {reason}");
            }
            self.damaged = damaged;
        }
    }

    /// Adopts vector tables that came from another cluster with a dump or an upgrade, and has each compared once. False when
    /// some of them are not complete yet: the session that restores them fills and finishes them first.
    ///
    /// Where embedd's own tables are filled by logical replication the other cluster is alive and keeps its work.
    fn adopt(
        &mut self,
        client: &mut SpiClient<'_>,
        found: &mut BTreeMap<i32, VectorTable>,
    ) -> Result<bool> {
        if found.values().all(VectorTable::is_responsible) {
            return Ok(true);
        }
        if catalog::is_subscribed(client)? {
            found.retain(|_, t| t.is_responsible());
            return Ok(true);
        }
        let mut incomplete = Vec::new();
        for table in found.values_mut().filter(|t| !t.is_responsible()) {
            if !source_fix::is_complete(client, table)? {
                incomplete.push(table.id);
                continue;
            }
            source_fix::settle(client, table)?;
            queue::remove_foreign(client, table.id)?;
            if !matches!(table.status, Status::Pending) {
                // A task that is open begins again.
                task::restart_or_ask(client, table.id, task::Kind::Rebackfill)?;
            }
            log!("vector table \"{}\" came from another cluster and is compared once", table.name);
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
        tables: &mut BTreeMap<i32, Table>,
    ) -> Result<bool> {
        let mut after = Vec::new();
        for (id, Table { config, sync, .. }) in tables.iter() {
            let is_pending = config.status == Status::Pending;
            if is_pending || (sync.is_active() && sync.has_room(ENOUGH, TOO_MANY)) {
                after.push((*id, sync.cursor.after));
            }
        }
        let Reading { rows, open } = queue::read(client, self.portion, &after, ROWS_AT_ONCE)?;
        let mut found: BTreeMap<i32, Found> = BTreeMap::new();
        let (mut late, mut between) = (Vec::new(), Vec::new());
        for (id, upto) in &after {
            let Some(table) = tables.get(id) else { continue };
            let (transactions, above) = table.sync.cursor.late(&open);
            if !transactions.is_empty() {
                between.push((*id, above, *upto));
            }
            late.extend(transactions.iter().copied());
            found.insert(*id, Found { late: transactions, ..Found::default() });
        }
        late.sort_unstable();
        late.dedup();
        for row in queue::read_of(client, self.portion, &late, &between, ROWS_AT_ONCE)? {
            let Some(found) = found.get_mut(&row.table_id) else { continue };
            found.late_rows.push(row.id);
            if found.late.contains(&row.transaction)
                && let Some(table) = tables.get_mut(&row.table_id)
            {
                found.unneeded.extend(take(table, row));
            }
        }
        for row in rows {
            let Some(found) = found.get_mut(&row.table_id) else { continue };
            found.rows.push(row.id);
            if let Some(table) = tables.get_mut(&row.table_id) {
                found.unneeded.extend(take(table, row));
            }
        }
        let mut more = false;
        for (id, found) in found {
            let Some(table) = tables.get_mut(&id) else { continue };
            let is_full = |rows: &Vec<i64>| rows.len() as i64 >= ROWS_AT_ONCE;
            let last_late = found.late_rows.last().copied().filter(|_| is_full(&found.late_rows));
            let cursor = table.sync.cursor.advanced(found.rows.last().copied(), last_late, &open);
            let has_more = is_full(&found.rows) || !cursor.ended(&open).is_empty();
            if found.unneeded.is_empty() {
                table.sync.queue_read(cursor, !has_more);
                more |= has_more;
            } else if queue::remove_unneeded(client, self.portion, id, &found.unneeded)? {
                self.passed.push((id, cursor));
                more |= has_more;
            } else {
                // A session has asked for a backfill meanwhile, or has locked the rows: it will wake this worker.
                self.fingerprint = None;
            }
        }
        Ok(more)
    }
}

/// What was read of the queue of one table.
#[derive(Default)]
struct Found {
    /// The ended transactions whose rows are looked for.
    late: Vec<u64>,
    late_rows: Vec<i64>,
    rows: Vec<i64>,
    /// Those of the rows that are not needed.
    unneeded: Vec<i64>,
}

/// Gives a row of the queue to its table; comes back with the id of one that is not needed.
fn take(table: &mut Table, row: Row) -> Option<i64> {
    match row.change {
        // Nothing is embedded before the backfill, and the backfill reads every row as it is then.
        _ if table.config.status == Status::Pending => return Some(row.id),
        Change::Keys(keys) => {
            let keys = keys.iter().map(|key| table.config.shown(key)).collect();
            table.sync.add_row(row.id, keys, row.is_paged);
        }
        Change::Bulk(change) => table.sync.add_bulk_change(row.id, change, Instant::now()),
    }
    None
}
