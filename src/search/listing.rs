//! Answers without a question: the rows that a filter keeps, in the order of a field, page by page.

use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiClient;

use super::Answer;
use super::nearest::{FIRST_PARAM, bound, pin, run};
use super::order::Order;
use super::question::Question;
use super::statement::listed;
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::filter::{self, Field, Param, Values};

/// The rows in the order of the question.
pub fn list(
    client: &SpiClient<'_>,
    table: &VectorTable,
    question: &Question,
    fields: &[Field],
) -> Result<Vec<Answer>> {
    let (statement, params) =
        statement(table, question, fields, Values::From(FIRST_PARAM), ["$1", "$2"])?;
    let mut arguments: Vec<DatumWithOid<'_>> =
        vec![i64::from(question.limit).into(), i64::from(question.offset).into()];
    arguments.extend(bound(params));
    let found = run(client, &statement, &arguments)?;
    Ok(found.into_iter().map(|candidate| candidate.answer).collect())
}

/// The statement of a list, and the values to bind.
pub fn statement(
    table: &VectorTable,
    question: &Question,
    fields: &[Field],
    values: Values,
    [limit, offset]: [&str; 2],
) -> Result<(String, Vec<Param>)> {
    let order = Order::parse(question.order_by.as_deref().unwrap_or_default(), fields)?;
    let nothing = serde_json::Value::Null;
    let filters = question.filters.as_ref().unwrap_or(&nothing);
    let condition = filter::condition(filters, fields, values)?;
    let (mut sql, mut params) = (format!("({})", condition.sql), condition.params);
    if let Some(after) = &question.after {
        let values = match values {
            Values::From(first) => Values::From(first + params.len()),
            Values::Literal => Values::Literal,
        };
        let place = order.after(after, values)?;
        sql = format!("{sql} and {}", place.sql);
        params.extend(place.params);
    }
    Ok((listed(&pin(table)?, &sql, &order.sql(), limit, offset), params))
}
