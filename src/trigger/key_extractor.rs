//! Reads the key out of a row that a trigger is given, and sees whether anything that is embedded has changed.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgrx::prelude::*;

use super::key_text;
use super::stored_row::{self, Column, StoredRow};
use crate::catalog::{self, Config};
use crate::key::{Form, push_element, without_blanks};
use crate::queue::{BulkChange, ChangedKeys};
use crate::text_settings;

/// PostgreSQL's own functions that raise nothing, without the guard of pg_sys: they are called for every row.
pub(super) mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
        pub fn GetCurrentTransactionNestLevel() -> i32;
        pub fn SPI_getbinval(
            row: pg_sys::HeapTuple,
            descriptor: pg_sys::TupleDesc,
            attribute: i32,
            is_null: *mut bool,
        ) -> pg_sys::Datum;
    }
}

unsafe extern "C-unwind" {
    /// Whether two values are stored the same, however they are packed (utils/datum.h).
    fn datum_image_eq(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
}

/// Counts the messages about changed relations that this process has received: a capture is of one count.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Receives the message that a relation, or all of them, may have changed.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn on_relation_change(
    _arg: pg_sys::Datum,
    _relation: pg_sys::Oid,
) {
    GENERATION.fetch_add(1, Relaxed);
}

/// One column of a key in a relation.
struct KeyPart {
    attribute: i32,
    type_oid: pg_sys::Oid,
    /// What the type is made of, if it is a domain; the type itself otherwise.
    base: pg_sys::Oid,
    form: Form,
    output: pg_sys::Oid,
}

/// What one trigger notes: nothing where it is not on the source of the vector table that it names, else the changes for
/// this vector table and for its shadow.
pub(super) struct Capture {
    pub trigger: pg_sys::Oid,
    generation: u64,
    descriptor: pg_sys::TupleDesc,
    pub extractors: Vec<KeyExtractor>,
}

/// What a trigger needs to know of its relation to note changes for one vector table.
pub(super) struct KeyExtractor {
    /// The columns of the relation that all numbers here are of.
    descriptor: pg_sys::TupleDesc,
    pub table_id: i32,
    /// Empty when the key cannot be read: then any number of rows counts as changed.
    key: Vec<KeyPart>,
    /// The columns up to the last one that is watched. None when every update counts.
    columns: Option<Vec<Column>>,
}

impl Capture {
    /// Whether it is still true of the trigger's relation.
    pub fn is_current(&self, trigger: &pg_sys::TriggerData) -> bool {
        // SAFETY: a trigger that fires has a relation.
        let descriptor = unsafe { (*trigger.tg_relation).rd_att };
        self.generation == GENERATION.load(Relaxed) && self.descriptor == descriptor
    }

    /// Looks up how to read the keys of a trigger.
    ///
    /// # Safety
    /// The trigger data has to be that of a trigger that fires.
    pub unsafe fn new(trigger: &pg_sys::TriggerData) -> Self {
        // Read first: what changes during the look-ups makes the result old at once.
        let generation = GENERATION.load(Relaxed);
        // SAFETY: the trigger data and what it points to live for the duration of the call; tgargs holds tgnargs
        // terminated strings.
        unsafe {
            let oid = (*trigger.tg_trigger).tgoid;
            let argument = |n: i16| {
                (n < (*trigger.tg_trigger).tgnargs)
                    .then(|| CStr::from_ptr(*(*trigger.tg_trigger).tgargs.add(n as usize)))
            };
            let named = argument(0).and_then(|id| id.to_str().ok()?.parse().ok());
            // Every role may create a trigger with this function on a table of its own: that notes nothing for another's.
            let relation = (*trigger.tg_relation).rd_id;
            let descriptor = (*trigger.tg_relation).rd_att;
            let configs = named.map(|id| catalog::configs(id, relation)).unwrap_or_default();
            let extractors = configs
                .into_iter()
                .map(|config| {
                    let (key, columns) = parts(&config, relation, descriptor, argument(1));
                    KeyExtractor { descriptor, table_id: config.table_id, key, columns }
                })
                .collect();
            Self { trigger: oid, generation, descriptor, extractors }
        }
    }
}

impl KeyExtractor {
    /// Whether the event is an update that leaves all that is watched as it was.
    ///
    /// # Safety
    /// As for [`Capture::new`], and the event has to be one of a row.
    pub unsafe fn is_unchanged(&self, trigger: &pg_sys::TriggerData) -> bool {
        let Some(columns) = &self.columns else { return false };
        if !is_update(trigger) || self.key.is_empty() {
            return false;
        }
        let (old, new) = (trigger.tg_trigtuple, trigger.tg_newtuple);
        // SAFETY: an update has both versions of its row, and both belong to the relation whose columns these are.
        unsafe {
            stored_row::is_same(columns, &stored(old), &stored(new), |index| {
                let column = &columns[index];
                match (self.value(old, index as i32 + 1), self.value(new, index as i32 + 1)) {
                    (Some(a), Some(b)) => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                        datum_image_eq(a, b, column.by_value, column.length.into())
                    }),
                    (a, b) => a.is_none() && b.is_none(),
                }
            })
        }
    }

    /// Notes the keys that the row of a trigger had and has.
    ///
    /// # Safety
    /// As for [`KeyExtractor::is_unchanged`].
    pub unsafe fn note(&self, noted: &mut ChangedKeys, trigger: &pg_sys::TriggerData) {
        if self.key.is_empty() {
            noted.bulk_change = Some(BulkChange::Changed);
            return;
        }
        let before = noted.len();
        // SAFETY: the rows are those of the trigger; an update has both versions.
        unsafe {
            self.push(noted, trigger.tg_trigtuple);
            if is_update(trigger) {
                self.push(noted, trigger.tg_newtuple);
                noted.fold_pair(before);
            }
        }
    }

    /// The value of a column, none when it is null; also of a column that the row is older than.
    unsafe fn value(&self, row: pg_sys::HeapTuple, attribute: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: the row belongs to the relation whose descriptor is used.
        let value = unsafe { raw::SPI_getbinval(row, self.descriptor, attribute, &mut is_null) };
        (!is_null).then_some(value)
    }

    /// Adds the key of one row version.
    unsafe fn push(&self, noted: &mut ChangedKeys, row: pg_sys::HeapTuple) {
        let mut array = Vec::new();
        for part in &self.key {
            // SAFETY: the row is of the trigger's relation.
            let Some(value) = (unsafe { self.value(row, part.attribute) }) else {
                noted.bulk_change = Some(BulkChange::Changed);
                return;
            };
            let mut add = |text: &[u8]| match self.key.len() {
                1 if part.form == Form::Padded => noted.push(without_blanks(text)),
                1 => noted.push(text),
                _ => push_element(&mut array, part.form, text),
            };
            // SAFETY: the value is of the part's type.
            unsafe { with_text(part, value, &mut add) };
        }
        if self.key.len() > 1 {
            array.push(b']');
            noted.push(&array);
        }
    }
}

fn is_update(trigger: &pg_sys::TriggerData) -> bool {
    trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE
}

/// A row version as it is stored.
unsafe fn stored<'a>(row: pg_sys::HeapTuple) -> StoredRow<'a> {
    // SAFETY: the caller's row is valid while it is compared: t_len bytes from its header on, with one bit a column
    // between header and data when a column is null.
    unsafe {
        let header = (*row).t_data;
        let columns = usize::from((*header).t_infomask2) & pg_sys::HEAP_NATTS_MASK as usize;
        let has_nulls = u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL != 0;
        let begin = usize::from((*header).t_hoff);
        StoredRow {
            columns,
            not_null: has_nulls.then(|| (*header).t_bits.as_slice(columns.div_ceil(8))),
            data: std::slice::from_raw_parts(
                header.cast::<u8>().add(begin),
                ((*row).t_len as usize).saturating_sub(begin),
            ),
        }
    }
}

/// What a key and the watched columns are in a relation, which is the source or a partition with other numbers.
fn parts(
    config: &Config,
    relation: pg_sys::Oid,
    descriptor: pg_sys::TupleDesc,
    old_argument: Option<&CStr>,
) -> (Vec<KeyPart>, Option<Vec<Column>>) {
    let in_relation = |number: i16| -> Option<i32> {
        // SAFETY: syscache look-ups in a transaction; a partition has the names of its parent.
        unsafe {
            if pg_sys::get_atttype(config.source, number) == pg_sys::InvalidOid {
                return None;
            }
            if relation == config.source {
                return Some(i32::from(number));
            }
            let name = pg_sys::get_attname(config.source, number, true);
            let here = if name.is_null() { 0 } else { pg_sys::get_attnum(relation, name) };
            (here > 0).then(|| i32::from(here))
        }
    };
    let numbers: Option<Vec<i32>> = match (&config.key_numbers, old_argument) {
        _ if !config.is_responsible => None,
        (Some(numbers), _) => numbers.iter().map(|n| in_relation(*n)).collect(),
        // SAFETY: a syscache look-up in a transaction, with a terminated name.
        (None, Some(name)) => match unsafe { pg_sys::get_attnum(relation, name.as_ptr()) } {
            number if number > 0 => Some(vec![i32::from(number)]),
            _ => None,
        },
        (None, None) => None,
    };
    let key: Vec<KeyPart> =
        numbers.unwrap_or_default().into_iter().map(|n| key_part(relation, n)).collect();
    // SAFETY: the descriptor is that of a relation that is open.
    let described = unsafe { pgrx::PgTupleDesc::from_pg_unchecked(descriptor) };
    // Keys of another type than the vector table's would not be found again, even after the type is what it was.
    let is_known = |(n, part): (usize, &KeyPart)| {
        let here = described.get(part.attribute as usize - 1).map(|column| column.atttypid);
        here == Some(part.type_oid) && config.key_types.get(n).is_none_or(|was| *was == part.base)
    };
    let key = if key.iter().enumerate().all(is_known) { key } else { Vec::new() };
    // A column that is gone, or not stored, cannot be compared: then every update counts.
    let watched: Option<Vec<i32>> = config.column_numbers.as_ref().and_then(|numbers| {
        let all = config.key_numbers.iter().flatten().chain(numbers);
        all.map(|n| in_relation(*n).filter(|n| is_stored(relation, *n))).collect()
    });
    let columns = watched.map(|watched| {
        let last = watched.iter().max().map_or(0, |n| *n as usize);
        let column = |(n, c): (usize, &pg_sys::FormData_pg_attribute)| Column {
            length: c.attlen,
            alignment: alignment(c.attalign as u8),
            by_value: c.attbyval,
            is_watched: watched.contains(&(n as i32 + 1)),
        };
        described.iter().take(last).enumerate().map(column).collect()
    });
    (key, columns)
}

/// Bytes that a typalign of pg_type stands for.
fn alignment(typalign: u8) -> usize {
    match typalign {
        b'c' => 1,
        b's' => align_of::<std::ffi::c_short>(),
        b'i' => align_of::<std::ffi::c_int>(),
        _ => align_of::<f64>(),
    }
}

fn key_part(relation: pg_sys::Oid, attribute: i32) -> KeyPart {
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: look-ups in a transaction; a type that is not there raises PostgreSQL's own error.
    let (type_oid, base) = unsafe {
        let type_oid = pg_sys::get_atttype(relation, attribute as i16);
        pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
        (type_oid, pg_sys::getBaseType(type_oid))
    };
    let form = match base {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::NUMERICOID => Form::Number,
        pg_sys::BOOLOID => Form::Boolean,
        pg_sys::BPCHAROID => Form::Padded,
        _ => Form::Text,
    };
    KeyPart { attribute, type_oid, base, form, output }
}

/// Whether a column has a value in the stored row: one that is computed when it is read does not (PostgreSQL 18).
fn is_stored(relation: pg_sys::Oid, attribute: i32) -> bool {
    // SAFETY: a syscache look-up in a transaction.
    unsafe { pg_sys::get_attgenerated(relation, attribute as i16) as u8 != b'v' }
}

/// Gives the text form of a key's value to `use_it`: the same form whatever the session has set.
unsafe fn with_text(part: &KeyPart, value: pg_sys::Datum, use_it: &mut dyn FnMut(&[u8])) {
    let mut digits = [0; 20];
    match part.base {
        pg_sys::INT8OID => use_it(key_text::integer(value.value() as i64, &mut digits)),
        pg_sys::INT4OID => use_it(key_text::integer(i64::from(value.value() as i32), &mut digits)),
        pg_sys::INT2OID => use_it(key_text::integer(i64::from(value.value() as i16), &mut digits)),
        // SAFETY: a uuid is a pointer to its sixteen bytes.
        pg_sys::UUIDOID => use_it(&key_text::uuid(unsafe { &*value.cast_mut_ptr() })),
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
            // SAFETY: a text begins with its length.
            let stored = unsafe {
                let begin = value.cast_mut_ptr::<u8>().cast_const();
                std::slice::from_raw_parts(begin, pgrx::varsize_any(begin.cast()))
            };
            match stored_row::varlena_content(stored) {
                Some(text) => use_it(text),
                // SAFETY: as for the caller.
                _ => unsafe { with_output(part.output, value, use_it) },
            }
        }
        // SAFETY: as for the caller.
        _ => unsafe { with_output(part.output, value, use_it) },
    }
}

/// Gives what an output function makes of a value to `use_it`.
unsafe fn with_output(output: pg_sys::Oid, value: pg_sys::Datum, use_it: &mut dyn FnMut(&[u8])) {
    let _settings = text_settings::TextSettings::fixed();
    // SAFETY: the function is the output of the value's type; the text is freed after it was used.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(output, value);
        use_it(CStr::from_ptr(text).to_bytes());
        pg_sys::pfree(text.cast());
    }
}
