//! Embeds a sample of the stored texts again, and finds rows whose vectors do not match their texts.

use embedd_wire::InputType;
use pgrx::check_for_interrupts;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Difference;
use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::fdw::embed;
use crate::rights::RoleSwitch;

/// The largest sample: each row costs a call of the provider.
const MOST_ROWS: i32 = 100_000;

/// Longer texts are skipped, because the worker has sent only a part of them.
const MOST_BYTES: i32 = 1024 * 1024;

/// From this cosine distance on two vectors count as different. Vectors of one service for the same text differ by
/// less.
const OTHER_VECTOR: f64 = 0.001;

/// Rows of a random sample whose vectors are not those of their texts.
pub fn overwritten(name: &str, rows: i32) -> Result<Vec<Difference>> {
    if !(0..=MOST_ROWS).contains(&rows) {
        return Err(Error::bad_argument(format!(
            "sample {rows} is outside the range 0 to {MOST_ROWS}"
        )));
    }
    Spi::connect(|client| {
        let table = super::find(client, name)?;
        let kind = VectorType::find(client)?;
        let mut found = Vec::new();
        for (pk_value, text) in sample(client, &table, rows)? {
            check_for_interrupts!();
            let vector = embed::for_table(&table, &text, InputType::Document)?;
            if is_other(client, &table, &kind, &pk_value, &text, &vector)? {
                found.push(Difference { pk_value, problem: "overwritten" });
            }
        }
        Ok(found)
    })
}

/// Keys and texts of random rows.
fn sample(client: &SpiClient<'_>, table: &VectorTable, rows: i32) -> Result<Vec<(String, String)>> {
    let query = format!(
        "select v.pk_value, v.embedded_text from {} v
          where v.embedding is not null and v.embedded_text <> '' and octet_length(v.embedded_text) <= $2
          order by random() limit $1",
        table.relation_name()?
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    let mut found = Vec::new();
    for row in client.select(&query, None, &[rows.into(), MOST_BYTES.into()])? {
        if let (Some(key), Some(text)) = (row.get::<String>(1)?, row.get::<String>(2)?) {
            found.push((key, text));
        }
    }
    Ok(found)
}

/// Whether the row has a different vector for this text. A row that was changed meanwhile does not count.
fn is_other(
    client: &SpiClient<'_>,
    table: &VectorTable,
    kind: &VectorType,
    pk_value: &str,
    text: &str,
    vector: &[f32],
) -> Result<bool> {
    let column = table.vector_column();
    let query = format!(
        "select ({}) <= $4 from {} v
          where v.pk_value = $1 and v.embedded_text = $2 and v.embedding is not null",
        column.distance(column.index_key(), &kind.schema, "$3"),
        table.relation_name()?
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    let arguments = [pk_value.into(), text.into(), kind.argument(vector), OTHER_VECTOR.into()];
    let rows = client.select(&query, None, &arguments)?;
    // The distance from a zero vector is NaN, which is not within any range.
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? != Some(true))
}
