//! What a write to a source does: remember the keys of the changed rows, write them once before commit, wake the worker after it.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io::Write;

use pgrx::prelude::*;

use crate::queue::{self, Noted};
use crate::{server, shared};

/// Bytes of keys one vector table may gather at one level of savepoints before they are written early.
const MEMORY_BOUND: usize = 1024 * 1024;

/// PostgreSQL's own functions that raise nothing, without the guard of pg_sys: they are called for every row.
mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
        pub fn GetCurrentTransactionNestLevel() -> i32;
        pub fn SPI_gettypeid(descriptor: pg_sys::TupleDesc, attribute: i32) -> pg_sys::Oid;
        pub fn SPI_getbinval(
            row: pg_sys::HeapTuple,
            descriptor: pg_sys::TupleDesc,
            attribute: i32,
            is_null: *mut bool,
        ) -> pg_sys::Datum;
    }
}

/// What the running transaction has noted.
#[derive(Default)]
struct Transaction {
    tables: Vec<(i32, Noted)>,
    /// One entry for each open subtransaction that has noted something, innermost last.
    marks: Vec<Mark>,
    /// Something was written into the queue, so somebody has to be woken.
    written: bool,
}

/// How much had been noted when a subtransaction noted its first key.
struct Mark {
    subtransaction: pg_sys::SubTransactionId,
    lengths: Vec<(usize, bool)>,
}

impl Mark {
    /// Keys of the table at this index that belong to outer levels.
    fn length(&self, index: usize) -> (usize, bool) {
        self.lengths.get(index).copied().unwrap_or((0, false))
    }
}

impl Transaction {
    /// The keys of one vector table, with this subtransaction's beginning marked.
    fn noted(&mut self, table_id: i32) -> (usize, &mut Noted) {
        // SAFETY: main thread, inside a transaction.
        let (subtransaction, level) =
            unsafe { (raw::GetCurrentSubTransactionId(), raw::GetCurrentTransactionNestLevel()) };
        if level > 1 && self.marks.last().is_none_or(|m| m.subtransaction != subtransaction) {
            let lengths = self.tables.iter().map(|(_, n)| (n.len(), n.whole_table)).collect();
            self.marks.push(Mark { subtransaction, lengths });
        }
        let index = match self.tables.iter().position(|(id, _)| *id == table_id) {
            Some(index) => index,
            None => {
                self.tables.push((table_id, Noted::default()));
                self.tables.len() - 1
            }
        };
        (index, &mut self.tables[index].1)
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
        let whole_table = std::mem::take(&mut noted.whole_table);
        queue::write(*table_id, noted, outer);
        noted.whole_table = whole_table;
        noted.truncate(outer);
        self.written = true;
    }

    /// Writes everything. Called before commit and before PREPARE TRANSACTION.
    fn write(&mut self) {
        for (table_id, noted) in std::mem::take(&mut self.tables) {
            if noted.len() > 0 || noted.whole_table {
                queue::write(table_id, &noted, 0);
                self.written = true;
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
                let (length, whole_table) = mark.length(index);
                noted.truncate(length);
                noted.whole_table = whole_table;
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

/// How to read the key out of a row of the relation a trigger fired on last.
struct KeyReader {
    trigger: pg_sys::Oid,
    /// None for a trigger that is not on the source of the vector table it names.
    table_id: Option<i32>,
    /// Zero when the column is no longer there under the name the trigger knows.
    attribute: i32,
    key_type: pg_sys::Oid,
    output: pg_sys::Oid,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
    /// One for each trigger that fired: partitions and several vector tables of one source take turns.
    static READERS: RefCell<Vec<KeyReader>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: RefCell<bool> = const { RefCell::new(false) };
}

/// The trigger function `embedd.note_change()`; arguments of its triggers: id of the vector table, name of the key column.
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
    register_callbacks();
    // SAFETY: the trigger data and what it points to live for the duration of the call.
    unsafe {
        READERS.with_borrow_mut(|readers| {
            let reader = current_reader(readers, trigger);
            let Some(table_id) = reader.table_id else { return };
            TRANSACTION.with_borrow_mut(|transaction| {
                let (index, noted) = transaction.noted(table_id);
                let operation = trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
                // A trigger for statements, which anybody may make on a source of theirs, has no rows.
                let has_row = trigger.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
                if !has_row || reader.attribute <= 0 {
                    noted.whole_table = true;
                    return;
                }
                let before = noted.len();
                push_key(noted, reader, trigger, trigger.tg_trigtuple);
                if operation == pg_sys::TRIGGER_EVENT_UPDATE {
                    push_key(noted, reader, trigger, trigger.tg_newtuple);
                    noted.fold_pair(before);
                }
                transaction.bound_memory(index);
            });
        });
    }
}

/// The reader for this trigger, made anew when another trigger fired or the key's type is no longer the same.
unsafe fn current_reader<'a>(
    readers: &'a mut Vec<KeyReader>,
    trigger: &pg_sys::TriggerData,
) -> &'a KeyReader {
    // SAFETY: as in note(); tgargs holds tgnargs terminated strings.
    unsafe {
        let oid = (*trigger.tg_trigger).tgoid;
        let descriptor = (*trigger.tg_relation).rd_att;
        let found = readers.iter().position(|r| r.trigger == oid);
        let index = match found {
            Some(index)
                if readers[index].attribute <= 0
                    || raw::SPI_gettypeid(descriptor, readers[index].attribute)
                        == readers[index].key_type =>
            {
                index
            }
            found => {
                let reader = new_reader(oid, descriptor, trigger);
                if readers.len() >= MOST_READERS {
                    readers.clear();
                }
                match found.filter(|index| *index < readers.len()) {
                    Some(index) => readers[index] = reader,
                    None => readers.push(reader),
                }
                found.filter(|index| *index < readers.len()).unwrap_or(readers.len() - 1)
            }
        };
        &readers[index]
    }
}

/// Triggers whose readers a session remembers.
const MOST_READERS: usize = 64;

/// Looks up how to read the keys of a trigger.
unsafe fn new_reader(
    oid: pg_sys::Oid,
    descriptor: pg_sys::TupleDesc,
    trigger: &pg_sys::TriggerData,
) -> KeyReader {
    // SAFETY: as in note(); tgargs holds tgnargs terminated strings.
    unsafe {
        let argument = |n: usize| CStr::from_ptr(*(*trigger.tg_trigger).tgargs.add(n));
        let arguments = (*trigger.tg_trigger).tgnargs;
        let named = (arguments > 0).then(|| argument(0).to_str().ok()?.parse().ok()).flatten();
        // Anybody may make a trigger with this function on a table of their own; it notes nothing for another's.
        let relation = (*trigger.tg_relation).rd_id;
        let table_id = named.filter(|id| server::is_source(*id, relation));
        let attribute =
            if arguments > 1 { pg_sys::SPI_fnumber(descriptor, argument(1).as_ptr()) } else { 0 };
        let mut output = pg_sys::InvalidOid;
        let mut key_type = pg_sys::InvalidOid;
        if attribute > 0 {
            let mut is_varlena = false;
            key_type = pg_sys::SPI_gettypeid(descriptor, attribute);
            pg_sys::getTypeOutputInfo(key_type, &mut output, &mut is_varlena);
        }
        KeyReader { trigger: oid, table_id, attribute, key_type, output }
    }
}

/// Adds the key of one row version, or the mark for the whole table when it has none.
unsafe fn push_key(
    noted: &mut Noted,
    reader: &KeyReader,
    trigger: &pg_sys::TriggerData,
    tuple: pg_sys::HeapTuple,
) {
    // SAFETY: the tuple belongs to the relation whose descriptor is used, and the attribute number was found in it.
    unsafe {
        let mut is_null = false;
        let descriptor = (*trigger.tg_relation).rd_att;
        let value = raw::SPI_getbinval(tuple, descriptor, reader.attribute, &mut is_null);
        if is_null {
            noted.whole_table = true;
            return;
        }
        let integer = match reader.key_type {
            pg_sys::INT8OID => value.value() as i64,
            pg_sys::INT4OID => i64::from(value.value() as i32),
            pg_sys::INT2OID => i64::from(value.value() as i16),
            _ => {
                let text = pg_sys::OidOutputFunctionCall(reader.output, value);
                noted.push(CStr::from_ptr(text).to_bytes());
                pg_sys::pfree(text.cast());
                return;
            }
        };
        let mut digits = [0u8; 20];
        let mut rest = &mut digits[..];
        // Twenty bytes hold every i64 with its sign, so this cannot fail.
        let _ = write!(rest, "{integer}");
        let used = 20 - rest.len();
        noted.push(&digits[..used]);
    }
}

/// Registers for transaction ends, once in the life of the process.
fn register_callbacks() {
    REGISTERED.with_borrow_mut(|registered| {
        if !*registered {
            // SAFETY: the functions are static and guarded.
            unsafe {
                pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
                pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
            }
            *registered = true;
        }
    });
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
            READERS.with_borrow_mut(|readers| {
                // What could not be read may be readable in the next transaction.
                readers.retain(|r| r.attribute > 0 && r.table_id.is_some());
            });
        }
        XACT_EVENT_COMMIT if TRANSACTION.take().written => {
            // SAFETY: a plain global of the process.
            shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            TRANSACTION.take();
            READERS.take();
        }
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
