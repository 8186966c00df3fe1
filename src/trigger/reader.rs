//! How a trigger reads the key out of a row, and sees whether anything that is embedded has changed.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::prelude::*;

use crate::catalog::{self, Config};
use crate::key::{Form, push_element, without_blanks};
use crate::queue::{Noted, Sweep};
use crate::text_settings;

/// PostgreSQL's own functions that raise nothing, without the guard of pg_sys: they are called for every row.
pub(super) mod raw {
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

unsafe extern "C-unwind" {
    /// Whether two values are stored the same, however they are packed (utils/datum.h).
    fn datum_image_eq(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
}

thread_local! {
    /// Counts what this process heard of changed relations: a reader is made anew after each.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// Hears that a relation, or all of them, may have changed.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn on_relation_change(
    _arg: pg_sys::Datum,
    _relation: pg_sys::Oid,
) {
    GENERATION.set(GENERATION.get() + 1);
}

/// One column of a key in a relation.
struct KeyPart {
    attribute: i32,
    type_oid: pg_sys::Oid,
    form: Form,
    output: pg_sys::Oid,
}

/// A column that is looked at when a row is updated.
struct Watched {
    attribute: i32,
    by_value: bool,
    length: i16,
}

/// What one trigger needs to know of its relation.
pub(super) struct Reader {
    pub trigger: pg_sys::Oid,
    generation: u64,
    /// None for a trigger that is not on the source of the vector table it names.
    pub table_id: Option<i32>,
    /// Empty when the key cannot be read: then any number of rows counts as changed.
    key: Vec<KeyPart>,
    /// None when every update counts.
    watched: Option<Vec<Watched>>,
}

impl Reader {
    /// Whether it still tells the truth.
    pub fn is_current(&self) -> bool {
        self.generation == GENERATION.get()
    }

    /// Looks up how to read the keys of a trigger.
    ///
    /// # Safety
    /// The trigger data has to be that of a trigger that fires.
    pub unsafe fn new(trigger: &pg_sys::TriggerData) -> Self {
        // Read first: what changes while this looks makes the result old at once.
        let generation = GENERATION.get();
        // SAFETY: the trigger data and what it points to live for the duration of the call; tgargs holds tgnargs
        // terminated strings.
        unsafe {
            let oid = (*trigger.tg_trigger).tgoid;
            let argument = |n: i16| {
                (n < (*trigger.tg_trigger).tgnargs)
                    .then(|| CStr::from_ptr(*(*trigger.tg_trigger).tgargs.add(n as usize)))
            };
            let named = argument(0).and_then(|id| id.to_str().ok()?.parse().ok());
            // Anybody may make a trigger with this function on a table of their own; it notes nothing for another's.
            let relation = (*trigger.tg_relation).rd_id;
            let config = named.and_then(|id| catalog::config(id, relation));
            let (key, watched) = match &config {
                Some(config) => parts(config, relation, argument(1)),
                None => (Vec::new(), None),
            };
            Self { trigger: oid, generation, table_id: config.map(|c| c.table_id), key, watched }
        }
    }

    /// Whether the types of the key are those of this relation still.
    unsafe fn fits(&self, descriptor: pg_sys::TupleDesc) -> bool {
        // SAFETY: the descriptor is that of the relation whose columns were looked up.
        self.key
            .iter()
            .all(|part| unsafe { raw::SPI_gettypeid(descriptor, part.attribute) } == part.type_oid)
    }

    /// Notes what has become of the row of a trigger.
    ///
    /// # Safety
    /// As for [`Reader::new`], and the event has to be one of a row.
    pub unsafe fn note(&self, noted: &mut Noted, trigger: &pg_sys::TriggerData) {
        // SAFETY: as in new(); an update has both versions of its row.
        unsafe {
            let descriptor = (*trigger.tg_relation).rd_att;
            if self.key.is_empty() || !self.fits(descriptor) {
                noted.sweep = Sweep::Changed;
                return;
            }
            if trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK != pg_sys::TRIGGER_EVENT_UPDATE {
                return self.push(noted, descriptor, trigger.tg_trigtuple);
            }
            if !self.is_changed(descriptor, trigger.tg_trigtuple, trigger.tg_newtuple) {
                return;
            }
            let before = noted.len();
            self.push(noted, descriptor, trigger.tg_trigtuple);
            self.push(noted, descriptor, trigger.tg_newtuple);
            noted.fold_pair(before);
        }
    }

    /// Whether two versions of a row differ in anything that is watched, as they are stored.
    unsafe fn is_changed(
        &self,
        descriptor: pg_sys::TupleDesc,
        old: pg_sys::HeapTuple,
        new: pg_sys::HeapTuple,
    ) -> bool {
        let Some(watched) = &self.watched else { return true };
        watched.iter().any(|column| {
            let (mut old_null, mut new_null) = (false, false);
            // SAFETY: both versions belong to the relation whose descriptor is used.
            let (a, b) = unsafe {
                (
                    raw::SPI_getbinval(old, descriptor, column.attribute, &mut old_null),
                    raw::SPI_getbinval(new, descriptor, column.attribute, &mut new_null),
                )
            };
            if old_null || new_null {
                return old_null != new_null;
            }
            // SAFETY: neither is null, and both are of the type that the column was looked up with.
            !unsafe { is_same(a, b, column) }
        })
    }

    /// Adds the key of one row version.
    unsafe fn push(
        &self,
        noted: &mut Noted,
        descriptor: pg_sys::TupleDesc,
        row: pg_sys::HeapTuple,
    ) {
        let mut array = Vec::new();
        for part in &self.key {
            let mut is_null = false;
            // SAFETY: the row belongs to the relation whose descriptor is used.
            let value =
                unsafe { raw::SPI_getbinval(row, descriptor, part.attribute, &mut is_null) };
            if is_null {
                noted.sweep = Sweep::Changed;
                return;
            }
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

/// What a key and the watched columns are in a relation, which is the source or a partition with other numbers.
fn parts(
    config: &Config,
    relation: pg_sys::Oid,
    old_argument: Option<&CStr>,
) -> (Vec<KeyPart>, Option<Vec<Watched>>) {
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
        _ if !config.is_at_home => None,
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
    // Keys of another type than the vector table's would not be found again, even after the type is what it was.
    // SAFETY: a syscache look-up in a transaction.
    let fits = |(part, was): (&KeyPart, &pg_sys::Oid)| unsafe { pg_sys::getBaseType(part.type_oid) } == *was;
    let is_known = config.key_types.is_empty() || key.iter().zip(&config.key_types).all(fits);
    let key = if is_known { key } else { Vec::new() };
    // A column that is gone, or not stored, cannot be compared: then every update counts.
    let watched = config.column_numbers.as_ref().and_then(|numbers| {
        let all = config.key_numbers.iter().flatten().chain(numbers);
        all.map(|n| {
            in_relation(*n).filter(|n| is_stored(relation, *n)).map(|n| watched(relation, n))
        })
        .collect()
    });
    (key, watched)
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
    KeyPart { attribute, type_oid, form, output }
}

/// Whether a column has a value in the stored row: one that is computed when it is read does not (PostgreSQL 18).
fn is_stored(relation: pg_sys::Oid, attribute: i32) -> bool {
    // SAFETY: a syscache look-up in a transaction.
    unsafe { pg_sys::get_attgenerated(relation, attribute as i16) as u8 != b'v' }
}

fn watched(relation: pg_sys::Oid, attribute: i32) -> Watched {
    let (mut length, mut by_value) = (0, false);
    // SAFETY: look-ups in a transaction.
    unsafe {
        let type_oid = pg_sys::get_atttype(relation, attribute as i16);
        pg_sys::get_typlenbyval(type_oid, &mut length, &mut by_value);
    }
    Watched { attribute, by_value, length }
}

/// Whether two values are stored the same. What was moved out of the row is not read when both have it in one place.
unsafe fn is_same(a: pg_sys::Datum, b: pg_sys::Datum, column: &Watched) -> bool {
    if column.by_value {
        return a == b;
    }
    // SAFETY: the lengths are those of the column's type, and the values are not null.
    unsafe {
        let bytes = |datum: pg_sys::Datum, length: usize| {
            std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>().cast_const(), length)
        };
        match column.length {
            -1 => {
                let (of_a, of_b) =
                    (pgrx::varsize_any(a.cast_mut_ptr()), pgrx::varsize_any(b.cast_mut_ptr()));
                if of_a == of_b && bytes(a, of_a) == bytes(b, of_b) {
                    return true;
                }
            }
            length if length > 0 => return bytes(a, length as usize) == bytes(b, length as usize),
            _ => {}
        }
        pg_sys::ffi::pg_guard_ffi_boundary(|| datum_image_eq(a, b, false, column.length.into()))
    }
}

/// Gives the text form of a key's value to `use_it`: the same form whatever the session has set.
unsafe fn with_text(part: &KeyPart, value: pg_sys::Datum, use_it: &mut dyn FnMut(&[u8])) {
    let integer = match part.type_oid {
        pg_sys::INT8OID => value.value() as i64,
        pg_sys::INT4OID => i64::from(value.value() as i32),
        pg_sys::INT2OID => i64::from(value.value() as i16),
        _ => {
            let _settings = text_settings::TextSettings::fixed();
            // SAFETY: the function is the output of the value's type; the text is freed after it was used.
            unsafe {
                let text = pg_sys::OidOutputFunctionCall(part.output, value);
                use_it(CStr::from_ptr(text).to_bytes());
                pg_sys::pfree(text.cast());
            }
            return;
        }
    };
    let mut digits = [0u8; 20];
    let mut rest = &mut digits[..];
    // Twenty bytes hold every i64 with its sign, so this cannot fail.
    let _ = std::io::Write::write_fmt(&mut rest, format_args!("{integer}"));
    let used = 20 - rest.len();
    use_it(&digits[..used]);
}
