//! Row security that follows the source: a reader of a vector table sees the rows that SELECT on the source would show.
//!
//! A policy on the vector table calls `embedd.may_read_source()` for each row. A sub-select in the policy would be simpler, but
//! it would make the vector table depend on the source, which then could not be dropped or altered.

use std::cell::RefCell;
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::catalog::{self, VectorTable};
use crate::command;
use crate::datum::texts;
use crate::error::Result;
use crate::moment::Moment;
use crate::rights::{self, RoleSwitch};

/// The name of the policy.
const POLICY: &str = "embedd_source";

/// After so many rows of one execution the keys that the reader may see are read at once,
const ROW_BY_ROW: u32 = 1000;
/// unless the source has more rows than this.
const MOST_KEYS: f32 = 500_000.0;

/// What decides about the policy of a vector table.
struct Look {
    /// Whether the vector table is to have the policy.
    is_wanted: bool,
    has_policy: bool,
    has_others: bool,
    /// Whether row security of the vector table is on.
    is_enabled: bool,
}

impl Look {
    fn at(client: &SpiClient<'_>, table: &VectorTable) -> Result<Look> {
        // The rows that a role sees of a source depend on the role by policies, or by a view that reads with the rights of its
        // caller.
        let rows = client.select(
            "select exists (select from pg_catalog.pg_class c
                             where c.oid = $1
                               and (c.relrowsecurity
                                    or (c.relkind = 'v' and exists (select from pg_catalog.pg_options_to_table(c.reloptions) o
                                                                     where o.option_name = 'security_invoker' and o.option_value::boolean)))),
                    exists (select from pg_catalog.pg_policy p where p.polrelid = $2 and p.polname = $3),
                    exists (select from pg_catalog.pg_policy p where p.polrelid = $2 and p.polname <> $3),
                    exists (select from pg_catalog.pg_class c where c.oid = $2 and c.relrowsecurity)",
            None,
            &[table.source.into(), table.relation.into(), POLICY.into()],
        )?;
        let row = rows.first();
        let is = |n: usize| -> Result<bool> { Ok(row.get::<bool>(n)? == Some(true)) };
        Ok(Look {
            is_wanted: is(1)? && table.stored.question_settings.follows_row_security(),
            has_policy: is(2)?,
            has_others: is(3)?,
            is_enabled: is(4)?,
        })
    }

    fn differs(&self) -> bool {
        self.is_wanted != self.has_policy || (self.is_wanted && !self.is_enabled)
    }
}

/// Whether a vector table lacks the policy that it should have, or has one that it should not have.
pub fn differs(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    Ok(Look::at(client, table)?.differs())
}

/// Creates the policy of a vector table, or drops it, with the rights of its owner.
pub fn follow(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let look = Look::at(client, table)?;
    if !look.differs() {
        return Ok(());
    }
    let relation = table.relation_name()?;
    let _rights = RoleSwitch::of_owner(table.owner);
    if look.is_wanted {
        if !look.has_policy {
            command::run(
                client,
                &format!(
                    "create policy {POLICY} on {relation} for select using (embedd.may_read_source({}, pk_value))",
                    table.origin_id
                ),
            )?;
        }
        return command::run(client, &format!("alter table {relation} enable row level security"));
    }
    command::run(client, &format!("drop policy {POLICY} on {relation}"))?;
    // Policies of the owner's own stay in force.
    match look.has_others {
        true => Ok(()),
        false => {
            command::run(client, &format!("alter table {relation} disable row level security"))
        }
    }
}

/// What is known of one vector table at one place of one execution of a statement. A policy of the source may read a
/// setting, which can change between two statements of a function, so nothing is kept longer.
#[derive(Default)]
struct Reader {
    /// What it is about; None before the first call.
    of: Option<(Moment, i32)>,
    /// Tests one key, and returns all keys, which is empty where there are too many; None where there is no source.
    statements: Option<[String; 2]>,
    rows: u32,
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
    let Some([one, all]) = &reader.statements else { return Ok(false) };
    reader.rows += 1;
    let _path = rights::pin_path();
    Spi::connect(|client| {
        if reader.rows == ROW_BY_ROW && !all.is_empty() {
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

/// The statements that test one key and that return all keys of the source of a vector table.
fn statements(origin_id: i32) -> Result<Option<[String; 2]>> {
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
        let matches = key.matches("s", &key.values("$1"), "$1");
        let one = format!("select exists (select from {source} s where {matches})");
        let size = client.select(
            "select c.reltuples from pg_catalog.pg_class c where c.oid = $1",
            None,
            &[table.source.into()],
        )?;
        let all = match size.first().get_one::<f32>()? {
            Some(rows) if rows <= MOST_KEYS => {
                format!("select {} from {source} s", key.pk_value("s"))
            }
            _ => String::new(),
        };
        Ok(Some([one, all]))
    })
}
