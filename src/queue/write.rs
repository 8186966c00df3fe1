//! Writes the queue: the keys that a transaction has noted, or a scan has found, go into as few rows as they fit.

use pgrx::prelude::*;

use super::bulk_change::BulkChange;
use crate::cluster;
use crate::shared::{self, WorkerIndex};

/// Keys packed into one queue row at most.
pub const KEYS_PER_ROW: usize = 1000;
/// Bytes of keys packed into one queue row at most, so that a row of long text keys stays small.
const BYTES_PER_ROW: usize = 256 * 1024;

/// Keys of one vector table's source in the order of the changes, and what keys cannot tell.
#[derive(Default)]
pub struct ChangedKeys {
    bytes: Vec<u8>,
    /// End of each key in `bytes`.
    ends: Vec<u32>,
    pub bulk_change: Option<BulkChange>,
}

impl ChangedKeys {
    /// Adds a key.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Bytes of memory in use.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<u32>()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Forgets all but the first `len` keys.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    /// Forgets the last key when it is the same as the one at `first`: an UPDATE that left the key as it was.
    pub fn fold_pair(&mut self, first: usize) {
        if self.len() == first + 2 && self.key(first) == self.key(first + 1) {
            self.truncate(first + 1);
        }
    }

    fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }
}

/// The worker of a key among so many, always the same one.
pub fn worker_of(key: &[u8], portions: u16) -> u16 {
    if portions == 1 {
        return 0;
    }
    // FNV-1a: the reader of a row hashes nothing, so only workers and writers of one library have to agree.
    let hash = key
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash % u32::from(portions)) as u16
}

/// The worker that owns a vector table: it does what is done once for the table.
pub fn worker_of_table(table_id: i32, portions: u16) -> u16 {
    (table_id.unsigned_abs() % u32::from(portions)) as u16
}

/// Writes the noted keys from `from` on into the queue, as part of the current transaction.
///
/// The heap and its index are written directly: a writer needs no grant on the queue, and no
/// search_path, role, row security or trigger can come in between.
pub fn write(table_id: i32, noted: &ChangedKeys, from: usize) {
    let portions = shared::worker_count();
    let keys: Vec<&[u8]> = (from..noted.len()).map(|n| noted.key(n)).collect();
    let mut rows = Vec::new();
    if let Some(change) = noted.bulk_change {
        rows.extend(NewRow::of_bulk_change(portions, change));
    }
    rows.extend(NewRow::of_keys(portions, &keys, false));
    insert(table_id, &rows);
}

/// Tells the other workers what keys cannot tell. Called by a worker.
pub fn write_for_others(table_id: i32, portion: WorkerIndex, change: BulkChange) {
    let mut rows = NewRow::of_bulk_change(portion.count, change);
    rows.retain(|row| row.portion != portion.index);
    insert(table_id, &rows);
}

/// Writes keys that are to be loaded again. Called by a worker.
pub fn write_keys(table_id: i32, portions: u16, keys: &[&[u8]]) {
    insert(table_id, &NewRow::of_keys(portions, keys, false));
}

/// Writes keys that a scan has found for other workers; returns portion and id of each row. Called by a worker.
pub fn write_paged(table_id: i32, portions: u16, keys: &[&[u8]]) -> Vec<(u16, i64)> {
    let rows = NewRow::of_keys(portions, keys, true);
    let ids = insert(table_id, &rows);
    rows.iter().map(|row| row.portion).zip(ids).collect()
}

/// A queue row that is not written yet.
pub(super) struct NewRow<'a> {
    portions: u16,
    portion: u16,
    is_paged: bool,
    /// None: any number of rows changed.
    keys: Option<Vec<&'a [u8]>>,
}

impl<'a> NewRow<'a> {
    /// Rows for what keys cannot tell, one for each worker: what it has in work may be older.
    pub(super) fn of_bulk_change(portions: u16, change: BulkChange) -> Vec<Self> {
        let row = |portion| {
            let keys = (change != BulkChange::Changed).then(Vec::new);
            Self { portions, portion, is_paged: change == BulkChange::Recheck, keys }
        };
        (0..portions).map(row).collect()
    }

    /// Rows for keys, those of one portion together and in their order.
    pub(super) fn of_keys(portions: u16, keys: &[&'a [u8]], is_paged: bool) -> Vec<Self> {
        let mut by_portion: Vec<Vec<&'a [u8]>> = vec![Vec::new(); usize::from(portions)];
        for key in keys {
            by_portion[usize::from(worker_of(key, portions))].push(key);
        }
        let mut rows = Vec::new();
        for (portion, keys) in (0..).zip(by_portion) {
            let mut start = 0;
            while start < keys.len() {
                let (mut end, mut bytes) = (start, 0);
                while end < keys.len() && end - start < KEYS_PER_ROW && bytes < BYTES_PER_ROW {
                    bytes += keys[end].len();
                    end += 1;
                }
                rows.push(Self {
                    portions,
                    portion,
                    is_paged,
                    keys: Some(keys[start..end].to_vec()),
                });
                start = end;
            }
        }
        rows
    }
}

unsafe extern "C-unwind" {
    /// PostgreSQL's nextval without the check of the caller's rights (commands/sequence.h).
    fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// Inserts rows, and returns their ids.
pub(super) fn insert(table_id: i32, rows: &[NewRow<'_>]) -> Vec<i64> {
    let mut ids = Vec::new();
    if rows.is_empty() {
        return ids;
    }
    // SAFETY: runs in the main thread inside a transaction that may write; the relation is opened and
    // closed here, and every pointer is used while it is open. Errors are PostgreSQL's own and abort the transaction.
    unsafe {
        let Some((queue_oid, sequence)) = super::relations() else {
            // The extension was dropped in this very transaction: no worker reads a queue.
            return ids;
        };
        // Before the first id is taken: a reader takes a transaction that has none yet for one that has taken no id.
        let transaction = pg_sys::GetTopFullTransactionId().value;
        let relation = pg_sys::table_open(queue_oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        for row in rows {
            let id = pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false));
            insert_row(relation, table_id, id, transaction, row);
            ids.push(id);
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
    ids
}

/// Inserts one queue row; columns as in sql/tables.sql.
unsafe fn insert_row(
    relation: pg_sys::Relation,
    table_id: i32,
    id: i64,
    transaction: u64,
    row: &NewRow<'_>,
) {
    // SAFETY: the caller holds the relation open; the arrays have the ten columns of embedd.queue in order. An older
    // installation has the first five of them, and one worker a database.
    unsafe {
        let keys = row.keys.as_deref().map(|keys| text_array(keys));
        let mut values = [
            table_id.into(),
            pg_sys::Datum::from(id),
            pg_sys::Datum::from(cluster::system_id()),
            pg_sys::Datum::from(pg_sys::GetCurrentTransactionStartTimestamp()),
            keys.unwrap_or(pg_sys::Datum::from(0usize)),
            pg_sys::Datum::from(row.portions as i16),
            pg_sys::Datum::from(row.portion as i16),
            pg_sys::Datum::from(row.keys.as_ref().map_or(0, |keys| keys.len() as i32)),
            pg_sys::Datum::from(transaction as i64),
            pg_sys::Datum::from(row.is_paged),
        ];
        let mut nulls = [false; 10];
        nulls[4] = keys.is_none();
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        if let Some(datum) = keys {
            pg_sys::pfree(datum.cast_mut_ptr());
        }
    }
}

/// Keys as a text[] Datum.
unsafe fn text_array(keys: &[&[u8]]) -> pg_sys::Datum {
    // SAFETY: the array is allocated with as many bytes as are filled.
    unsafe {
        if keys.is_empty() {
            return pg_sys::Datum::from(pg_sys::construct_empty_array(pg_sys::TEXTOID));
        }
        let size = text_array_size(keys);
        let array = pg_sys::palloc0(size).cast::<u8>();
        fill_text_array(std::slice::from_raw_parts_mut(array, size), keys);
        pg_sys::Datum::from(array)
    }
}

/// Bytes before the first element: ArrayType with one dimension and no nulls (utils/array.h).
const ARRAY_HEADER: usize = 24;

/// Bytes of a text with its header, at the alignment of the next one.
fn text_size(key: &[u8]) -> usize {
    (size_of::<u32>() + key.len()).next_multiple_of(align_of::<u32>())
}

fn text_array_size(keys: &[&[u8]]) -> usize {
    ARRAY_HEADER + keys.iter().map(|key| text_size(key)).sum::<usize>()
}

/// Writes what construct_array makes of texts into zeroed bytes: it would want a copy of each key first.
fn fill_text_array(mut array: &mut [u8], keys: &[&[u8]]) {
    let size_header = |size: usize| {
        let size = size as u32;
        if cfg!(target_endian = "big") { size } else { size << 2 }
    };
    let (dimensions, no_nulls, lower_bound) = (1, 0, 1);
    let header = [
        size_header(array.len()),
        dimensions,
        no_nulls,
        pg_sys::TEXTOID.to_u32(),
        keys.len() as u32,
        lower_bound,
    ];
    for (place, word) in array.chunks_exact_mut(4).zip(header) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    array = &mut array[ARRAY_HEADER..];
    for key in keys {
        let (text, rest) = array.split_at_mut(text_size(key));
        text[..4].copy_from_slice(&size_header(4 + key.len()).to_ne_bytes());
        text[4..4 + key.len()].copy_from_slice(key);
        array = rest;
    }
}
