//! The indexes of a vector table. Those over vectors are deferred: dropped before its first large load and built once after
//! it, which is many times faster.

pub mod on_fields;
mod shadow;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde::{Deserialize, Serialize};

use crate::catalog::VectorTable;
use crate::command;
use crate::datum::{VectorType, texts};
use crate::error::Result;
use crate::extension;
use crate::name::{quote_ident, quote_literal};
use crate::operator_class;
use crate::relation;
use crate::rights::RoleSwitch;

pub use self::shadow::{drop_unpaired, missing as missing_for_shadow};

/// From this many source rows on it is worth deferring the indexes.
const WORTH_IT: i64 = 5000;

/// Older versions of pgvector have a bug in parallel builds of hnsw indexes (CVE-2026-3172).
pub const PARALLEL_SINCE: &str = "0.8.2";

/// The definition of an index, as JSON. Its name, its table and its operator class may differ when it is built.
const PARTS: &str = "
    pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'method', a.amname,
        'key', pg_catalog.pg_get_indexdef(i.indexrelid, 1, false),
        'type', y.typname,
        'operator', p.oprname,
        'options', c.reloptions,
        'tablespace', s.spcname,
        'predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid)))";

/// [`PARTS`] in Rust.
#[derive(Deserialize, Serialize)]
struct Parts {
    method: String,
    /// The column, or an expression in parentheses.
    key: String,
    #[serde(rename = "type")]
    of: String,
    operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tablespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicate: Option<String>,
}

/// An index of any other kind, for a shadow that has none yet: its definition from the access method on.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    is_unique: bool,
    rest: String,
    /// None for that of the database.
    tablespace: Option<String>,
}

/// The definition of an index from the access method on, as 0.4.0 and older versions stored it.
const REST: &str = "
    pg_catalog.substr(d.def, 1 + pg_catalog.length(pg_catalog.format('CREATE INDEX %I ON %s',
        c.relname, pg_catalog.format('%I.%I', n.nspname, t.relname))))";
/// The indexes of tables, as the source for [`PARTS`] and [`REST`].
const INDEXES: &str = "
    pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_am a on a.oid = c.relam
    join pg_catalog.pg_class t on t.oid = i.indrelid
    join pg_catalog.pg_namespace n on n.oid = t.relnamespace
    left join pg_catalog.pg_tablespace s on s.oid = c.reltablespace
    left join pg_catalog.pg_opclass o on o.oid = i.indclass[0]
    left join pg_catalog.pg_type y on y.oid = o.opcintype
    left join pg_catalog.pg_amop m on m.amopfamily = o.opcfamily and m.amoplefttype = o.opcintype and m.amopstrategy = 1
    left join pg_catalog.pg_operator p on p.oid = m.amopopr
   cross join lateral (select pg_catalog.pg_get_indexdef(i.indexrelid) as def) d";

/// Drops the vector indexes if the table is empty and its source is large; true if it did.
///
/// Their definitions are stored in the same transaction, so a crash does not lose them.
pub fn defer(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let (relation, source) = (table.relation_name()?, table.source_name()?);
    let schema = VectorType::find(client)?.schema;
    let definitions = {
        let _rights = RoleSwitch::of_owner(table.owner);
        set_path_to_pgvector(client, &schema)?;
        let worth_it = client.select(
            &format!(
                "select not exists (select 1 from {relation})
                    and (select count(*) from (select 1 from {source} limit {WORTH_IT}) s) >= {WORTH_IT}"
            ),
            None,
            &[],
        )?;
        if worth_it.first().get_one::<bool>()? != Some(true) {
            return Ok(false);
        }
        let rows = client.select(
            &format!(
                "select i.indexrelid, c.relname::text, {PARTS}::text from {INDEXES}
                  where i.indrelid = $1 and a.amname in ('hnsw', 'ivfflat') and c.relkind = 'i'
                  order by 1"
            ),
            None,
            &[table.relation.into()],
        )?;
        let (mut indexes, mut definitions) = (Vec::new(), Vec::new());
        for row in rows {
            let (index, name, parts) =
                (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?, row.get::<String>(3)?);
            if let (Some(index), Some(name), Some(parts)) = (index, name, parts) {
                indexes.extend(relation::qualified_name(index));
                definitions.extend([name, parts]);
            }
        }
        for index in indexes {
            command::run(client, &format!("drop index {index}"))?;
        }
        definitions
    };
    if definitions.is_empty() {
        return Ok(false);
    }
    client.update(
        "update embedd.vector_tables set held_indexes = coalesce(held_indexes, '{}') || $2 where id = $1",
        None,
        &[table.id.into(), definitions.into()],
    )?;
    Ok(true)
}

/// Sets a search_path in which pgvector's names need no schema, which may be another one when the index is built. It
/// applies until the caller switches the role back.
fn set_path_to_pgvector(client: &mut SpiClient<'_>, schema: &str) -> Result<()> {
    let path = format!("set local search_path = pg_catalog, {schema}, pg_temp");
    client.update(&path, None, &[])?;
    Ok(())
}

/// Whether a vector table has deferred indexes.
pub fn has_deferred(client: &SpiClient<'_>, id: i32) -> Result<bool> {
    // Before ALTER EXTENSION UPDATE the table may lack the column.
    let rows = client.select(
        "select pg_catalog.to_jsonb(v) -> 'held_indexes' <> 'null' from embedd.vector_tables v where v.id = $1",
        None,
        &[id.into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}

/// The deferred indexes: name and definition.
pub fn deferred(client: &SpiClient<'_>, id: i32) -> Result<Vec<(String, String)>> {
    let rows = client.select(
        "select u.d from embedd.vector_tables v cross join unnest(v.held_indexes) with ordinality u(d, n)
          where v.id = $1 order by u.n",
        None,
        &[id.into()],
    )?;
    let words = texts(rows)?;
    let (pairs, _) = words.as_chunks::<2>();
    Ok(pairs.iter().map(|[name, made_of]| (name.clone(), made_of.clone())).collect())
}

/// The definition of an index from the access method on, with the current operator class.
fn definition(client: &SpiClient<'_>, parts: &Parts) -> Result<String> {
    let Parts { method, key, of, operator, options, tablespace, predicate } = parts;
    let class = operator_class::find(client, method, of, operator)?;
    let mut text = format!(" using {} ({key} {class})", quote_ident(method));
    let options: Vec<String> = options
        .iter()
        .filter_map(|option| option.split_once('='))
        .map(|(option, value)| format!("{} = {}", quote_ident(option), quote_literal(value)))
        .collect();
    if !options.is_empty() {
        text += &format!(" with ({})", options.join(", "));
    }
    if let Some(tablespace) = tablespace {
        text += &format!(" tablespace {}", quote_ident(tablespace));
    }
    if let Some(predicate) = predicate {
        text += &format!(" where {predicate}");
    }
    Ok(text)
}

/// The processes that build an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builders {
    /// As many as max_parallel_maintenance_workers allows, where pgvector's parallel builds are sound.
    Parallel,
    /// Only this process.
    One,
}

/// The settings that the build of an index depends on, where the owner has values of its own (ALTER ROLE .. SET); a
/// background process has those of the server and of the database only.
const SETTINGS_OF_OWNER: &str = "
    select pg_catalog.set_config(o.name, o.value, true)
      from (select distinct on (p.name) p.name, pg_catalog.substr(c.c, pg_catalog.length(p.name) + 2) as value
              from pg_catalog.pg_db_role_setting s
             cross join unnest(s.setconfig) c(c)
              join (values ('maintenance_work_mem'), ('max_parallel_maintenance_workers')) p(name)
                on pg_catalog.split_part(c.c, '=', 1) = p.name
             where s.setrole = $1
               and s.setdatabase in (0, (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
             order by p.name, s.setdatabase desc) o";

/// Builds a deferred index, unless the table has an equal one. If its name is taken, it gets a free one.
pub fn build(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    name: &str,
    made_of: &str,
    builders: Builders,
) -> Result<()> {
    let relation = table.relation_name()?;
    let schema = VectorType::find(client)?.schema;
    let parts = serde_json::from_str::<Parts>(made_of).ok();
    let whole = serde_json::from_str::<Whole>(made_of).ok();
    let rest = match (&parts, &whole) {
        (Some(parts), _) => definition(client, parts)?,
        (None, Some(whole)) => whole.rest.clone(),
        // Up to 0.4.0 the definition had the schema of pgvector at that time.
        (None, None) => made_of.replace(&format!("{schema}."), ""),
    };
    let is_sound = !extension::is_older(&extension::vector_version(client)?, PARALLEL_SINCE);
    let _rights = RoleSwitch::of_owner(table.owner);
    set_path_to_pgvector(client, &schema)?;
    let like = if parts.is_some() { made_of } else { &rest };
    let found = client.select(
        &format!(
            "select exists (select from {INDEXES} where i.indrelid = $1 and i.indisvalid
                              and case when $5 then c.relname = $2 when $4 then {PARTS} = $3::jsonb else {REST} = $3 end),
                    exists (select from pg_catalog.pg_class c
                              join pg_catalog.pg_class t on t.relnamespace = c.relnamespace
                             where t.oid = $1 and c.relname = $2)"
        ),
        None,
        &[
            table.relation.into(),
            name.into(),
            like.into(),
            parts.is_some().into(),
            // An index of a shadow has a name of its own, and may equal another one.
            (whole.is_some() || name.starts_with(shadow::PREFIX)).into(),
        ],
    )?;
    let (is_built, is_taken) = found.first().get_two::<bool, bool>()?;
    if is_built == Some(true) {
        return Ok(());
    }
    client.update(SETTINGS_OF_OWNER, None, &[table.owner.into()])?;
    if !is_sound || builders == Builders::One {
        client.update("set local max_parallel_maintenance_workers = 0", None, &[])?;
    }
    let name = match is_taken {
        Some(true) => String::new(),
        _ => quote_ident(name),
    };
    if let Some(whole) = &whole {
        // The text does not name it.
        let space = whole.tablespace.as_deref().unwrap_or_default();
        let space = format!("set local default_tablespace = {}", quote_literal(space));
        client.update(&space, None, &[])?;
    }
    let unique = if whole.is_some_and(|whole| whole.is_unique) { "unique " } else { "" };
    command::run(client, &format!("create {unique}index {name} on {relation}{rest}"))
}

/// Records that no index is deferred any more.
pub fn clear_deferred(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set held_indexes = null where id = $1",
        None,
        &[id.into()],
    )?;
    Ok(())
}
