//! Row security that follows the source: a reader of a vector table sees the rows that SELECT on the source would show.
//!
//! A policy on the vector table calls `embedd.may_read_source()` for each row. A sub-select in the policy would be simpler, but
//! it would make the vector table depend on the source, which then could not be dropped or altered.

mod held;
mod reader;

use pgrx::pg_sys;
use pgrx::spi::SpiClient;

pub use self::held::{Held, hold};
pub use self::reader::{MOST_KEYS, Statements, may_read, statements};
use crate::catalog::{VectorTable, sight};
use crate::command;
use crate::error::Result;
use crate::rights::RoleSwitch;

/// The name of the policy.
const POLICY: &str = "embedd_source";

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

/// Whether the rows that the current role sees of a vector table are those that it sees of the source: by embedd's policy, with
/// no other that shows more. Restrictive ones show fewer, which does no harm.
pub fn shows_the_source(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    // SAFETY: a plain read of the process's own state.
    if !sight::has_policies(table.relation, unsafe { pg_sys::GetUserId() }) {
        return Ok(false);
    }
    let rows = client.select(
        "select pg_catalog.bool_and(p.polname = $2) from pg_catalog.pg_policy p where p.polrelid = $1 and p.polpermissive",
        None,
        &[table.relation.into(), POLICY.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
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
