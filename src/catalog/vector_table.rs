//! A vector table in memory, and how it is read from embedd.vector_tables.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiHeapTupleData, SpiTupleTable};
use pgrx::{JsonB, spi};

use super::{Status, Stored, SyncMode, heap, kept, missing};
use crate::citus;
use crate::cluster::system_id;
use crate::document::Column;
use crate::error::{Error, Result};
use crate::extension;
use crate::key::{Form, Key, without_blanks};
use crate::models::{self, Entry};
use crate::name::{self, quote_ident};
use crate::relation::{self, owner_of, qualified_name};
use crate::vector_column::{ColumnType, VectorColumn};

/// A vector table.
#[derive(Clone, Debug)]
pub struct VectorTable {
    pub id: i32,
    /// Its number at its creation, which its physical name and the triggers of the source carry.
    pub origin_id: i32,
    pub name: String,
    pub source: pg_sys::Oid,
    /// The quoted and qualified name of the source; None if it was dropped.
    pub source_name: Option<String>,
    /// The key of a source row; its columns are empty before [`VectorTable::resolve`].
    pub key: Key,
    pub relation: pg_sys::Oid,
    /// The quoted and qualified name of the table of vectors, as [`vectors_name`] finds it.
    pub relation_name: Option<String>,
    pub provider: String,
    pub model: String,
    /// The dimensions of the vectors.
    pub dimensions: i32,
    /// The catalog's entries for a model of this name, by kind of provider.
    pub known_models: BTreeMap<String, Entry>,
    pub columns: Vec<Column>,
    pub owner: pg_sys::Oid,
    /// The table and its owner as stored.
    pub noted: (pg_sys::Oid, pg_sys::Oid),
    pub status: Status,
    /// The cluster that is responsible for the sync.
    pub system_id: i64,
    /// The interval of sync mode batch, in seconds.
    pub batch_interval: Option<f64>,
    pub stored: Stored,
    /// Whether documents are read from the temporary table of a batch run instead of the source.
    pub reads_run: bool,
    /// For a shadow, the vector table that has the vectors of texts that did not change.
    pub reuses: Option<Reused>,
}

/// A vector table whose vectors a shadow can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reused {
    pub id: i32,
    pub relation: pg_sys::Oid,
    /// Its quoted and qualified name.
    pub name: String,
}

impl VectorTable {
    /// The source columns that documents need, key columns first, as a SQL list.
    pub fn source_columns(&self) -> String {
        let mut names: Vec<&str> = self.key.columns.iter().map(|c| c.name.as_str()).collect();
        for column in &self.columns {
            if !names.contains(&column.source()) {
                names.push(column.source());
            }
        }
        let quoted: Vec<String> = names.into_iter().map(quote_ident).collect();
        quoted.join(", ")
    }

    /// A key as stored in pk_value: without the blanks that pad char(n).
    pub fn shown(&self, key: &str) -> String {
        match self.key.columns.as_slice() {
            [column] if Form::of_type(&column.type_name) == Form::Padded => {
                String::from_utf8_lossy(without_blanks(key.as_bytes())).into_owned()
            }
            _ => key.to_string(),
        }
    }

    /// The FROM item of the source. A source with triggers has no inheritance children, or is not read at all; a
    /// comparison reads the children too.
    pub fn source_name(&self) -> Result<String> {
        let name = self
            .source_name
            .as_deref()
            .ok_or_else(|| Error::RelationGone { what: "source", name: self.name.clone() })?;
        // SAFETY: a syscache look-up in a transaction.
        let kind = unsafe { pg_sys::get_rel_relkind(self.source) };
        let is_ordinary = kind as u8 == pg_sys::RELKIND_RELATION;
        Ok(match is_ordinary && self.stored.sync_mode == SyncMode::Trigger {
            true => format!("only {name}"),
            false => name.to_string(),
        })
    }

    /// The name of the table of vectors, or the error that it does not exist.
    pub fn relation_name(&self) -> Result<&str> {
        self.relation_name
            .as_deref()
            .ok_or_else(|| Error::RelationGone { what: "table", name: self.name.clone() })
    }

    /// The column of vectors. Its type is the one that the table has, which the owner may have changed.
    pub fn vector_column(&self) -> VectorColumn {
        let of = relation::type_of_column(self.relation, EMBEDDING);
        let of = of.and_then(|name| ColumnType::of_name(&name));
        VectorColumn {
            of: of.unwrap_or(self.stored.vector_type),
            dimensions: self.dimensions,
            index: self.stored.index_options.clone().unwrap_or_default(),
        }
    }

    /// Whether table, name or owner differ from the stored ones.
    pub fn has_other_vectors(&self) -> bool {
        self.noted != (self.relation, self.owner)
            || self.relation_name.as_ref().is_some_and(|name| *name != self.stored.vectors_name)
    }

    /// Whether this cluster and installation are responsible for the sync; otherwise it came with a dump or a copy of
    /// the files.
    pub fn is_responsible(&self) -> bool {
        self.system_id == system_id()
            && extension::oid()
                .is_some_and(|oid| self.stored.extension_id == oid.to_u32().to_string())
    }

    /// The names of the key columns when they were last seen.
    pub fn key_names(&self) -> Vec<String> {
        Key::names(&self.stored.primary_key_column, self.stored.key_types.len())
    }
}

const SELECT: &str = "
    select v.id, v.name, v.source_table::oid, v.vector_table::oid, v.embedding_provider, v.embedding_model,
           v.embedding_dimensions, v.columns, v.owner::oid, v.sync_status, v.system_id,
           (select pg_catalog.jsonb_object_agg(m.provider, pg_catalog.to_jsonb(m) order by m.model = v.embedding_model)
              from embedd.models m
             where m.model = v.embedding_model
                or m.provider = 'ollama' and m.model || ':latest' = v.embedding_model),
           pg_catalog.to_jsonb(v),
           extract(epoch from (pg_catalog.to_jsonb(v) ->> 'batch_interval')::interval)::float8
      from embedd.vector_tables v";

/// That a row is no shadow. Before ALTER EXTENSION UPDATE the table lacks the column.
const LIVE: &str = "pg_catalog.to_jsonb(v) ->> 'replaces' is null";

thread_local! {
    /// The cached plan of [`find`], which every query needs.
    static FIND: OnceCell<spi::OwnedPreparedStatement> = const { OnceCell::new() };
}

/// Reads one row of SELECT.
fn vector_table(row: &SpiHeapTupleData<'_>) -> Result<VectorTable> {
    let text = |n: usize| -> Result<String> { row.get::<String>(n)?.ok_or_else(missing) };
    let oid = |n: usize| -> Result<pg_sys::Oid> { row.get::<pg_sys::Oid>(n)?.ok_or_else(missing) };
    let json =
        |n: usize| -> Result<serde_json::Value> { Ok(row.get::<JsonB>(n)?.ok_or_else(missing)?.0) };
    let stored: Stored = serde_json::from_value(json(13)?)
        .map_err(|e| Error::Damaged { what: format!("vector_tables: {e}") })?;
    let (source, noted) = (oid(3)?, (oid(4)?, oid(9)?));
    let id = row.get(1)?.ok_or_else(missing)?;
    let origin_id = stored.origin_id.unwrap_or(id);
    let (relation, relation_name) = vectors(noted, &stored.vectors_name, id, origin_id);
    let owner = relation_name.as_ref().and_then(|_| owner_of(relation));
    Ok(VectorTable {
        id,
        origin_id,
        name: text(2)?,
        source,
        source_name: source_name(source),
        key: Key { columns: Vec::new() },
        relation,
        relation_name,
        provider: text(5)?,
        model: text(6)?,
        dimensions: row.get(7)?.ok_or_else(missing)?,
        columns: serde_json::from_value(json(8)?)
            .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?,
        owner: owner.unwrap_or(noted.1),
        noted,
        status: Status::parse(&text(10)?)?,
        system_id: row.get(11)?.ok_or_else(missing)?,
        known_models: models::parse_by_kind(row.get(12)?)?,
        stored,
        batch_interval: row.get(14)?,
        reads_run: false,
        reuses: None,
    })
}

/// The quoted and qualified name of a source; None if it was dropped, or Citus has turned it into a shard, whose name
/// is not the source's.
pub fn source_name(source: pg_sys::Oid) -> Option<String> {
    qualified_name(source).filter(|_| !citus::is_shard(source))
}

/// The table of vectors, with its name: the stored one, or a table recreated under the stored name by the same owner.
/// The owner is checked because any role may create a table under a free name.
fn vectors(
    (relation, owner): (pg_sys::Oid, pg_sys::Oid),
    name: &str,
    id: i32,
    origin_id: i32,
) -> (pg_sys::Oid, Option<String>) {
    let known = vectors_name(relation, origin_id);
    if known.is_some() {
        return (relation, known);
    }
    let named =
        name::split_qualified(name).and_then(|(schema, name)| relation::find(&schema, &name));
    let is_of_another = |named| {
        let mut all = heap::all_uses().into_iter();
        all.any(|(used, _)| used.vectors == named && used.table_id != id)
    };
    match named.filter(|named| owner_of(*named) == Some(owner) && !is_of_another(*named)) {
        Some(named) if vectors_name(named, origin_id).is_some() => {
            (named, vectors_name(named, origin_id))
        }
        _ => (relation, None),
    }
}

/// The quoted and qualified name of this vector table's table of vectors; None if it was dropped, or is a shard now.
///
/// A dump restores the stored oid, which may belong to any relation of the new cluster, so the relation is checked:
/// its columns, and that its name is not that of another vector table.
pub fn vectors_name(relation: pg_sys::Oid, origin_id: i32) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction, with terminated names; what comes back is copied.
    let fits = unsafe {
        let kind = pg_sys::get_rel_relkind(relation) as u8;
        let name = pg_sys::get_rel_name(relation);
        matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE)
            && !name.is_null()
            && !name::is_of_another(&CStr::from_ptr(name).to_string_lossy(), origin_id as u32)
            && COLUMNS.iter().all(|column| pg_sys::get_attnum(relation, column.as_ptr()) > 0)
    };
    qualified_name(relation).filter(|_| fits && !citus::is_shard(relation))
}

/// The columns of every table of vectors.
const COLUMNS: [&CStr; 5] = [c"pk_value", EMBEDDING, c"embedded_text", c"metadata", c"row_hash"];
/// The one that holds the vectors.
const EMBEDDING: &CStr = c"embedding";

/// The rows that can be read, and the ids of the others with the reason.
#[derive(Default)]
pub struct Found {
    pub tables: Vec<VectorTable>,
    pub damaged: Vec<(i32, String)>,
}

fn vector_tables(rows: SpiTupleTable<'_>) -> Result<Vec<VectorTable>> {
    rows.into_iter().map(|row| vector_table(&row)).collect()
}

/// The vector table with this name.
pub fn find(client: &SpiClient<'_>, name: &str) -> Result<VectorTable> {
    let query = format!("{SELECT} where v.name = $1 and {LIVE}");
    let rows = kept(&FIND, client, &query, &[PgBuiltInOids::TEXTOID.oid()], &[name.into()])?;
    vector_tables(rows)?.pop().ok_or_else(|| Error::UnknownVectorTable { name: name.to_string() })
}

/// The same, with its row locked against concurrent changes.
pub fn find_for_update(client: &mut SpiClient<'_>, name: &str) -> Result<VectorTable> {
    client.update(
        &format!("select 1 from embedd.vector_tables v where v.name = $1 and {LIVE} for update"),
        None,
        &[name.into()],
    )?;
    let rows =
        client.update(&format!("{SELECT} where v.name = $1 and {LIVE}"), None, &[name.into()])?;
    vector_tables(rows)?.pop().ok_or_else(|| Error::UnknownVectorTable { name: name.to_string() })
}

/// Locks the row of a vector table; false if it was dropped.
pub fn lock(client: &mut SpiClient<'_>, id: i32) -> Result<bool> {
    let rows = client.update(
        "select 1 from embedd.vector_tables where id = $1 for update",
        None,
        &[id.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Locks the rows of a vector table and of the one that it replaces, before its task is ended. Every transaction locks in
/// this order: the live table, its shadow, their tasks. So a session that changes the table and a worker that ends a task of
/// it never deadlock.
pub fn lock_before_tasks(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "select 1 from embedd.vector_tables v
          where v.id = $1 or v.id = (select s.replaces from embedd.vector_tables s where s.id = $1)
          order by v.id = $1 for update",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// The vector table with this id; None if it was dropped.
pub fn by_id(client: &SpiClient<'_>, id: i32) -> Result<Option<VectorTable>> {
    let rows = client.select(&format!("{SELECT} where v.id = $1"), None, &[id.into()])?;
    Ok(vector_tables(rows)?.pop())
}

/// The vector table that had this number at its creation, which is no shadow.
pub fn by_origin(client: &SpiClient<'_>, origin_id: i32) -> Result<Option<VectorTable>> {
    let rows = client.select(
        &format!("{SELECT} where v.origin_id = $1 and {LIVE}"),
        None,
        &[origin_id.into()],
    )?;
    Ok(vector_tables(rows)?.pop())
}

/// Every vector table of the database, separated from rows that cannot be read.
pub fn all(client: &SpiClient<'_>) -> Result<Found> {
    let mut found = Found::default();
    for row in client.select(&format!("{SELECT} order by v.id"), None, &[])? {
        match vector_table(&row) {
            Ok(table) => found.tables.push(table),
            Err(error) => found.damaged.push((row.get(1)?.unwrap_or_default(), error.to_string())),
        }
    }
    Ok(found)
}
