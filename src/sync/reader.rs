//! Reads what is to be done: vector tables, tasks and the queue, in one short transaction a round.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::scan::Scan;
use super::work::Work;
use crate::catalog::{self, Status, VectorTable};
use crate::error::Result;
use crate::foreign::depend;
use crate::task::{self, Task};
use crate::worker::transaction::{self, RolledBack};
use crate::{queue, server};

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
    /// The tables are up to date; `more` when a queue holds rows beyond those read.
    Read { more: bool },
}

/// Up to which id the queue can hold no row that is not visible yet.
///
/// A transaction takes the id of its queue row while it runs, so a lower id may become visible after a higher one. An id is
/// settled once every transaction that ran when it was given out has ended. Reading starts behind the settled and done
/// ids, so its cost does not grow with the rows that vacuum could not take away yet.
#[derive(Default)]
struct Settled {
    id: i64,
    candidate: Option<(i64, pg_sys::TransactionId)>,
}

impl Settled {
    /// Takes the candidate over when every transaction of its time has ended. Called with the snapshot of the reading.
    fn advance(&mut self) {
        // SAFETY: a snapshot is active in every transaction of a worker.
        let oldest = unsafe { (*pg_sys::GetActiveSnapshot()).xmin };
        if let Some((id, limit)) = self.candidate
            && !precedes(oldest, limit)
        {
            self.id = id;
            self.candidate = None;
        }
    }

    /// Proposes the ids given out so far, in this order: first the ids, then the transactions.
    fn propose(&mut self, client: &SpiClient<'_>) -> Result<()> {
        if self.candidate.is_none() {
            let last = queue::last_id(client)?;
            if last > self.id {
                // SAFETY: reads shared memory under its own lock.
                let next = unsafe { pg_sys::ReadNextFullTransactionId() };
                self.candidate = Some((last, pg_sys::TransactionId::from(next.value as u32)));
            }
        }
        Ok(())
    }
}

/// Whether one transaction id is older than another, as they wrap around.
fn precedes(a: pg_sys::TransactionId, b: pg_sys::TransactionId) -> bool {
    (a.into_inner().wrapping_sub(b.into_inner()) as i32) < 0
}

/// Reads for the engine and remembers what it need not read again.
#[derive(Default)]
pub struct Reader {
    extension: Option<pg_sys::Oid>,
    settled: Settled,
    fingerprint: Option<i64>,
    open_tasks: Vec<Task>,
}

impl Reader {
    /// Whether what was read of the tables may be believed until one of them changes.
    pub fn is_settled(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Brings the tables in memory up to date.
    pub fn read(
        &mut self,
        tables: &mut BTreeMap<i32, Work>,
    ) -> std::result::Result<Seen, RolledBack> {
        transaction::run(|| {
            let Some(extension) = server::extension() else { return Ok(Seen::NoExtension) };
            if self.extension.is_some_and(|known| known != extension) {
                return Ok(Seen::AnotherExtension);
            }
            self.extension = Some(extension);
            Spi::connect_mut(|client| {
                self.settled.advance();
                self.read_tables(client, tables)?;
                let more = self.read_queue(client, tables)?;
                self.settled.propose(client)?;
                Ok(Seen::Read { more })
            })
        })
    }

    /// Reads vector tables and tasks when one of them has changed.
    fn read_tables(
        &mut self,
        client: &mut SpiClient<'_>,
        tables: &mut BTreeMap<i32, Work>,
    ) -> Result<()> {
        let fingerprint = catalog::fingerprint(client)?;
        if self.fingerprint != Some(fingerprint) {
            let mut found: BTreeMap<i32, VectorTable> =
                catalog::all(client)?.into_iter().map(|t| (t.id, t)).collect();
            adopt(client, &mut found)?;
            let mut settled = true;
            for table in found.values_mut() {
                settled &= depend::follow(client, table)?;
            }
            tables.retain(|id, _| found.contains_key(id));
            for (id, table) in found {
                match tables.get_mut(&id) {
                    Some(work) => work.update(table),
                    None => {
                        tables.insert(id, Work::new(table));
                    }
                }
            }
            self.open_tasks = task::open(client)?;
            // What is not settled is looked at again in the next round, at the latest by the poll.
            self.fingerprint = if settled { Some(catalog::fingerprint(client)?) } else { None };
        }
        for task in &self.open_tasks {
            if let Some(work) = tables.get_mut(&task.table_id)
                && work.is_active()
                && work.scan.is_none()
            {
                work.scan = Some(Scan::of_task(client, task)?);
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

    /// Reads more of the queue of every table that has room for it; true when there is still more.
    fn read_queue(
        &mut self,
        client: &mut SpiClient<'_>,
        tables: &mut BTreeMap<i32, Work>,
    ) -> Result<bool> {
        let mut after = Vec::new();
        let mut known = Vec::new();
        for (id, work) in tables.iter() {
            let pending = work.table.status == Status::Pending;
            // What waits for the provider must not hide a change that needs none: a deleted row has to go.
            let waiting = work.backlog.len();
            let has_room = waiting - work.backlog.parked_len() < ENOUGH && waiting < TOO_MANY;
            if pending || (work.is_active() && has_room) {
                after.push((*id, work.mark));
                known.extend(work.backlog.rows());
                known.extend(&work.marks);
                known.extend(work.scan.iter().flat_map(|s| s.marks()));
            }
        }
        let mut read: BTreeMap<i32, (i64, i64)> =
            after.iter().map(|(id, _)| (*id, (0, 0))).collect();
        for row in queue::read(client, &after, &known, ROWS_AT_ONCE)? {
            let Some(work) = tables.get_mut(&row.table_id) else { continue };
            if let Some((count, last)) = read.get_mut(&row.table_id) {
                *count += 1;
                *last = row.id;
            }
            match row.keys {
                // Nothing is embedded before the backfill, and the backfill reads every row as it is then.
                _ if work.table.status == Status::Pending => {
                    queue::remove(client, row.table_id, &[row.id])?;
                }
                Some(keys) => {
                    let keys = keys.iter().map(|key| work.table.shown(key)).collect();
                    work.backlog.add_row(row.id, keys);
                }
                None => work.marks.push(row.id),
            }
        }
        let mut more = false;
        for (id, (count, last)) in read {
            more |= count >= ROWS_AT_ONCE;
            let Some(work) = tables.get_mut(&id) else { continue };
            let all_read = if count < ROWS_AT_ONCE { i64::MAX } else { last };
            let open = work
                .backlog
                .lowest_row()
                .into_iter()
                .chain(work.marks.iter().copied())
                .chain(work.scan.iter().flat_map(|s| s.marks().iter().copied()))
                .min()
                .map_or(i64::MAX, |id| id - 1);
            work.mark = work.mark.max(self.settled.id.min(all_read).min(open));
        }
        Ok(more)
    }
}

/// Takes over vector tables that came from another cluster with a dump or an upgrade, and has them gone over once.
///
/// Where embedd's own tables are filled by logical replication the other cluster is alive and keeps its work.
fn adopt(client: &mut SpiClient<'_>, found: &mut BTreeMap<i32, VectorTable>) -> Result<()> {
    let here = server::system_id();
    if found.values().all(|t| t.system_id == here) {
        return Ok(());
    }
    if catalog::is_subscribed(client)? {
        found.retain(|_, t| t.system_id == here);
        return Ok(());
    }
    for table in found.values_mut().filter(|t| t.system_id != here) {
        catalog::adopt(client, table.id)?;
        queue::remove_foreign(client, table.id)?;
        table.system_id = here;
        if !matches!(table.status, Status::Pending) {
            // A task that is open already goes over everything that it has not reached; begin it anew.
            task::restart_or_ask(client, table.id)?;
        }
        log!("vector table \"{}\" came from another cluster and is gone over once", table.name);
    }
    Ok(())
}
