//! Tells whether a row of a vector table is one that SELECT on the source shows to the current role. The policy calls it for
//! each row.

use std::cell::RefCell;
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;

use super::held;
use crate::catalog;
use crate::datum::texts;
use crate::error::Result;
use crate::moment::Moment;
use crate::rights::{self, RoleSwitch};

/// Sources with more rows than this are never read as a whole.
pub const MOST_KEYS: f32 = 500_000.0;
/// So many keys are read in the time of one test.
const KEYS_PER_TEST: f32 = 25.0;
/// After so many tests at least the keys that the reader may see are read at once, and at most.
const FEWEST_TESTS: f32 = 50.0;
const MOST_TESTS: f32 = 4000.0;

/// What is known of one vector table at one place of one execution of a statement. A policy of the source may read a
/// setting, which can change between two statements of a function, so nothing is kept longer.
#[derive(Default)]
struct Reader {
    /// What it is about; None before the first call.
    of: Option<(Moment, i32)>,
    /// None where there is no source.
    statements: Option<Statements>,
    tests: u32,
    /// The keys that the role may see.
    visible: Option<HashSet<String>>,
}

thread_local! {
    /// The plan of the last test of one key. Never dropped, because PostgreSQL's memory may be gone at the end of the process.
    static PLAN: RefCell<ManuallyDrop<Option<(String, OwnedPreparedStatement)>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Whether SELECT on the source of a vector table shows the current role the row with this key.
///
/// # Safety
///
/// The call info must be that of the running call.
pub unsafe fn may_read(
    call: pg_sys::FunctionCallInfo,
    origin_id: i32,
    pk_value: &str,
) -> Result<bool> {
    if let Some(is_held) = held::is_held(origin_id, pk_value) {
        return Ok(is_held);
    }
    // SAFETY: the call's own look-up record, in which only this function keeps something. What it keeps is dropped with the
    // memory context of the execution, after an error too.
    let reader: &mut Reader = unsafe {
        let lookup = (*call).flinfo;
        if lookup.is_null() {
            return Ok(false);
        }
        if (*lookup).fn_extra.is_null() {
            let mut context = PgMemoryContexts::For((*lookup).fn_mcxt);
            (*lookup).fn_extra = context.leak_and_drop_on_delete(Reader::default()).cast();
        }
        &mut *(*lookup).fn_extra.cast()
    };
    let Some(moment) = Moment::now() else { return Ok(false) };
    if reader.of != Some((moment, origin_id)) {
        let (of, statements) = (Some((moment, origin_id)), statements(origin_id)?);
        *reader = Reader { of, statements, ..Reader::default() };
    }
    match &reader.visible {
        Some(visible) => Ok(visible.contains(pk_value)),
        None => test(reader, pk_value),
    }
}

/// Tests one key with the rights of the current role.
fn test(reader: &mut Reader, pk_value: &str) -> Result<bool> {
    let Some(Statements { one, all, size }) = &reader.statements else { return Ok(false) };
    reader.tests += 1;
    let enough = (size / KEYS_PER_TEST).clamp(FEWEST_TESTS, MOST_TESTS);
    let _path = rights::pin_path();
    Spi::connect(|client| {
        if reader.tests as f32 >= enough && *size <= MOST_KEYS {
            let keys: HashSet<String> =
                texts(client.select(all, None, &[])?)?.into_iter().collect();
            let may = keys.contains(pk_value);
            reader.visible = Some(keys);
            return Ok(may);
        }
        let kept = PLAN.with_borrow_mut(|plan| plan.take()).filter(|(sql, _)| sql == one);
        let (sql, plan) = match kept {
            Some(kept) => kept,
            None => {
                let plan = client.prepare(one.as_str(), &[PgBuiltInOids::TEXTOID.oid()])?.keep();
                (one.clone(), plan)
            }
        };
        let rows = client.select(&plan, None, &[pk_value.into()])?;
        let may = rows.first().get_one::<bool>()? == Some(true);
        PLAN.with_borrow_mut(|kept| **kept = Some((sql, plan)));
        Ok(may)
    })
}

/// What is asked of the source of a vector table.
pub struct Statements {
    /// Tests one key.
    pub one: String,
    /// Returns the keys of all rows.
    pub all: String,
    /// Rows of the source by its statistics; infinitely many where they are not known.
    pub size: f32,
}

/// The statements for the source of a vector table; None where there is no source.
pub fn statements(origin_id: i32) -> Result<Option<Statements>> {
    let _path = rights::pin_path();
    Spi::connect(|client| {
        let rights = RoleSwitch::of_extension()?;
        let found = catalog::by_origin(client, origin_id)?;
        drop(rights);
        let Some(mut table) = found else { return Ok(None) };
        let (Some(source), Ok(_)) = (table.source_name.clone(), table.resolve()) else {
            return Ok(None);
        };
        let key = &table.key;
        let matches = match key.depends_on_settings() {
            true => key.equals("s", &key.values("$1")),
            false => key.matches("s", &key.values("$1"), "$1"),
        };
        let one = format!("select exists (select from {source} s where {matches})");
        let all = format!("select {} from {source} s", key.pk_value("s"));
        let size = client.select(
            "select c.reltuples from pg_catalog.pg_class c where c.oid = $1",
            None,
            &[table.source.into()],
        )?;
        // A table that was never analyzed and a view have no number. Keys whose text depends on settings of the session are not
        // those of the vector table, and are tested one by one.
        let size = size.first().get_one::<f32>()?.filter(|rows| *rows >= 0.0);
        let size = size.filter(|_| !key.depends_on_settings());
        Ok(Some(Statements { one, all, size: size.unwrap_or(f32::INFINITY) }))
    })
}
