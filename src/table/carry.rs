//! What users have added to a vector table: read from the one that is replaced, as statements for the one that replaces it.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::datum;
use crate::error::Result;
use crate::name::{quote_ident, quote_literal};

/// The texts of the first column.
fn texts(
    client: &mut SpiClient<'_>,
    query: &str,
    relations: &[pg_sys::Oid],
) -> Result<Vec<String>> {
    let arguments: Vec<_> = relations.iter().map(|relation| (*relation).into()).collect();
    datum::texts(client.update(query, None, &arguments)?)
}

/// A statement, and the role with whose rights it runs where that is another one than the owner of the vector table.
pub struct Statement {
    pub text: String,
    pub owner: Option<pg_sys::Oid>,
}

/// The statements of the first column, with the roles of the second.
fn statements(
    client: &mut SpiClient<'_>,
    query: &str,
    relations: &[pg_sys::Oid],
) -> Result<Vec<Statement>> {
    let arguments: Vec<_> = relations.iter().map(|relation| (*relation).into()).collect();
    let mut found = Vec::new();
    for row in client.update(query, None, &arguments)? {
        if let Some(text) = row.get::<String>(1)? {
            found.push(Statement { text, owner: row.get(2)? });
        }
    }
    Ok(found)
}

/// The objects that depend on a vector table and would stay with the replaced one, each described: views, functions,
/// publications, columns with values of their own.
pub fn blockers(client: &mut SpiClient<'_>, relation: pg_sys::Oid) -> Result<Vec<String>> {
    texts(
        client,
        "select distinct what from (
            select case when r.ev_class <> $1 then pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                        else pg_catalog.pg_describe_object(d.classid, d.objid, 0) end
              from pg_catalog.pg_depend d
              left join pg_catalog.pg_rewrite r on d.classid = 'pg_catalog.pg_rewrite'::regclass and r.oid = d.objid
             where (d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = $1
                    or d.refclassid = 'pg_catalog.pg_type'::regclass
                       and d.refobjid in (select t.oid from pg_catalog.pg_type t
                                           where t.typrelid = $1
                                              or t.typelem = (select c.reltype from pg_catalog.pg_class c where c.oid = $1)))
               and d.deptype in ('n', 'a')
               and not (d.classid = 'pg_catalog.pg_class'::regclass
                        and exists (select from pg_catalog.pg_index i where i.indexrelid = d.objid and i.indrelid = $1))
               and d.classid not in ('pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_constraint'::regclass,
                                     'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_statistic_ext'::regclass,
                                     'pg_catalog.pg_type'::regclass)
               and not (d.classid = 'pg_catalog.pg_policy'::regclass
                        and exists (select from pg_catalog.pg_policy p where p.oid = d.objid and p.polrelid = $1))
               and not (d.classid = 'pg_catalog.pg_publication_rel'::regclass)
             union all
            select 'publication ' || pg_catalog.quote_ident(p.pubname)
              from pg_catalog.pg_publication p
             where exists (select from pg_catalog.pg_publication_tables t
                             join pg_catalog.pg_class c on c.relname = t.tablename
                             join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = t.schemaname
                            where t.pubname = p.pubname and c.oid = $1)
             union all
            select 'inheritance of ' || i.inhrelid::regclass || ' from ' || i.inhparent::regclass
              from pg_catalog.pg_inherits i where $1 in (i.inhrelid, i.inhparent)
             union all
            select pg_catalog.format('column %I, which has values of its own', a.attname)
              from pg_catalog.pg_attribute a
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and a.attname not in ('pk_value', 'embedding', 'embedded_text', 'metadata', 'row_hash')) b(what)
          order by what limit 20",
        &[relation],
    )
}

/// The privileges without which a swap could not create the foreign keys and triggers of a vector table again. Foreign
/// keys are created with the rights of the owner of the table that has them, triggers with those of the vector table's.
pub fn missing_privileges(
    client: &mut SpiClient<'_>,
    relation: pg_sys::Oid,
) -> Result<Vec<String>> {
    texts(
        client,
        "with needed as (
            select r.relowner as role, f.relnamespace as schema, c.conname as object,
                   case when not pg_catalog.has_table_privilege(r.relowner, f.oid, 'REFERENCES')
                         and not (select pg_catalog.bool_and(pg_catalog.has_column_privilege(r.relowner, f.oid, k.attnum, 'REFERENCES'))
                                    from unnest(c.confkey) k(attnum))
                        then 'REFERENCES on table ' || f.oid::regclass end as privilege
              from pg_catalog.pg_constraint c
              join pg_catalog.pg_class r on r.oid = c.conrelid
              join pg_catalog.pg_class f on f.oid = c.confrelid
             where c.contype = 'f' and $1 in (c.conrelid, c.confrelid) and c.conparentid = 0
             union all
            select r.relowner, p.pronamespace, t.tgname,
                   case when not pg_catalog.has_function_privilege(r.relowner, p.oid, 'EXECUTE')
                        then 'EXECUTE on function ' || p.oid::regprocedure end
              from pg_catalog.pg_trigger t
              join pg_catalog.pg_class r on r.oid = t.tgrelid
              join pg_catalog.pg_proc p on p.oid = t.tgfoid
             where t.tgrelid = $1 and not t.tgisinternal)
        select pg_catalog.format('%s for %I (%I)', x.privilege, pg_catalog.pg_get_userbyid(n.role), n.object)
          from needed n
         cross join lateral (values (n.privilege),
                   (case when not pg_catalog.has_schema_privilege(n.role, n.schema, 'USAGE') then 'USAGE on schema ' || n.schema::regnamespace end)) x(privilege)
         where x.privilege is not null order by 1 limit 20",
        &[relation],
    )
}

/// The end of CREATE TABLE .. (LIKE ..): access method, storage options and tablespace of a relation.
pub fn storage(client: &mut SpiClient<'_>, relation: pg_sys::Oid) -> Result<String> {
    let rows = client.update(
        "select a.amname::text, s.spcname::text,
                (select pg_catalog.string_agg(pg_catalog.format('%s%I = %L', o.prefix, t.option_name, t.option_value), ', ')
                   from (select '', c.reloptions union all
                         select 'toast.', x.reloptions from pg_catalog.pg_class x where x.oid = c.reltoastrelid) o(prefix, options)
                  cross join lateral pg_catalog.pg_options_to_table(o.options) t)
           from pg_catalog.pg_class c
           left join pg_catalog.pg_am a on a.oid = c.relam
           left join pg_catalog.pg_tablespace s on s.oid = c.reltablespace
          where c.oid = $1",
        None,
        &[relation.into()],
    )?;
    let (method, space, options) = rows.first().get_three::<String, String, String>()?;
    let mut clauses = String::new();
    if let Some(method) = method {
        clauses += &format!(" using {}", quote_ident(&method));
    }
    if let Some(options) = options {
        clauses += &format!(" with ({options})");
    }
    if let Some(space) = space {
        clauses += &format!(" tablespace {}", quote_ident(&space));
    }
    Ok(clauses)
}

/// The statements that give a new table (`$2`) what LIKE leaves out: keys, statistics targets, and no privilege of
/// others. It has no rows yet.
pub fn shape(
    client: &mut SpiClient<'_>,
    live: pg_sys::Oid,
    shadow: pg_sys::Oid,
) -> Result<Vec<String>> {
    texts(
        client,
        "select s.statement from (
            select 1, pg_catalog.format('alter table %s add %s', $2::regclass, pg_catalog.pg_get_constraintdef(c.oid))
              from pg_catalog.pg_constraint c where c.conrelid = $1 and c.contype in ('p', 'u', 'x')
             union all
            select 2, pg_catalog.format('alter table %s alter column %I set statistics %s', $2::regclass, a.attname, a.attstattarget)
              from pg_catalog.pg_attribute a
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
             union all
            select 3, pg_catalog.format('alter table %s alter column %I set (%I = %L)', $2::regclass, a.attname,
                       t.option_name, t.option_value)
              from pg_catalog.pg_attribute a cross join lateral pg_catalog.pg_options_to_table(a.attoptions) t
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
               and t.option_name in ('n_distinct', 'n_distinct_inherited')
             union all
            select 4, pg_catalog.format('revoke all on %s from %s', $2::regclass,
                       case when x.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end)
              from (select distinct e.grantee from pg_catalog.pg_class n cross join lateral pg_catalog.aclexplode(n.relacl) e
                     where n.oid = $2 and e.grantee <> n.relowner) x) s(place, statement)
          order by s.place",
        &[live, shadow],
    )
}

/// What a vector table and its shadow have in common: columns, constraints, statistics and storage, one line each.
pub fn shape_of(client: &mut SpiClient<'_>, relation: pg_sys::Oid) -> Result<Vec<String>> {
    texts(
        client,
        "select s.line from (
            select pg_catalog.concat_ws(' ', 'column', a.attname, case when a.attname <> 'embedding' then pg_catalog.format_type(a.atttypid, a.atttypmod) end,
                       a.attnotnull, a.attgenerated, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                       case when a.attname <> 'embedding' then pg_catalog.col_description(a.attrelid, a.attnum) end)
              from pg_catalog.pg_attribute a
              left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
             union all
            select 'constraint ' || pg_catalog.pg_get_constraintdef(c.oid)
              from pg_catalog.pg_constraint c where c.conrelid = $1 and c.contype in ('p', 'u', 'x', 'c')
             union all
            select pg_catalog.concat_ws(' ', 'statistics', e.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(e.oid))
              from pg_catalog.pg_statistic_ext e where e.stxrelid = $1
             union all
            select pg_catalog.concat_ws(' ', 'table', c.relpersistence, (select pg_catalog.string_agg(o, ' ' order by o) from unnest(c.reloptions) o))
              from pg_catalog.pg_class c where c.oid = $1) s(line)
          order by s.line",
        &[relation],
    )
}

/// The statements that give the table with the name of the live one its privileges, policies, triggers, foreign keys,
/// comment and labels. They are read before the names change, and name tables with their schemas.
pub fn definitions(client: &mut SpiClient<'_>, live: pg_sys::Oid) -> Result<Vec<Statement>> {
    let mut all = Vec::new();
    for query in [PRIVILEGES, RULES] {
        all.extend(
            texts(client, query, &[live])?.into_iter().map(|text| Statement { text, owner: None }),
        );
    }
    all.extend(statements(client, FOREIGN_KEYS, &[live])?);
    Ok(all)
}

const PRIVILEGES: &str = "
    select pg_catalog.format('grant %s%s on %s to %s%s', x.privilege_type, x.columns, $1::regclass,
               case when x.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end,
               case when x.is_grantable then ' with grant option' else '' end)
      from (select '' as columns, e.* from pg_catalog.pg_class c cross join lateral pg_catalog.aclexplode(c.relacl) e
             where c.oid = $1 and e.grantee <> c.relowner
             union all
            select pg_catalog.format(' (%I)', a.attname), e.*
              from pg_catalog.pg_attribute a cross join lateral pg_catalog.aclexplode(a.attacl) e
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped) x
     union all
    select pg_catalog.format('revoke %s on %s from %I', p.privilege, $1::regclass, pg_catalog.pg_get_userbyid(c.relowner))
      from pg_catalog.pg_class c
     cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p(privilege)
     where c.oid = $1 and c.relacl is not null
       and not exists (select from pg_catalog.aclexplode(c.relacl) e where e.grantee = c.relowner and e.privilege_type = p.privilege)
     union all
    select pg_catalog.format('comment on table %s is %L', $1::regclass, pg_catalog.obj_description($1, 'pg_class'))
     union all
    select pg_catalog.format('security label for %I on %s %s is %L', l.provider, l.objtype, l.objname, l.label)
      from pg_catalog.pg_seclabels l where l.classoid = 'pg_catalog.pg_class'::regclass and l.objoid = $1";

const RULES: &str = "
    select pg_catalog.format('create policy %I on %s as %s for %s to %s%s%s', p.polname, $1::regclass,
               case when p.polpermissive then 'permissive' else 'restrictive' end,
               case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
               (select pg_catalog.string_agg(case when r.oid = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.oid)) end, ', ')
                  from unnest(p.polroles) r(oid)),
               ' using (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')',
               ' with check (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')')
      from pg_catalog.pg_policy p where p.polrelid = $1
     union all
    select pg_catalog.format('comment on policy %I on %s is %L', p.polname, $1::regclass, d.description)
      from pg_catalog.pg_policy p
      join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_policy'::regclass and d.objoid = p.oid
     where p.polrelid = $1
     union all
    select pg_catalog.format('alter table %s enable row level security', $1::regclass)
      from pg_catalog.pg_class c where c.oid = $1 and c.relrowsecurity
     union all
    select pg_catalog.format('alter table %s force row level security', $1::regclass)
      from pg_catalog.pg_class c where c.oid = $1 and c.relforcerowsecurity
     union all
    select pg_catalog.pg_get_triggerdef(t.oid) from pg_catalog.pg_trigger t where t.tgrelid = $1 and not t.tgisinternal
     union all
    select pg_catalog.format('comment on trigger %I on %s is %L', t.tgname, $1::regclass, d.description)
      from pg_catalog.pg_trigger t
      join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_trigger'::regclass and d.objoid = t.oid
     where t.tgrelid = $1 and not t.tgisinternal
     union all
    select pg_catalog.format('alter table %s %s trigger %I', $1::regclass,
               case t.tgenabled when 'A' then 'enable always' when 'R' then 'enable replica' else 'disable' end, t.tgname)
      from pg_catalog.pg_trigger t where t.tgrelid = $1 and not t.tgisinternal and t.tgenabled <> 'O'
     union all
    select pg_catalog.format('alter table %s replica identity %s', $1::regclass,
               case c.relreplident when 'f' then 'full' when 'n' then 'nothing'
                    else (select pg_catalog.format('using index %I', r.relname) from pg_catalog.pg_index i
                            join pg_catalog.pg_class r on r.oid = i.indexrelid
                           where i.indrelid = $1 and i.indisreplident) end)
      from pg_catalog.pg_class c where c.oid = $1 and c.relreplident <> 'd'";

/// Foreign keys from and to the table. They are checked after the swap, which they would make long.
const FOREIGN_KEYS: &str = "
    select pg_catalog.format('alter table %s add constraint %I %s%s', c.conrelid::regclass, c.conname,
               pg_catalog.pg_get_constraintdef(c.oid),
               case when pg_catalog.pg_get_constraintdef(c.oid) like '% NOT VALID' then '' else ' not valid' end),
           (select r.relowner from pg_catalog.pg_class r where r.oid = c.conrelid)
      from pg_catalog.pg_constraint c
     where c.contype = 'f' and $1 in (c.conrelid, c.confrelid) and c.conparentid = 0";

/// The statements that take foreign keys to the table away from the replaced one.
pub fn foreign_keys_to(client: &mut SpiClient<'_>, live: pg_sys::Oid) -> Result<Vec<Statement>> {
    statements(
        client,
        "select pg_catalog.format('alter table %s drop constraint %I', c.conrelid::regclass, c.conname),
                (select r.relowner from pg_catalog.pg_class r where r.oid = c.conrelid)
           from pg_catalog.pg_constraint c
          where c.contype = 'f' and c.confrelid = $1 and c.conrelid <> $1 and c.conparentid = 0",
        &[live],
    )
}

/// The statements that check the foreign keys that a swap has left unchecked.
pub fn unchecked(client: &mut SpiClient<'_>, relation: pg_sys::Oid) -> Result<Vec<Statement>> {
    statements(
        client,
        "select pg_catalog.format('alter table %s validate constraint %I', c.conrelid::regclass, c.conname),
                (select r.relowner from pg_catalog.pg_class r where r.oid = c.conrelid)
           from pg_catalog.pg_constraint c
          where c.contype = 'f' and $1 in (c.conrelid, c.confrelid) and c.conparentid = 0 and not c.convalidated",
        &[relation],
    )
}

/// The statements that give the objects of both tables their names: those of the replaced table free names, and those of
/// the new one the names that these had. The tables themselves come last.
pub fn renames(
    client: &mut SpiClient<'_>,
    live: pg_sys::Oid,
    shadow: pg_sys::Oid,
    old: &str,
) -> Result<Vec<Statement>> {
    let mut all = statements(
        client,
        "with keys as (
            select o.conindid as old_index, n.conindid as new_index
              from (select c.*, pg_catalog.pg_get_constraintdef(c.oid) as def,
                           pg_catalog.row_number() over (partition by c.contype, pg_catalog.pg_get_constraintdef(c.oid) order by c.oid) as n
                      from pg_catalog.pg_constraint c where c.conrelid = $1 and c.contype in ('p', 'u', 'x')) o
              join (select c.*, pg_catalog.pg_get_constraintdef(c.oid) as def,
                           pg_catalog.row_number() over (partition by c.contype, pg_catalog.pg_get_constraintdef(c.oid) order by c.oid) as n
                      from pg_catalog.pg_constraint c where c.conrelid = $2 and c.contype in ('p', 'u', 'x')) n
                on (n.contype, n.def, n.n) = (o.contype, o.def, o.n)),
         pairs as (
            select o.indexrelid as old_index, coalesce(k.new_index, s.indexrelid) as new_index
              from pg_catalog.pg_index o
              left join keys k on k.old_index = o.indexrelid
              left join (select i.indexrelid, c.relname from pg_catalog.pg_index i
                           join pg_catalog.pg_class c on c.oid = i.indexrelid where i.indrelid = $2) s
                on s.relname = 'embedd_swap_' || o.indexrelid
             where o.indrelid = $1),
         fresh as (
            select i.indexrelid from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
             where i.indrelid = $2 and pg_catalog.starts_with(c.relname, 'embedd_swap_')
               and i.indexrelid not in (select p.new_index from pairs p where p.new_index is not null)),
         stats as (
            select o.oid as old_stats, n.oid as new_stats
              from (select e.*, pg_catalog.row_number() over (partition by e.stxkeys, e.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(e.oid) order by e.oid) as n
                      from pg_catalog.pg_statistic_ext e where e.stxrelid = $1) o
              left join (select e.*, pg_catalog.row_number() over (partition by e.stxkeys, e.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(e.oid) order by e.oid) as n
                      from pg_catalog.pg_statistic_ext e where e.stxrelid = $2) n
                on (n.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(n.oid), n.n) = (o.stxkind, pg_catalog.pg_get_statisticsobjdef_columns(o.oid), o.n))
         select s.statement, s.owner from (
            select 1, pg_catalog.format('alter index %s rename to %I', p.old_index::regclass, 'embedd_old_' || p.old_index), null::oid from pairs p
             union all
            select 2, pg_catalog.format('alter index %s rename to %I', p.new_index::regclass, c.relname), null
              from pairs p join pg_catalog.pg_class c on c.oid = p.old_index where p.new_index is not null
             union all
            select 3, pg_catalog.format('comment on index %s is %L', pg_catalog.format('%I.%I', n.nspname, c.relname), d.description), null
              from pairs p join pg_catalog.pg_class c on c.oid = p.old_index join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_class'::regclass and d.objoid = p.old_index and d.objsubid = 0
             where p.new_index is not null
             union all
            select 2, pg_catalog.format('alter index %s rename to %I', f.indexrelid::regclass, 'embedd_idx_' || f.indexrelid), null from fresh f
             union all
            select 4, pg_catalog.format('alter statistics %I.%I rename to %I', n.nspname, e.stxname, 'embedd_old_' || e.oid), e.stxowner
              from stats s join pg_catalog.pg_statistic_ext e on e.oid = s.old_stats join pg_catalog.pg_namespace n on n.oid = e.stxnamespace
             union all
            select 5, pg_catalog.format('alter statistics %I.%I rename to %I', n.nspname, w.stxname, e.stxname), null
              from stats s join pg_catalog.pg_statistic_ext e on e.oid = s.old_stats join pg_catalog.pg_statistic_ext w on w.oid = s.new_stats
              join pg_catalog.pg_namespace n on n.oid = w.stxnamespace) s(place, statement, owner)
          order by s.place",
        &[live, shadow],
    )?;
    let rows = client.update(
        "select c.relname::text, $1::regclass::text, $2::regclass::text from pg_catalog.pg_class c where c.oid = $1",
        None,
        &[live.into(), shadow.into()],
    )?;
    if let (Some(name), Some(live), Some(shadow)) =
        rows.first().get_three::<String, String, String>()?
    {
        for (table, name) in [(live, old), (shadow, &name)] {
            let text = format!("alter table {table} rename to {}", quote_ident(name));
            all.push(Statement { text, owner: None });
        }
    }
    Ok(all)
}

/// How the comment on a replaced table begins.
pub const REPLACED: &str = "Replaced vectors of ";

/// The statement that says what a replaced table is, so that it is found if it stays.
pub fn old_comment(old: &str, name: &str) -> String {
    let what = format!("{REPLACED}{name}, which embedd drops when no session reads them");
    format!("comment on table {old} is {}", quote_literal(&what))
}
