//! Reads the source of a vector table: counts its texts, and has the tokens of all or of a random sample counted.

use embedd_wire::CountRequest;
use pgrx::check_for_interrupts;
use pgrx::prelude::*;

use super::projection::{Projection, Sample};
use super::target::Target;
use crate::catalog::VectorTable;
use crate::citus::{self, NodeSettings};
use crate::client::{self, LONGEST_TEXT, beginning};
use crate::error::{Error, Result};
use crate::guc;
use crate::rights::RoleSwitch;
use crate::text_settings;
use crate::transaction::{self, TxError};
use crate::verify::not_failed;

/// The texts, and their characters, up to which all of them are counted. Of more texts a random sample of this size is.
const MOST_TEXTS: f64 = 10_000.0;
const MOST_CHARACTERS: f64 = 16e6;

/// Rows of one fetch: each may have a megabyte.
const ROWS_AT_ONCE: std::ffi::c_long = 100;

/// Bytes of text in one request to the embedder, unless one text has more.
const BYTES_AT_ONCE: usize = 1 << 20;

/// What the source of a vector table has.
#[derive(Debug, Default)]
pub struct Totals {
    pub rows: i64,
    /// Rows with a text, and how many different ones these are.
    pub texts: i64,
    pub distinct_texts: i64,
    /// Texts without a vector that stays valid, and their characters.
    pub texts_to_embed: i64,
    pub characters: i64,
}

/// Counts rows, texts and characters, without the rows of these keys.
pub fn totals(target: &Target, left_out: &[String]) -> std::result::Result<Totals, TxError> {
    transaction::nested_read(|| count(target, left_out))
}

fn count(target: &Target, left_out: &[String]) -> Result<Totals> {
    let table = &target.table;
    let documents = documents(table, "true")?;
    let (join, is_kept) = kept(target)?;
    let query = format!(
        "select count(*),
                count(*) filter (where d.characters > 0),
                count(distinct d.hash) filter (where d.characters > 0),
                count(*) filter (where d.characters > 0 and not {is_kept}),
                coalesce(sum(least(d.characters, {LONGEST_TEXT})) filter (where d.characters > 0 and not {is_kept}), 0)::bigint
           from (select o.pk_value, pg_catalog.char_length(o.embedded_text)::bigint as characters,
                        {} as hash
                   from ({documents}) o offset 0) d {join}",
        hash("o.embedded_text"),
    );
    read(table, &query, left_out, |row, found: &mut Totals| {
        let number = |n| Ok::<i64, Error>(row.get::<i64>(n)?.unwrap_or_default());
        *found = Totals {
            rows: number(1)?,
            texts: number(2)?,
            distinct_texts: number(3)?,
            texts_to_embed: number(4)?,
            characters: number(5)?,
        };
        Ok(())
    })
}

/// Counts the tokens of the texts to be embedded, of all or of a sample, and projects them to all.
pub fn project(target: &Target, totals: &Totals, left_out: &[String]) -> Result<Projection> {
    if totals.texts_to_embed == 0 {
        return Ok(Projection::none());
    }
    let (texts, characters) = (totals.texts_to_embed as f64, totals.characters as f64);
    let share = (MOST_TEXTS / texts).min(MOST_CHARACTERS / characters.max(1.0));
    let is_whole = share >= 1.0;
    let texts = sample(target, (!is_whole).then_some(share), left_out)?;
    let mut sample = Sample::default();
    let mut rest = texts.as_slice();
    while !rest.is_empty() {
        check_for_interrupts!();
        let mut bytes = 0;
        let fits = rest.iter().take_while(|text| {
            bytes += text.len();
            bytes <= BYTES_AT_ONCE
        });
        let (some, others) = rest.split_at(fits.count().max(1));
        let request = CountRequest {
            provider: target.provider.clone(),
            model: target.model.clone(),
            texts: some.iter().map(|text| beginning(text).to_string()).collect(),
        };
        let counts = client::count(&request, guc::embedder_timeout())?;
        sample.add(some, &counts);
        rest = others;
    }
    Ok(sample.project(totals.texts_to_embed, totals.characters, is_whole))
}

/// The beginnings of the texts to be embedded; with a share each row of the source is chosen with this probability.
fn sample(target: &Target, share: Option<f64>, left_out: &[String]) -> Result<Vec<String>> {
    let table = &target.table;
    let chosen = match share {
        Some(share) => format!("pg_catalog.random() < {share}"),
        None => "true".to_string(),
    };
    let documents = documents(table, &chosen)?;
    let (join, is_kept) = kept(target)?;
    let query = format!(
        "select pg_catalog.left(d.embedded_text, {LONGEST_TEXT})
           from (select o.pk_value, o.embedded_text, {} as hash
                   from ({documents}) o where o.embedded_text <> '' offset 0) d {join}
          where not {is_kept}",
        hash("o.embedded_text"),
    );
    read(table, &query, left_out, |row, texts: &mut Vec<String>| {
        texts.extend(row.get::<String>(1)?);
        Ok(())
    })
}

/// The join of documents `d` with the vectors that stay valid, and the condition that a document has one.
///
/// Texts take part by their hash, so that what is joined and sorted does not grow with their length.
fn kept(target: &Target) -> Result<(String, &'static str)> {
    if !target.keeps_vectors {
        return Ok((String::new(), "false"));
    }
    let join = format!(
        "left join (select r.pk_value, {} as hash from {} r where r.embedding is not null offset 0) v
                on v.pk_value = d.pk_value",
        hash("r.embedded_text"),
        target.table.relation_name()?
    );
    Ok((join, "(v.hash is not distinct from d.hash)"))
}

/// The documents of the source rows that satisfy a condition, without those of the keys $1.
fn documents(table: &VectorTable, condition: &str) -> Result<String> {
    let key = &table.key;
    let mut condition =
        format!("{} and {} and {condition}", key.is_complete("s"), not_failed(&key.pk_value("s")));
    if citus::reaches_nodes(table.source) {
        condition = format!("{condition} and {}", citus::IN_TRANSACTIONS);
    }
    Ok(table.documents(&table.all_rows()?, &condition))
}

/// The hash of a text, the same for equal texts whatever the collations are.
fn hash(text: &str) -> String {
    format!("pg_catalog.hashtextextended({text} collate pg_catalog.\"C\", 0)")
}

/// Reads the rows of a query as the owner of the vector table.
fn read<T: Default>(
    table: &VectorTable,
    query: &str,
    left_out: &[String],
    take: impl Fn(&pgrx::spi::SpiHeapTupleData<'_>, &mut T) -> Result<()>,
) -> Result<T> {
    let rights = RoleSwitch::of_owner(table.owner);
    text_settings::set_text_settings(&rights);
    let is_spread = citus::reaches_nodes(table.source);
    let spread = is_spread.then(|| NodeSettings::set(text_settings::all())).transpose()?;
    let mut found = T::default();
    Spi::connect(|client| {
        let mut cursor = client.try_open_cursor(query, &[left_out.to_vec().into()])?;
        loop {
            let rows = cursor.fetch(ROWS_AT_ONCE)?;
            if rows.is_empty() {
                return Ok::<(), Error>(());
            }
            for row in rows {
                take(&row, &mut found)?;
            }
        }
    })?;
    if let Some(spread) = spread {
        spread.reset()?;
    }
    drop(rights);
    Ok(found)
}
