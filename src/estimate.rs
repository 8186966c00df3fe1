//! embedd.estimate(): what a backfill of a vector table costs and how long it takes, before a text is sent.

mod change;
mod measure;
mod projection;
mod target;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::{Number, Value};

use crate::catalog;
use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::{shared, verify};

use self::change::Change;
use self::projection::{Projection, hours_at_limits};
use self::target::Target;

/// The currency of the prices in the model catalog.
const CURRENCY: &str = "USD";

/// The result of estimate().
pub struct Estimate {
    pub provider: String,
    pub model: String,
    pub dimensions: i32,
    pub rows: i64,
    pub texts: i64,
    pub distinct_texts: i64,
    pub texts_to_embed: i64,
    pub projection: Projection,
    pub cost: Option<AnyNumeric>,
    pub batch_cost: Option<AnyNumeric>,
    pub hours_at_limits: Option<f64>,
    pub hours_at_last_pace: Option<f64>,
}

impl Estimate {
    /// The currency of the costs; None where neither is known.
    pub fn currency(&self) -> Option<&'static str> {
        (self.cost.is_some() || self.batch_cost.is_some()).then_some(CURRENCY)
    }
}

/// Estimates a backfill of a vector table as it is, or as a change would make it.
pub fn estimate(name: &str, config: Option<&Value>) -> Result<Estimate> {
    let change = config.map(Change::parse).transpose()?.unwrap_or_default();
    if !shared::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    Spi::connect(|client| {
        let table = verify::find(client, name)?;
        let seconds_per_row = last_pace(client, table.id)?;
        let shadow = {
            let _rights = RoleSwitch::of_extension()?;
            catalog::visible_shadow(client, table.id)?
        };
        // A change that waits is what the next backfill is about.
        let change = match &shadow {
            Some(shadow) => change.beside(shadow)?,
            None => change,
        };
        let target = Target::of(client, table, change)?;
        let failed = verify::failed_keys(client, &target.table)?;
        let (left_out, totals) = match measure::totals(&target, &[]) {
            // A failed row may be one that cannot be read.
            Err(failure) if !failure.is_canceled() && !failed.is_empty() => {
                let totals = measure::totals(&target, &failed);
                (failed, totals)
            }
            totals => (Vec::new(), totals),
        };
        let totals = totals?;
        let projection = measure::project(&target, &totals, &left_out)?;
        let price = |price: &Option<Number>| match price {
            Some(price) => cost(client, projection.tokens, price),
            None => Ok(None),
        };
        let entry = target.entry.clone().unwrap_or_default();
        Ok(Estimate {
            provider: target.table.provider.clone(),
            model: target.table.model.clone(),
            dimensions: target.table.dimensions,
            rows: totals.rows,
            texts: totals.texts,
            distinct_texts: totals.distinct_texts,
            texts_to_embed: totals.texts_to_embed,
            cost: price(&entry.price_per_million_tokens)?,
            batch_cost: price(&entry.batch_price_per_million_tokens)?,
            hours_at_limits: hours_at_limits(&target.provider, &projection, totals.texts_to_embed),
            hours_at_last_pace: seconds_per_row.map(|s| s * totals.texts_to_embed as f64 / 3600.0),
            projection,
        })
    })
}

/// The seconds that the last backfill of a vector table took for each row that it changed; None without one.
fn last_pace(client: &SpiClient<'_>, table_id: i32) -> Result<Option<f64>> {
    let _rights = RoleSwitch::of_extension()?;
    let rows = client.select(
        "select (extract(epoch from t.completed_at - t.started_at) / t.different_rows)::float8
           from embedd.tasks t
          where t.target_id = $1 and t.status = 'completed' and t.task_type <> 'reconcile'
            and t.different_rows > 0 and t.completed_at > t.started_at
          order by t.task_id desc limit 1",
        None,
        &[table_id.into()],
    )?;
    match rows.into_iter().next() {
        Some(row) => Ok(row.get::<f64>(1)?),
        None => Ok(None),
    }
}

/// The cost of tokens at a price for a million.
fn cost(client: &SpiClient<'_>, tokens: i64, price: &Number) -> Result<Option<AnyNumeric>> {
    let rows = client.select(
        "select pg_catalog.trim_scale(pg_catalog.round($1::numeric * $2::numeric / 1000000, 6))",
        None,
        &[tokens.into(), price.to_string().into()],
    )?;
    Ok(rows.first().get_one::<AnyNumeric>()?)
}
