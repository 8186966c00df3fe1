//! Imports vectors that something else has computed: rows of a query whose text is that of a source row now.

mod given;
mod matching;
mod values;

use std::collections::BTreeMap;

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use self::given::{Given, Row, Taken};
use self::matching::{Matches, Matching, Ready, SAME};
pub use self::values::Kind;
use crate::catalog::{self, Status, VectorTable};
use crate::cluster;
use crate::datum::VectorType;
use crate::error::{Error, Result, raise_message};
use crate::index;
use crate::name::quote_literal;
use crate::rights::{RoleSwitch, pin_path};
use crate::status;
use crate::sync;
use crate::table::check_may_change;

/// What is to be imported.
pub struct Request<'a> {
    /// The vector table.
    pub name: &'a str,
    /// A SELECT that returns key, text and vector, or key and vector; it runs as the caller.
    pub query: &'a str,
    /// Whether it returns one more column: why a row is skipped, or NULL.
    pub has_reasons: bool,
}

/// What has become of the rows of the query.
#[derive(Default)]
pub struct Counts {
    /// Rows that were written with their vectors.
    pub imported: i64,
    /// Rows that the vector table had already.
    pub unchanged: i64,
    /// The other rows, by reason.
    pub skipped: BTreeMap<String, i64>,
}

impl Counts {
    /// Counts a row that is skipped.
    fn skip(&mut self, reason: impl Into<String>) {
        *self.skipped.entry(reason.into()).or_default() += 1;
    }
}

/// Imports the rows of a query. Until the transaction ends, no worker writes to the vector table, so that what changes
/// from now on is applied after it.
pub fn run(request: &Request<'_>) -> Result<Counts> {
    let (mut table, vector) = {
        let _path = pin_path();
        find(request.name)?
    };
    let mut given = Given::open(request.query, request.has_reasons, &vector)?;
    let matching = {
        let _path = pin_path();
        hold(&mut table)?;
        Matching::new(&table, given.has_text())?
    };
    let mut counts = Counts::default();
    while let Some(taken) = given.next(&table)? {
        check_for_interrupts!();
        let _path = pin_path();
        let mut rows = Vec::with_capacity(taken.len());
        for one in taken {
            match one {
                Taken::Row(row) => rows.push(row),
                Taken::Skipped(reason) => counts.skip(reason),
            }
        }
        store(&table, &vector, &rows, &matching, &mut counts)?;
    }
    Ok(counts)
}

/// Finds a vector table that the caller may change.
pub fn find(name: &str) -> Result<(VectorTable, VectorType)> {
    cluster::check_writable("import vectors")?;
    // SAFETY: raises an error in a read-only transaction; the name is terminated.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"import of vectors".as_ptr()) };
    // SAFETY: the state of this process's own transaction.
    if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32 {
        return Err(Error::CannotImport {
            detail: "Its snapshot does not show what workers have stored meanwhile.",
            hint: "Use isolation level READ COMMITTED.",
        });
    }
    Spi::connect(|client| {
        let rights = RoleSwitch::of_extension()?;
        let mut table = catalog::find(client, name)?;
        let vector = VectorType::find(client)?;
        drop(rights);
        check_may_change(&table)?;
        if let Some(error) = status::out_of_sight(client, &mut table)? {
            return Err(error);
        }
        table.resolve()?;
        Ok((table, vector))
    })
}

/// Locks source and vector table, and drops the vector indexes before the first load of a large source.
fn hold(table: &mut VectorTable) -> Result<()> {
    if !table.stored.document_prefix.is_empty() {
        raise_message(
            PgLogLevel::NOTICE,
            format!(
                "texts of vector table \"{}\" are embedded with the prefix \"{}\"",
                table.name, table.stored.document_prefix
            ),
            Some("Vectors that were computed without it rank differently.".to_string()),
            Some(format!(
                "After the import compare a sample: SELECT * FROM embedd.verify({}, 100).",
                quote_literal(&table.name)
            )),
        );
    }
    // SAFETY: inside a transaction. The locks are taken in the order of the worker's.
    unsafe {
        pg_sys::LockRelationOid(table.source, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    table.source_name = catalog::source_name(table.source);
    table.resolve()?;
    if table.status == Status::Pending {
        // Nothing is answered from a table that was never filled, and its backfill builds the indexes.
        let _rights = RoleSwitch::of_extension()?;
        Spi::connect_mut(|client| index::defer(client, table))?;
    }
    // SAFETY: as above. A worker that stores a batch takes a weaker lock, which conflicts with this one: what it has
    // read before is stored before the documents here are read, and what it reads after is newer.
    unsafe {
        pg_sys::LockRelationOid(table.relation, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE);
    }
    table.relation_name = catalog::vectors_name(table.relation, table.id);
    table.relation_name().map(drop)
}

/// Writes the rows whose text is that of their source row, as the worker writes them.
fn store(
    table: &VectorTable,
    vector: &VectorType,
    rows: &[Row],
    matching: &Matching<'_>,
    counts: &mut Counts,
) -> Result<()> {
    let mut memory = PgMemoryContexts::new("vectors that are imported");
    let Matches { ready, others } = matching.of(rows, &mut memory)?;
    for (reason, rows) in others {
        match reason == SAME {
            true => counts.unchanged += rows,
            false => *counts.skipped.entry(reason).or_default() += rows,
        }
    }
    for some in &ready {
        let vectors: Vec<Option<&[f32]>> =
            some.positions.iter().map(|n| Some(&rows[*n].vector[..])).collect();
        let written = Spi::connect_mut(|client| write(client, table, vector, some, &vectors))?;
        counts.imported += written;
        // The others are those of a key that the query has several times.
        counts.unchanged += some.positions.len() as i64 - written;
    }
    Ok(())
}

/// Writes rows with their documents and vectors, the first one of each key; returns how many.
fn write(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    vector: &VectorType,
    rows: &Ready,
    vectors: &[Option<&[f32]>],
) -> Result<i64> {
    let embedding = table.vector_column().stored(&vector.schema, "n.embedding");
    // A sort moves every vector, so there is none where it changes nothing.
    let (first, order) = match rows.has_repeated_keys() {
        true => ("distinct on (n.pk_value)", "order by n.pk_value, n.position"),
        false => ("", ""),
    };
    let statement = sync::upsert_sql(
        table.relation_name()?,
        &format!(
            "select {first} n.pk_value, {embedding}, n.embedded_text, n.metadata, n.row_hash
               from unnest($1::text[], $2::{}.vector[], $3::text[], $4::jsonb[], $5::text[], $6::bigint[])
                    n(pk_value, embedding, embedded_text, metadata, row_hash, position) {order}",
            vector.schema
        ),
    );
    let [texts, metadata, hashes] = rows.documents();
    let written = {
        let _rights = RoleSwitch::of_owner(table.owner);
        let positions: Vec<i64> = rows.positions.iter().map(|position| *position as i64).collect();
        let vectors = vector.array_argument(vectors);
        let arguments = [rows.keys(), vectors, texts, metadata, hashes, positions.into()];
        client.update(&statement, None, &arguments)?.len() as i64
    };
    let _rights = RoleSwitch::of_extension()?;
    // What was noted of an earlier attempt; mostly there is nothing.
    for notes in ["failed_rows", "truncated_rows"] {
        let any = format!("select 1 from embedd.{notes} where table_id = $1 limit 1");
        if !client.update(&any, None, &[table.id.into()])?.is_empty() {
            let delete =
                format!("delete from embedd.{notes} where table_id = $1 and pk_value = any($2)");
            client.update(&delete, None, &[table.id.into(), rows.keys()])?;
        }
    }
    Ok(written)
}
