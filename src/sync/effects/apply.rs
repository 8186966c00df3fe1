//! Writes finished work into a vector table, and embedd's own bookkeeping with it, in the same transaction.

use std::collections::HashSet;

use embedd_wire::Embeddings;
use pgrx::spi::SpiClient;

use crate::catalog::{self, Reused, VectorTable};
use crate::client::LONGEST_TEXT;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::sync::core::Document;

/// Columns of documents as arrays of one statement.
struct Arrays {
    pk_values: Vec<String>,
    texts: Vec<String>,
    metadata: Vec<String>,
    hashes: Vec<String>,
}

impl Arrays {
    fn of<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Self {
        let mut arrays =
            Self { pk_values: vec![], texts: vec![], metadata: vec![], hashes: vec![] };
        for document in documents {
            arrays.pk_values.push(document.pk_value.clone());
            arrays.texts.push(document.text.clone());
            arrays.metadata.push(document.metadata.clone());
            arrays.hashes.push(document.row_hash.clone());
        }
        arrays
    }
}

/// Writes documents with their vectors; a row whose text the provider refuses has none. Rows are locked in the order of
/// their keys, so that two writers do not deadlock.
pub fn write_vectors(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    documents: &[Document],
    embeddings: &Embeddings,
) -> Result<()> {
    if embeddings.count() != documents.len() || embeddings.dimensions != table.dimensions as usize {
        return Err(Error::Damaged {
            what: format!(
                "{} vectors of {} dimensions for {} texts and {} dimensions",
                embeddings.count(),
                embeddings.dimensions,
                documents.len(),
                table.dimensions
            ),
        });
    }
    let vector = VectorType::find(client)?;
    let refused: HashSet<usize> = embeddings.refused.iter().map(|(n, _)| *n as usize).collect();
    // A refused text has no vector, and the one of an earlier text would answer for what is no longer there.
    let is_taken = |number: &usize| !refused.contains(number);
    let vectors: Vec<Option<&[f32]>> = (0..documents.len())
        .map(|number| is_taken(&number).then(|| embeddings.vector(number)))
        .collect();
    upsert(client, table, documents, &vector, &vectors)?;
    let (mut keys, mut cut) = (Vec::new(), Vec::new());
    for (number, document) in documents.iter().enumerate() {
        keys.push(document.pk_value.clone());
        let is_cut = embeddings.truncated[number] || document.text.len() > LONGEST_TEXT;
        if is_cut && is_taken(&number) {
            cut.push(document.pk_value.clone());
        }
    }
    catalog::set_truncated(client, table.id, &keys, &cut)
}

/// Stores documents whose text is as it was, and those without text, which have no vector.
pub fn rewrite(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    documents: &[Document],
) -> Result<()> {
    if documents.is_empty() {
        return Ok(());
    }
    let (empty, same): (Vec<Document>, Vec<Document>) =
        documents.iter().cloned().partition(|d| d.text.is_empty());
    if !same.is_empty() {
        let relation = table.relation_name()?;
        let arrays = Arrays::of(&same);
        let _rights = RoleSwitch::of_owner(table.owner);
        client.update(
            &format!(
                "update {relation} v set metadata = n.metadata::jsonb, row_hash = n.row_hash
                   from unnest($1::text[], $2::text[], $3::text[]) n(pk_value, metadata, row_hash)
                  where v.pk_value = n.pk_value"
            ),
            None,
            &[arrays.pk_values.into(), arrays.metadata.into(), arrays.hashes.into()],
        )?;
    }
    if !empty.is_empty() {
        let vector = VectorType::find(client)?;
        upsert(client, table, &empty, &vector, &vec![None; empty.len()])?;
        let keys: Vec<String> = empty.iter().map(|d| d.pk_value.clone()).collect();
        catalog::set_truncated(client, table.id, &keys, &[])?;
    }
    Ok(())
}

/// Stores documents with the vectors that another vector table has of the same texts; returns the keys of those it has.
pub fn reuse(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    reused: &Reused,
    documents: &[Document],
) -> Result<HashSet<String>> {
    let relation = table.relation_name()?;
    let arrays = Arrays::of(documents);
    let of = table.vector_column().type_sql(&VectorType::find(client)?.schema);
    let rows = format!(
        "select n.pk_value, u.embedding::{of}, n.embedded_text, n.metadata::jsonb, n.row_hash
           from unnest($1::text[], $2::text[], $3::text[], $4::text[]) n(pk_value, embedded_text, metadata, row_hash)
           join {} u on u.pk_value = n.pk_value and u.embedded_text = n.embedded_text and u.embedding is not null
          order by n.pk_value",
        reused.name
    );
    let mut keys = Vec::new();
    {
        let _rights = RoleSwitch::of_owner(table.owner);
        let rows = client.update(
            &format!("{} returning v.pk_value", upsert_sql(relation, &rows)),
            None,
            &[
                arrays.pk_values.into(),
                arrays.texts.into(),
                arrays.metadata.into(),
                arrays.hashes.into(),
            ],
        )?;
        for row in rows {
            keys.extend(row.get::<String>(1)?);
        }
    }
    let cut = catalog::truncated_keys(client, reused.id, &keys)?;
    catalog::set_truncated(client, table.id, &keys, &cut)?;
    Ok(keys.into_iter().collect())
}

/// The statement that writes rows of a query over what is stored under their keys.
pub fn upsert_sql(relation: &str, rows: &str) -> String {
    format!(
        "insert into {relation} as v (pk_value, embedding, embedded_text, metadata, row_hash)
         {rows}
         on conflict (pk_value) do update
            set embedding = excluded.embedding, embedded_text = excluded.embedded_text,
                metadata = excluded.metadata, row_hash = excluded.row_hash"
    )
}

fn upsert(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    documents: &[Document],
    vector: &VectorType,
    vectors: &[Option<&[f32]>],
) -> Result<()> {
    let relation = table.relation_name()?;
    let arrays = Arrays::of(documents);
    let embedding = table.vector_column().stored(&vector.schema, "n.embedding");
    let _rights = RoleSwitch::of_owner(table.owner);
    let rows = format!(
        "select n.pk_value, {embedding}, n.embedded_text, n.metadata::jsonb, n.row_hash
           from unnest($1::text[], $2::{schema}.vector[], $3::text[], $4::text[], $5::text[])
                n(pk_value, embedding, embedded_text, metadata, row_hash)
          order by n.pk_value",
        schema = vector.schema
    );
    client.update(
        &upsert_sql(relation, &rows),
        None,
        &[
            arrays.pk_values.into(),
            vector.array_argument(vectors),
            arrays.texts.into(),
            arrays.metadata.into(),
            arrays.hashes.into(),
        ],
    )?;
    Ok(())
}

/// Removes rows whose source row is gone.
pub fn remove(client: &mut SpiClient<'_>, table: &VectorTable, keys: &[String]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let relation = table.relation_name()?;
    {
        let _rights = RoleSwitch::of_owner(table.owner);
        client.update(
            &format!("delete from {relation} where pk_value = any($1)"),
            None,
            &[keys.to_vec().into()],
        )?;
    }
    catalog::set_truncated(client, table.id, keys, &[])
}
