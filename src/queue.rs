//! The only reader and writer of embedd.queue: keys of changed rows, packed many to a queue row.

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::datum::Texts;
use crate::error::Result;
use crate::server;

/// Keys packed into one queue row at most.
pub const KEYS_PER_ROW: usize = 1000;
/// Bytes of keys packed into one queue row at most, so that a row of long text keys stays small.
const BYTES_PER_ROW: usize = 256 * 1024;

/// Keys of one vector table's source in the order of the changes; None stands for a change of any number of rows (TRUNCATE).
#[derive(Default)]
pub struct Noted {
    bytes: Vec<u8>,
    /// End of each key in `bytes`.
    ends: Vec<u32>,
    /// Whether anything happened that keys cannot tell.
    pub whole_table: bool,
}

impl Noted {
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

/// Writes the noted keys from `from` on into the queue, as part of the current transaction.
///
/// The heap and its index are written directly: a writer needs no grant on the queue, and no
/// search_path, role, row security or trigger can come in between.
pub fn write(table_id: i32, noted: &Noted, from: usize) {
    // SAFETY: runs in the main thread inside a transaction that may write; the relation is opened and
    // closed here, and every pointer is used while it is open. Errors are PostgreSQL's own and abort the transaction.
    unsafe {
        let Some((queue_oid, sequence_oid)) = server::queue_relations() else {
            // The extension was dropped in this very transaction: there is nobody to tell.
            return;
        };
        let relation = pg_sys::table_open(queue_oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        if noted.whole_table {
            insert_row(relation, sequence_oid, table_id, None);
        }
        let mut start = from;
        while start < noted.len() {
            let mut end = start;
            let mut bytes = 0;
            while end < noted.len() && end - start < KEYS_PER_ROW && bytes < BYTES_PER_ROW {
                bytes += noted.key(end).len();
                end += 1;
            }
            insert_row(relation, sequence_oid, table_id, Some((noted, start, end)));
            start = end;
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

unsafe extern "C-unwind" {
    /// PostgreSQL's nextval without the check of the caller's rights (commands/sequence.h).
    fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// Inserts one queue row; columns as in sql/tables.sql.
unsafe fn insert_row(
    relation: pg_sys::Relation,
    sequence: pg_sys::Oid,
    table_id: i32,
    keys: Option<(&Noted, usize, usize)>,
) {
    // SAFETY: the caller holds the relation open; the values array has the five columns of embedd.queue in order.
    unsafe {
        let id = pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false));
        let keys_datum = keys.map(|(noted, start, end)| text_array(noted, start, end));
        let mut values = [
            table_id.into(),
            pg_sys::Datum::from(id),
            pg_sys::Datum::from(server::system_id()),
            pg_sys::Datum::from(pg_sys::GetCurrentTransactionStartTimestamp()),
            keys_datum.unwrap_or(pg_sys::Datum::from(0usize)),
        ];
        let mut nulls = [false, false, false, false, keys.is_none()];
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        if let Some(datum) = keys_datum {
            pg_sys::pfree(datum.cast_mut_ptr());
        }
    }
}

/// The keys from `start` up to `end` as a text[] Datum.
unsafe fn text_array(noted: &Noted, start: usize, end: usize) -> pg_sys::Datum {
    // SAFETY: each element is a palloc'd text; construct_array copies them, so they are freed here.
    unsafe {
        let mut elements: Vec<pg_sys::Datum> = (start..end)
            .map(|i| {
                let key = noted.key(i);
                pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(
                    key.as_ptr().cast(),
                    key.len() as i32,
                ))
            })
            .collect();
        let array = pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as i32,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        );
        for element in elements {
            pg_sys::pfree(element.cast_mut_ptr());
        }
        pg_sys::Datum::from(array)
    }
}

/// A row of the queue.
pub struct Row {
    pub table_id: i32,
    pub id: i64,
    /// None: any number of rows changed.
    pub keys: Option<Vec<String>>,
}

/// Up to `limit` rows of each table in `after` above the id given with it, oldest first, but those in `known`.
pub fn read(
    client: &SpiClient<'_>,
    after: &[(i32, i64)],
    known: &[i64],
    limit: i64,
) -> Result<Vec<Row>> {
    if after.is_empty() {
        return Ok(Vec::new());
    }
    let (tables, ids): (Vec<i32>, Vec<i64>) = after.iter().copied().unzip();
    let rows = client.select(
        "select t.table_id, q.id, q.keys
           from unnest($1, $2) t(table_id, after)
          cross join lateral (
                select q.id, q.keys from embedd.queue q
                 where q.table_id = t.table_id and q.id > t.after and q.system_id = $3 and q.id <> all ($4)
                 order by q.id limit $5) q",
        None,
        &[
            tables.into(),
            ids.into(),
            server::system_id().into(),
            known.to_vec().into(),
            limit.into(),
        ],
    )?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let table_id = row.get::<i32>(1)?.unwrap_or_default();
        let id = row.get::<i64>(2)?.unwrap_or_default();
        let keys = row.get::<Texts>(3)?.map(|keys| keys.0);
        found.push(Row { table_id, id, keys });
    }
    Ok(found)
}

/// The highest id given out so far.
pub fn last_id(client: &SpiClient<'_>) -> Result<i64> {
    let rows = client.select(
        "select last_value - case when is_called then 0 else 1 end from embedd.queue_id_seq",
        None,
        &[],
    )?;
    Ok(rows.first().get_one::<i64>()?.unwrap_or_default())
}

/// Removes finished rows of one table.
pub fn remove(client: &mut SpiClient<'_>, table_id: i32, ids: &[i64]) -> Result<()> {
    if !ids.is_empty() {
        client.update(
            "delete from embedd.queue where table_id = $1 and id = any($2)",
            None,
            &[table_id.into(), ids.to_vec().into()],
        )?;
    }
    Ok(())
}

/// Removes rows of one table that another cluster wrote.
pub fn remove_foreign(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "delete from embedd.queue where table_id = $1 and system_id <> $2",
        None,
        &[table_id.into(), server::system_id().into()],
    )?;
    Ok(())
}

/// Removes every row of one table, whichever cluster wrote it.
pub fn remove_all(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update("delete from embedd.queue where table_id = $1", None, &[table_id.into()])?;
    Ok(())
}

/// Name of the queue's relation inside schema embedd.
pub const RELATION: &CStr = c"queue";
/// Name of the sequence that numbers queue rows.
pub const SEQUENCE: &CStr = c"queue_id_seq";
