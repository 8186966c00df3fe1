//! embedd.compare(): asks the same questions of a vector table and of its shadow, before the swap.

use std::time::Instant;

use embedd_wire::{InputType, Kind};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::find;
use super::nearest::{FIRST_PARAM, Wanted, nearest};
use super::question::{LIMIT, check_range};
use crate::catalog::{self, VectorTable};
use crate::error::{Error, Result};
use crate::fdw::{Server, embed};
use crate::filter;
use crate::rights::RoleSwitch;
use crate::table::check_may_change;
use crate::task;

/// What one question brings from both.
#[derive(Debug)]
pub struct Comparison {
    pub query: String,
    /// The part of the rows of the vector table that the shadow brings too.
    pub overlap: f64,
    /// By how many places these rows move on average; None where there are none.
    pub mean_rank_change: Option<f64>,
    /// Milliseconds to embed the question, and to find the rows.
    pub live_embed_ms: f64,
    pub shadow_embed_ms: f64,
    pub live_search_ms: f64,
    pub shadow_search_ms: f64,
    /// What a million tokens cost, in US dollars; None where that is unknown.
    pub live_price: Option<AnyNumeric>,
    pub shadow_price: Option<AnyNumeric>,
    pub live_ids: Vec<String>,
    pub shadow_ids: Vec<String>,
}

/// Compares the answers of a vector table with those of its shadow.
pub fn compare(name: &str, queries: &[String], k: i32) -> Result<Vec<Comparison>> {
    check_range("k", k, 1..=LIMIT)?;
    Spi::connect_mut(|client| {
        let live = find(client, name)?;
        // The shadow may have privileges that differ from those of the vector table.
        check_may_change(&live)?;
        let shadow = {
            let _rights = RoleSwitch::of_extension()?;
            catalog::shadow_of(client, live.id)?
        };
        let shadow = shadow.ok_or_else(|| Error::NoShadow { name: name.to_string() })?;
        let is_filled = {
            let _rights = RoleSwitch::of_extension()?;
            task::is_filled(client, shadow.id)?
        };
        if !is_filled {
            return Err(Error::ShadowNotReady { name: name.to_string() });
        }
        let (live_price, shadow_price) = (price(&live)?, price(&shadow)?);
        let mut compared = Vec::new();
        for query in queries {
            let (live_ids, live_embed_ms, live_search_ms) = ask(client, &live, query, k)?;
            let (shadow_ids, shadow_embed_ms, shadow_search_ms) = ask(client, &shadow, query, k)?;
            let (overlap, mean_rank_change) = agreement(&live_ids, &shadow_ids);
            compared.push(Comparison {
                query: query.clone(),
                overlap,
                mean_rank_change,
                live_embed_ms,
                shadow_embed_ms,
                live_search_ms,
                shadow_search_ms,
                live_price: live_price.clone(),
                shadow_price: shadow_price.clone(),
                live_ids,
                shadow_ids,
            });
        }
        Ok(compared)
    })
}

/// The price of the model of a vector table in the catalog.
fn price(table: &VectorTable) -> Result<Option<AnyNumeric>> {
    let kind = Server::of_table(table)?.map_or(Kind::Local, |server| server.options.kind);
    let entry = table.known_models.get(kind.as_str());
    let price = entry.and_then(|entry| entry.price_per_million_tokens.as_ref());
    price
        .map(|price| AnyNumeric::try_from(price.to_string().as_str()))
        .transpose()
        .map_err(|e| Error::Damaged { what: format!("embedd.models: {e}") })
}

/// The keys of the nearest rows, and the milliseconds that the question and the search took.
fn ask(
    client: &SpiClient<'_>,
    table: &VectorTable,
    query: &str,
    k: i32,
) -> Result<(Vec<String>, f64, f64)> {
    let begin = Instant::now();
    let vector = embed::for_table(table, query, InputType::Query)?;
    let embed_ms = begin.elapsed().as_secs_f64() * 1000.0;
    let first = filter::Values::From(FIRST_PARAM);
    let nothing = filter::condition(&serde_json::Value::Null, &[], first)?;
    let wanted = Wanted { limit: k, ..Wanted::default() };
    let begin = Instant::now();
    let answers = nearest(client, table, &vector, &wanted, nothing)?;
    let search_ms = begin.elapsed().as_secs_f64() * 1000.0;
    Ok((answers.into_iter().filter_map(|found| found.answer.id).collect(), embed_ms, search_ms))
}

/// The part of the first rows that the others have too, and by how many places these move on average.
fn agreement(one: &[String], other: &[String]) -> (f64, Option<f64>) {
    if one.is_empty() {
        return (if other.is_empty() { 1.0 } else { 0.0 }, None);
    }
    let moves: Vec<usize> = one
        .iter()
        .enumerate()
        .filter_map(|(rank, id)| Some(other.iter().position(|o| o == id)?.abs_diff(rank)))
        .collect();
    let overlap = moves.len() as f64 / one.len() as f64;
    let mean = moves.iter().sum::<usize>() as f64 / moves.len() as f64;
    (overlap, (!moves.is_empty()).then_some(mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_rows_and_places() {
        let ids = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (one, other, overlap, change) in [
            ("abcd", "abcd", 1.0, Some(0.0)),
            ("abcd", "badc", 1.0, Some(1.0)),
            ("abcd", "axyz", 0.25, Some(0.0)),
            ("abcd", "wxyz", 0.0, None),
            ("", "", 1.0, None),
            ("", "a", 0.0, None),
        ] {
            assert_eq!(agreement(&ids(one), &ids(other)), (overlap, change), "{one} {other}");
        }
    }
}
