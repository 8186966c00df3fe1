//! Row security that follows the source: a reader of a vector table sees the rows that SELECT on the source would show.
//!
//! A policy on the vector table calls `embedd.may_read_source()` for each row. A sub-select in the policy would be simpler, but
//! it would make the vector table depend on the source, which then could not be dropped or altered.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::catalog::{self, RowSecurity, VectorTable};
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

/// Whether the rows that a role sees of a relation depend on the role: by policies, or by a view that reads with the rights
/// of its caller.
const DEPENDS_ON_ROLE: &str = "
    select c.relrowsecurity
           or (c.relkind = 'v' and exists (select from pg_catalog.pg_options_to_table(c.reloptions) o
                                            where o.option_name = 'security_invoker' and o.option_value::boolean))
      from pg_catalog.pg_class c where c.oid = $1";

/// Whether a vector table lacks the policy that it should have, or has one that it should not have.
pub fn differs(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let rows = client.select(
        &format!(
            "select coalesce(({DEPENDS_ON_ROLE}), false),
                    exists (select from pg_catalog.pg_policy p where p.polrelid = $2 and p.polname = $3),
                    coalesce((select c.relrowsecurity from pg_catalog.pg_class c where c.oid = $2), false)"
        ),
        None,
        &[table.source.into(), table.relation.into(), POLICY.into()],
    )?;
    let (depends, has_policy, is_enabled) = rows.first().get_three::<bool, bool, bool>()?;
    let wanted = depends == Some(true) && is_followed(table);
    Ok(wanted != (has_policy == Some(true)) || (wanted && is_enabled != Some(true)))
}

fn is_followed(table: &VectorTable) -> bool {
    let settings = table.stored.question_settings.as_ref();
    settings.and_then(|settings| settings.row_security).unwrap_or_default() == RowSecurity::Auto
}

/// Creates the policy of a vector table, or drops it, with the rights of its owner.
pub fn follow(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    if !differs(client, table)? {
        return Ok(());
    }
    let relation = table.relation_name()?;
    let rows = client.update(DEPENDS_ON_ROLE, None, &[table.source.into()])?;
    let depends = !rows.is_empty() && rows.first().get_one::<bool>()? == Some(true);
    let rows = client.update(
        "select exists (select from pg_catalog.pg_policy p where p.polrelid = $1 and p.polname = $2),
                exists (select from pg_catalog.pg_policy p where p.polrelid = $1 and p.polname <> $2)",
        None,
        &[table.relation.into(), POLICY.into()],
    )?;
    let (has_policy, has_others) = rows.first().get_two::<bool, bool>()?;
    let has_policy = has_policy == Some(true);
    let _rights = RoleSwitch::of_owner(table.owner);
    if depends && is_followed(table) {
        if !has_policy {
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
    if has_policy {
        command::run(client, &format!("drop policy {POLICY} on {relation}"))?;
    }
    // Policies of the owner's own stay in force.
    if has_others == Some(false) {
        command::run(client, &format!("alter table {relation} disable row level security"))?;
    }
    Ok(())
}

/// What is known of one vector table in one execution of one statement. A policy of the source may read a setting, which
/// can change between two statements of a function, so nothing is kept longer.
struct Reader {
    execution: u64,
    moment: Moment,
    origin_id: i32,
    /// Tests one key, and returns all keys, which is empty where there are too many; None where there is no source.
    statements: Option<[String; 2]>,
    rows: u32,
    /// The keys that the role may see.
    visible: Option<HashSet<String>>,
}

thread_local! {
    static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
    /// The plan of the last test of one key. Never dropped, because PostgreSQL's memory may be gone at the end of the process.
    static PLAN: RefCell<ManuallyDrop<Option<(String, OwnedPreparedStatement)>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// The number of the execution that a call belongs to: calls of one place in one execution of a plan have the same.
///
/// # Safety
///
/// The call info must be that of a running call.
pub unsafe fn execution(call: pg_sys::FunctionCallInfo) -> u64 {
    thread_local! {
        static LAST: Cell<u64> = const { Cell::new(0) };
    }
    // SAFETY: the call's own look-up record, whose memory context lives as long as it does.
    unsafe {
        let lookup = (*call).flinfo;
        if lookup.is_null() {
            return LAST.replace(LAST.get() + 1);
        }
        if (*lookup).fn_extra.is_null() {
            let number = pg_sys::MemoryContextAlloc((*lookup).fn_mcxt, size_of::<u64>());
            LAST.set(LAST.get() + 1);
            number.cast::<u64>().write(LAST.get());
            (*lookup).fn_extra = number;
        }
        (*lookup).fn_extra.cast::<u64>().read()
    }
}

/// Whether SELECT on the source of a vector table shows the current role the row with this key.
pub fn may_read(execution: u64, origin_id: i32, pk_value: &str) -> Result<bool> {
    let moment = Moment::now();
    let mut reader = READER.with_borrow_mut(Option::take).filter(|reader| {
        (Some(reader.moment), reader.execution, reader.origin_id) == (moment, execution, origin_id)
    });
    if let Some(visible) = reader.as_ref().and_then(|reader| reader.visible.as_ref()) {
        let may = visible.contains(pk_value);
        READER.set(reader);
        return Ok(may);
    }
    let known = match reader.take() {
        Some(reader) => reader,
        None => Reader {
            execution,
            statements: statements(origin_id)?,
            // Outside a statement there is none that a later call could belong to.
            moment: match moment {
                Some(moment) => moment,
                None => return Ok(false),
            },
            origin_id,
            rows: 0,
            visible: None,
        },
    };
    let (known, may) = test(known, pk_value)?;
    READER.set(Some(known));
    Ok(may)
}

/// Tests one key with the rights of the current role.
fn test(mut reader: Reader, pk_value: &str) -> Result<(Reader, bool)> {
    let Some([one, all]) = reader.statements.clone() else { return Ok((reader, false)) };
    let _path = rights::pin_path();
    Spi::connect(|client| {
        reader.rows += 1;
        if reader.rows == ROW_BY_ROW && !all.is_empty() {
            let keys: HashSet<String> =
                texts(client.select(&all, None, &[])?)?.into_iter().collect();
            let may = keys.contains(pk_value);
            reader.visible = Some(keys);
            return Ok((reader, may));
        }
        let kept = PLAN.with_borrow_mut(|plan| plan.take()).filter(|(sql, _)| *sql == one);
        let plan = match kept {
            Some((_, plan)) => plan,
            None => client.prepare(one.as_str(), &[PgBuiltInOids::TEXTOID.oid()])?.keep(),
        };
        let rows = client.select(&plan, None, &[pk_value.into()])?;
        let may = rows.first().get_one::<bool>()? == Some(true);
        PLAN.with_borrow_mut(|kept| **kept = Some((one, plan)));
        Ok((reader, may))
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
