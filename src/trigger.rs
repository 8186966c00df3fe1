//! What a write to a source does: remember the keys of the changed rows, write them once before commit, wake the worker after it.

mod key_extractor;
mod key_text;
mod stored_row;

use std::cell::{Cell, RefCell};

use pgrx::prelude::*;

use self::key_extractor::{Capture, KeyExtractor, raw};
use crate::queue::{self, BulkChange, ChangedKeys};
use crate::shared;

/// Bytes of keys one vector table may gather at one level of savepoints before they are written early.
const MEMORY_BOUND: usize = 1024 * 1024;

/// What the running transaction has noted.
#[derive(Default)]
struct Transaction {
    tables: Vec<(i32, ChangedKeys)>,
    /// One entry for each open subtransaction that has noted something, innermost last.
    marks: Vec<Mark>,
    /// Rows were written into the queue, so the workers have to be woken.
    written: bool,
    /// A source or embedd's own tables have changed, or rows were written for more than one number of workers.
    invalidates: bool,
    /// For how many workers rows were written.
    portions: Option<u16>,
}

/// How much had been noted when a subtransaction noted its first key.
struct Mark {
    subtransaction: pg_sys::SubTransactionId,
    lengths: Vec<(usize, Option<BulkChange>)>,
}

impl Mark {
    /// Keys of the table at this index that belong to outer levels.
    fn length(&self, index: usize) -> (usize, Option<BulkChange>) {
        self.lengths.get(index).copied().unwrap_or_default()
    }
}

impl Transaction {
    /// The keys of one vector table, with this subtransaction's beginning marked.
    fn noted(&mut self, table_id: i32) -> (usize, &mut ChangedKeys) {
        // SAFETY: main thread, inside a transaction.
        if unsafe { raw::GetCurrentTransactionNestLevel() } > 1 {
            self.mark_subtransaction();
        }
        let index = match self.tables.iter().position(|(id, _)| *id == table_id) {
            Some(index) => index,
            None => {
                self.tables.push((table_id, ChangedKeys::default()));
                self.tables.len() - 1
            }
        };
        (index, &mut self.tables[index].1)
    }

    /// Remembers where the current subtransaction begins, when it notes its first key.
    fn mark_subtransaction(&mut self) {
        // SAFETY: main thread, inside a transaction.
        let subtransaction = unsafe { raw::GetCurrentSubTransactionId() };
        if self.marks.last().is_none_or(|m| m.subtransaction != subtransaction) {
            let lengths = self.tables.iter().map(|(_, n)| (n.len(), n.bulk_change)).collect();
            self.marks.push(Mark { subtransaction, lengths });
        }
    }

    /// Writes what this level has gathered for one table when it has grown past the bound.
    ///
    /// Keys of outer levels stay in memory: written here, they would go with a rollback to the savepoint.
    fn bound_memory(&mut self, index: usize) {
        let (table_id, noted) = &mut self.tables[index];
        if noted.size() < MEMORY_BOUND {
            return;
        }
        let outer = self.marks.last().map_or(0, |mark| mark.length(index).0);
        if (noted.len() - outer) * 2 < noted.len() {
            return;
        }
        let bulk_change = noted.bulk_change.take();
        queue::write(*table_id, noted, outer);
        noted.bulk_change = bulk_change;
        noted.truncate(outer);
        self.note_written();
    }

    /// Rows were written into the queue just now.
    fn note_written(&mut self) {
        let portions = shared::worker_count();
        self.written = true;
        self.invalidates |=
            self.portions.replace(portions).is_some_and(|before| before != portions);
    }

    /// Writes everything. Called before commit and before PREPARE TRANSACTION.
    fn write(&mut self) {
        for (table_id, noted) in std::mem::take(&mut self.tables) {
            if noted.len() > 0 || noted.bulk_change.is_some() {
                queue::write(table_id, &noted, 0);
                self.note_written();
            }
        }
        self.marks.clear();
    }

    /// A subtransaction was rolled back: what it noted never happened.
    fn subtransaction_aborted(&mut self, subtransaction: pg_sys::SubTransactionId) {
        if self.marks.last().is_some_and(|m| m.subtransaction == subtransaction)
            && let Some(mark) = self.marks.pop()
        {
            for (index, (_, noted)) in self.tables.iter_mut().enumerate() {
                let (length, bulk_change) = mark.length(index);
                noted.truncate(length);
                noted.bulk_change = bulk_change;
            }
        }
    }

    /// A subtransaction was released: what it noted is its parent's now.
    fn subtransaction_committed(
        &mut self,
        subtransaction: pg_sys::SubTransactionId,
        parent: pg_sys::SubTransactionId,
    ) {
        if self.marks.last().is_some_and(|m| m.subtransaction == subtransaction)
            && let Some(mut mark) = self.marks.pop()
            && self.marks.last().is_none_or(|m| m.subtransaction != parent)
        {
            mark.subtransaction = parent;
            self.marks.push(mark);
        }
    }
}

/// What a commit has to tell the workers of the database.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum CommitEffect {
    #[default]
    None,
    /// Rows were written into the queue.
    Written,
    /// What the workers keep in memory is out of date.
    Invalidates,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
    /// One for each trigger that fired: partitions and several vector tables of one source take turns.
    static CAPTURES: RefCell<Vec<Capture>> = const { RefCell::new(Vec::new()) };
    static IS_REGISTERED: Cell<bool> = const { Cell::new(false) };
    static COMMIT_EFFECT: Cell<CommitEffect> = const { Cell::new(CommitEffect::None) };
}

/// The trigger function `embedd.note_change()`; argument of its triggers: id of the vector table.
///
/// # Safety
/// Called by PostgreSQL with the call info of a function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn embedd_note_change(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes valid call info; its context is a TriggerData exactly when the node tag says so.
    unsafe {
        let context = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "function \"note_change\" was not called as a trigger"
            );
        }
        note(&*context);
    }
    pg_sys::Datum::from(0usize)
}

/// What PostgreSQL wants to know of a version-1 function.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_embedd_note_change() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// Notes the keys of one fired trigger.
unsafe fn note(trigger: &pg_sys::TriggerData) {
    // SAFETY: the trigger data and what it points to live for the duration of the call.
    unsafe {
        CAPTURES.with_borrow_mut(|captures| {
            for extractor in &current_capture(captures, trigger).extractors {
                note_for(extractor, trigger);
            }
        });
    }
}

/// Notes the keys of one fired trigger for one vector table.
unsafe fn note_for(extractor: &KeyExtractor, trigger: &pg_sys::TriggerData) {
    // A statement trigger, which every role may create on a source of its own, has no rows.
    let is_row = trigger.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
    // SAFETY: as for the caller; the event is one of a row.
    if is_row && unsafe { extractor.is_unchanged(trigger) } {
        return;
    }
    TRANSACTION.with_borrow_mut(|transaction| {
        let (index, noted) = transaction.noted(extractor.table_id);
        if !is_row {
            let truncates =
                trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_TRUNCATE;
            let change = if truncates { BulkChange::Gone } else { BulkChange::Changed };
            noted.bulk_change = noted.bulk_change.max(Some(change));
            return;
        }
        // SAFETY: as above.
        unsafe { extractor.note(noted, trigger) };
        transaction.bound_memory(index);
    });
}

/// Notes that any number of rows has gone or changed, where no trigger fires. Called inside a transaction.
pub fn note_bulk_change(table_id: i32, change: BulkChange) {
    register_callbacks();
    TRANSACTION.with_borrow_mut(|transaction| {
        let (_, noted) = transaction.noted(table_id);
        noted.bulk_change = noted.bulk_change.max(Some(change));
    });
}

/// Has the worker look at embedd's own tables and at the sources after the transaction, once.
pub fn touch_at_commit() {
    register_callbacks();
    TRANSACTION.with_borrow_mut(|transaction| transaction.invalidates = true);
}

/// What this trigger captures, looked up again when a relation has changed.
unsafe fn current_capture<'a>(
    captures: &'a mut Vec<Capture>,
    trigger: &pg_sys::TriggerData,
) -> &'a Capture {
    // SAFETY: as in note().
    unsafe {
        let oid = (*trigger.tg_trigger).tgoid;
        let index = match captures.iter().position(|c| c.trigger == oid) {
            Some(index) => {
                if !captures[index].is_current(trigger) {
                    captures[index] = Capture::new(trigger);
                }
                index
            }
            None => {
                // Before the look-ups, whose result is true as long as no message about a relation comes.
                register_callbacks();
                if captures.len() >= MAX_CAPTURES {
                    captures.clear();
                }
                captures.push(Capture::new(trigger));
                captures.len() - 1
            }
        };
        &captures[index]
    }
}

/// Triggers whose captures a session remembers.
const MAX_CAPTURES: usize = 64;

/// Registers for transaction ends, once in the life of the process.
fn register_callbacks() {
    if IS_REGISTERED.get() {
        return;
    }
    // SAFETY: the functions are static and guarded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(on_release), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(
            Some(key_extractor::on_relation_change),
            pg_sys::Datum::from(0usize),
        );
    }
    IS_REGISTERED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(
    event: pg_sys::XactEvent::Type,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => {
            // Taken out while it is written: an error on the way unwinds, and the abort event clears the rest.
            let mut transaction = TRANSACTION.take();
            transaction.write();
            TRANSACTION.set(transaction);
        }
        XACT_EVENT_COMMIT => {
            let Transaction { written, invalidates, portions, .. } = TRANSACTION.take();
            // A worker looks for rows of another number of workers only when it reads its tables again.
            let invalidates =
                invalidates || portions.is_some_and(|count| count != shared::worker_count());
            COMMIT_EFFECT.set(match written {
                _ if invalidates => CommitEffect::Invalidates,
                true => CommitEffect::Written,
                false => CommitEffect::None,
            });
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            TRANSACTION.take();
            CAPTURES.take();
        }
        _ => {}
    }
}

/// Wakes the workers. A worker woken before PostgreSQL has sent the invalidation messages of the transaction would find
/// its own caches as they were: it would never look again, or read with a right that the same transaction has revoked.
#[pg_guard]
unsafe extern "C-unwind" fn on_release(
    phase: pg_sys::ResourceReleasePhase::Type,
    is_commit: bool,
    is_top_level: bool,
    _arg: *mut std::ffi::c_void,
) {
    let is_over = phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS;
    if !is_over || !is_top_level {
        return;
    }
    // SAFETY: a plain global of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    match COMMIT_EFFECT.take() {
        CommitEffect::Invalidates if is_commit => shared::touch(database),
        CommitEffect::Written if is_commit => shared::wake_worker(database),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::*;
    TRANSACTION.with_borrow_mut(|transaction| match event {
        SUBXACT_EVENT_ABORT_SUB => transaction.subtransaction_aborted(subtransaction),
        SUBXACT_EVENT_COMMIT_SUB => transaction.subtransaction_committed(subtransaction, parent),
        _ => {}
    });
}
