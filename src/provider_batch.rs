//! Reads and writes embedd.provider_batches and embedd.provider_batch_texts: texts at the batch API of a provider, and the
//! vectors that came back and are not stored yet.
//!
//! A text has a row from the moment at which it is planned to be sent, so that no text is sent twice, whatever crashes.

mod noted;

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use embedd_wire::BatchEnd;
use pgrx::spi::SpiClient;
use sha2::{Digest, Sha224};

pub use self::noted::Noted;
use crate::cluster::system_id;
use crate::datum::texts;
use crate::error::{Error, Result};

/// What is noted for a vector table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Whether batches are at a provider.
    pub has_batches: bool,
    /// Whether there are texts with a vector that the table may use.
    pub has_texts: bool,
}

/// A vector that came back.
pub struct Vector {
    pub values: Vec<f32>,
    pub is_truncated: bool,
}

/// The identifier of a text: equal for texts that have the same vector.
pub fn text_id(model: &str, dimensions: i32, prefix: &str, text: &str) -> String {
    let mut hash = Sha224::new();
    for part in [model, &dimensions.to_string(), prefix] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(text);
    let mut id = String::with_capacity(56);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// What is noted for the vector tables for which anything is.
pub fn notes(client: &SpiClient<'_>) -> Result<HashMap<i32, Notes>> {
    let rows = client.select(
        "select v.id, exists (select from embedd.provider_batches b where b.target_id = v.id),
                exists (select from embedd.provider_batch_texts t where t.target_id = v.id)
           from embedd.vector_tables v",
        None,
        &[],
    )?;
    let mut found = HashMap::new();
    for row in rows {
        let (id, has_batches, has_texts) = (row.get::<i32>(1)?, row.get(2)?, row.get(3)?);
        let notes =
            Notes { has_batches: has_batches == Some(true), has_texts: has_texts == Some(true) };
        if let Some(id) = id.filter(|_| notes != Notes::default()) {
            found.insert(id, notes);
        }
    }
    Ok(found)
}

/// What the batches of a vector table are called at its provider: their names, or the tokens of those whose names are not
/// known.
pub fn names(client: &mut SpiClient<'_>, table_id: i32) -> Result<Vec<String>> {
    let rows = client.update(
        "select coalesce(provider_batch, 'token ' || token) from embedd.provider_batches
          where target_id = $1 order by created_at",
        None,
        &[table_id.into()],
    )?;
    texts(rows)
}

/// The batches of a vector table.
pub fn noted(client: &SpiClient<'_>, table_id: i32) -> Result<Vec<Noted>> {
    let rows = client.select(
        "select token::text, provider_batch,
                greatest(extract(epoch from pg_catalog.clock_timestamp() - created_at), 0)::float8, system_id <> $2
           from embedd.provider_batches where target_id = $1 order by created_at",
        None,
        &[table_id.into(), system_id().into()],
    )?;
    let mut batches = Vec::new();
    for row in rows {
        let token = row.get(1)?.ok_or_else(no_token)?;
        let age = Duration::try_from_secs_f64(row.get::<f64>(3)?.unwrap_or_default());
        let is_foreign = row.get::<bool>(4)? == Some(true);
        batches.push(Noted { token, name: row.get(2)?, age: age.unwrap_or_default(), is_foreign });
    }
    Ok(batches)
}

fn no_token() -> Error {
    Error::Damaged { what: "batch without a token".to_string() }
}

/// Those of some texts that are at a provider, have come back, or were refused.
pub fn known(client: &SpiClient<'_>, table_id: i32, ids: Vec<String>) -> Result<HashSet<String>> {
    let rows = client.select(
        "select t.text_id from embedd.provider_batch_texts t where t.target_id = $1 and t.text_id = any($2)",
        None,
        &[table_id.into(), ids.into()],
    )?;
    Ok(texts(rows)?.into_iter().collect())
}

/// Notes texts that are about to be handed in as one batch; comes back with its token.
pub fn plan(
    client: &mut SpiClient<'_>,
    table_id: i32,
    provider: &str,
    ids: Vec<String>,
) -> Result<String> {
    let rows = client.update(
        "insert into embedd.provider_batches (token, target_id, provider, texts, system_id)
         values (pg_catalog.gen_random_uuid(), $1, $2, $3, $4) returning token::text",
        None,
        &[table_id.into(), provider.into(), (ids.len() as i32).into(), system_id().into()],
    )?;
    let token = rows.first().get_one::<String>()?.ok_or_else(no_token)?;
    client.update(
        "insert into embedd.provider_batch_texts (target_id, text_id, token)
         select $1, i, $2::uuid from unnest($3::text[]) i",
        None,
        &[table_id.into(), token.as_str().into(), ids.into()],
    )?;
    Ok(token)
}

/// Notes the name of a batch at the provider, and how many texts it has; these identifiers are not among them.
pub fn set_name(
    client: &mut SpiClient<'_>,
    table_id: i32,
    token: &str,
    name: &str,
    left_out: Vec<String>,
) -> Result<()> {
    client.update(
        "update embedd.provider_batches
            set provider_batch = $2, submitted_at = pg_catalog.clock_timestamp(), texts = texts - $3
          where token = $1::uuid",
        None,
        &[token.into(), name.into(), (left_out.len() as i32).into()],
    )?;
    if !left_out.is_empty() {
        client.update(
            "delete from embedd.provider_batch_texts
              where target_id = $1 and text_id = any($2) and token = $3::uuid",
            None,
            &[table_id.into(), left_out.into(), token.into()],
        )?;
    }
    Ok(())
}

/// Notes how many texts of a batch the provider has finished.
pub fn set_done(client: &mut SpiClient<'_>, token: &str, done: u64) -> Result<()> {
    client.update(
        "update embedd.provider_batches set texts_done = least($2, texts) where token = $1::uuid",
        None,
        &[token.into(), i32::try_from(done).unwrap_or(i32::MAX).into()],
    )?;
    Ok(())
}

/// Stores what an ended batch brought, and forgets the batch. Texts that it brought nothing for are forgotten too, so
/// that they are sent again. False when some were.
pub fn end(client: &mut SpiClient<'_>, table_id: i32, token: &str, end: &BatchEnd) -> Result<bool> {
    let vectors: Vec<Vec<u8>> = (0..end.ids.len())
        .map(|number| end.embeddings.vector(number).iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    client.update(
        "update embedd.provider_batch_texts t
            set embedding = n.embedding, is_truncated = n.is_truncated, token = null
           from unnest($2::text[], $3::bytea[], $4::boolean[]) n(text_id, embedding, is_truncated)
          where t.target_id = $1 and t.text_id = n.text_id and t.token = $5::uuid",
        None,
        &[
            table_id.into(),
            end.ids.clone().into(),
            vectors.into(),
            end.embeddings.truncated.clone().into(),
            token.into(),
        ],
    )?;
    let (ids, reasons): (Vec<String>, Vec<String>) = end.refused.iter().cloned().unzip();
    client.update(
        "update embedd.provider_batch_texts t set refused = n.refused, token = null
           from unnest($2::text[], $3::text[]) n(text_id, refused)
          where t.target_id = $1 and t.text_id = n.text_id and t.token = $4::uuid",
        None,
        &[table_id.into(), ids.into(), reasons.into(), token.into()],
    )?;
    forget(client, token)
}

/// Forgets a batch with its texts that have no vector. False when there were some.
pub fn forget(client: &mut SpiClient<'_>, token: &str) -> Result<bool> {
    let left = client.update(
        "delete from embedd.provider_batch_texts where token = $1::uuid returning 1",
        None,
        &[token.into()],
    )?;
    let is_complete = left.is_empty();
    client.update(
        "delete from embedd.provider_batches where token = $1::uuid",
        None,
        &[token.into()],
    )?;
    Ok(is_complete)
}

/// The vectors of some texts, as far as they have come.
pub fn vectors(
    client: &SpiClient<'_>,
    table_id: i32,
    ids: Vec<String>,
) -> Result<HashMap<String, Vector>> {
    let rows = client.select(
        "select t.text_id, t.embedding, t.is_truncated from embedd.provider_batch_texts t
          where t.target_id = $1 and t.text_id = any($2) and t.embedding is not null",
        None,
        &[table_id.into(), ids.into()],
    )?;
    let mut found = HashMap::new();
    for row in rows {
        let (Some(id), Some(bytes)) = (row.get::<String>(1)?, row.get::<&[u8]>(2)?) else {
            continue;
        };
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        found.insert(id, Vector { values, is_truncated: row.get(3)? == Some(true) });
    }
    Ok(found)
}

/// Forgets the vectors of a vector table, which are stored. What is at a provider stays noted.
pub fn forget_vectors(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "delete from embedd.provider_batch_texts where target_id = $1 and token is null",
        None,
        &[table_id.into()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::text_id;

    #[test]
    fn a_text_has_another_identifier_for_another_model_dimensions_or_prefix() {
        let id = text_id("m", 8, "p", "text");
        assert_eq!(id.len(), 56);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(id, text_id("m", 8, "p", "text"));
        for other in [
            text_id("n", 8, "p", "text"),
            text_id("m", 9, "p", "text"),
            text_id("m", 8, "", "ptext"),
            text_id("m", 8, "pt", "ext"),
            text_id("m", 8, "p", "Text"),
        ] {
            assert_ne!(id, other);
        }
    }
}
