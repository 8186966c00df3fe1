//! SELECT on a vector table for the roles that have it on the source, kept as it is there.
//!
//! Only SELECT on the whole source, or on every column that the vector table uses, is followed: metadata holds all of them.
//! A role that never had SELECT on the source keeps what the owner of the vector table grants it.

use pgrx::pg_sys;
use pgrx::spi::SpiClient;

use crate::catalog::{self, VectorTable};
use crate::datum::Texts;
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::{command, extension};

/// The roles whose SELECT on a vector table differs from that on its source.
#[derive(Default)]
struct Look {
    /// Quoted names of the roles to grant it to, and to revoke it from.
    grant: Vec<String>,
    revoke: Vec<String>,
    /// The oids of the roles that have it on both, 0 for PUBLIC, as text.
    mirrored: Vec<String>,
}

impl Look {
    fn at(client: &SpiClient<'_>, table: &VectorTable) -> Result<Look> {
        let stored = &table.stored;
        let follows = stored.question_settings.follows_row_security();
        if !follows && stored.mirrored_readers.is_empty() {
            return Ok(Look::default());
        }
        // Without policies the readers of the source could see more than there: with row_security off none of them is left.
        let source = if follows { table.source } else { pg_sys::InvalidOid };
        let columns = [stored.key_numbers.as_slice(), &stored.column_numbers].concat();
        // PUBLIC has the oid 0. What a role got from another one than the owner, or may pass on, embedd has not granted.
        let rows = client.select(
            "with columns as (
                select a.attnum, e.grantee
                  from pg_catalog.pg_attribute a cross join lateral pg_catalog.aclexplode(a.attacl) e
                 where a.attrelid = $1 and a.attnum = any($3) and e.privilege_type = 'SELECT'),
            readers as (
                select e.grantee
                  from pg_catalog.pg_class c
                 cross join lateral pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) e
                 where c.oid = $1 and e.privilege_type = 'SELECT'
                 union
                select r.grantee from columns r
                 where not exists (select from unnest($3::int2[]) u(attnum)
                                    where not exists (select from columns c where c.attnum = u.attnum and c.grantee in (r.grantee, 0)))),
            granted as (
                select e.grantee, pg_catalog.bool_or(e.grantor = c.relowner and not e.is_grantable) as is_plain
                  from pg_catalog.pg_class c cross join lateral pg_catalog.aclexplode(c.relacl) e
                 where c.oid = $2 and e.privilege_type = 'SELECT' and e.grantee <> c.relowner
                 group by e.grantee)
            select array(select case r.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) end
                           from readers r
                          where r.grantee <> (select c.relowner from pg_catalog.pg_class c where c.oid = $2)
                            and not exists (select from granted g where g.grantee = r.grantee) order by 1),
                   array(select case g.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) end
                           from granted g
                          where g.is_plain and g.grantee = any($4::text[]::oid[])
                            and not exists (select from readers r where r.grantee = g.grantee) order by 1),
                   array(select g.grantee::text from granted g join readers r using (grantee) where g.is_plain order by g.grantee)",
            None,
            &[
                source.into(),
                table.relation.into(),
                columns.into(),
                stored.mirrored_readers.clone().into(),
            ],
        )?;
        let row = rows.first();
        let texts = |n: usize| -> Result<Vec<String>> {
            Ok(row.get::<Texts>(n)?.map(|Texts(texts)| texts).unwrap_or_default())
        };
        Ok(Look { grant: texts(1)?, revoke: texts(2)?, mirrored: texts(3)? })
    }

    fn differs(&self, table: &VectorTable) -> bool {
        !self.grant.is_empty()
            || !self.revoke.is_empty()
            || self.mirrored != table.stored.mirrored_readers
    }
}

/// Whether a role has SELECT on the source and not on the vector table, or has lost it on the source only.
pub fn differs(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    Ok(Look::at(client, table)?.differs(table))
}

/// Grants and revokes SELECT on a vector table as it is on the source, with the rights of the vector table's owner.
pub fn follow(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let look = Look::at(client, table)?;
    if !look.differs(table) {
        return Ok(());
    }
    change(client, table, "grant", "to", &look.grant)?;
    change(client, table, "revoke", "from", &look.revoke)?;
    let mirrored = Look::at(client, table)?.mirrored;
    let _rights = RoleSwitch::of_extension()?;
    catalog::set_mirrored_readers(client, table.id, mirrored)
}

/// Grants or revokes SELECT with the rights of the owner.
fn change(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    statement: &str,
    word: &str,
    roles: &[String],
) -> Result<()> {
    if roles.is_empty() {
        return Ok(());
    }
    let relation = table.relation_name()?;
    let _rights = RoleSwitch::of_owner(table.owner);
    command::run(client, &format!("{statement} select on {relation} {word} {}", roles.join(", ")))
}

/// What a REVOKE names.
#[derive(Default)]
pub struct Named {
    pub relations: Vec<pg_sys::Oid>,
    /// Schemas, for all relations in them.
    pub schemas: Vec<String>,
}

/// Revokes SELECT on vectors from the roles that have just lost it on the source, so that they see nothing more after the
/// commit, and can be dropped. No row of embedd's tables is locked: a worker notes later what has changed, and grants.
pub fn follow_revoke(client: &mut SpiClient<'_>, named: &Named) -> Result<()> {
    if !extension::is_updated(client)? {
        return Ok(());
    }
    let rights = RoleSwitch::of_extension()?;
    let rows = client.update(
        "select v.id from embedd.vector_tables v
           join pg_catalog.pg_class c on c.oid = v.source_table
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where v.replaces is null and v.mirrored_readers <> '{}' and (c.oid = any($1) or n.nspname = any($2))",
        None,
        &[named.relations.clone().into(), named.schemas.clone().into()],
    )?;
    let mut tables = Vec::new();
    for row in rows {
        if let Some(id) = row.get::<i32>(1)? {
            tables.extend(catalog::by_id(client, id)?);
        }
    }
    drop(rights);
    for table in tables {
        // Also where its columns cannot be used at present: nothing is synced then, and privileges count nevertheless.
        if table.is_responsible() {
            let look = Look::at(client, &table)?;
            change(client, &table, "revoke", "from", &look.revoke)?;
        }
    }
    Ok(())
}
