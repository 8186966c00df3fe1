//! embedd.explain_query(): the SQL that query() runs, as it can be run by hand.

use pgrx::prelude::*;

use super::nearest::{Planned, extent, statement};
use super::plan::Plan;
use super::question::{Kind, Question};
use super::rank::Ranking;
use super::seen::seen;
use super::{condition_of, fields_of, find_answering, listing, ranking_of, wanted};
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::filter::Values;
use crate::name::quote_literal;

/// The statements of a question, after comments that say how it is answered. No provider is called.
pub fn explain(question: &Question) -> Result<String> {
    let kind = question.check()?;
    Spi::connect(|client| {
        let table = find_answering(client, &question.vector_table)?;
        let fields = fields_of(&table);
        if kind == Kind::Nothing {
            return Ok(
                "-- The question is NULL: no statement runs, and no row is returned.".to_string()
            );
        }
        if kind == Kind::Listed {
            let (limit, offset) = (question.limit.to_string(), question.offset.to_string());
            let literal = Values::Literal;
            let (statement, _) =
                listing::statement(&table, question, &fields, literal, [&limit, &offset])?;
            return Ok(format!("-- A list of the rows that match.\n{statement};"));
        }
        let ranking = ranking_of(client, question, &fields)?;
        let pgvector = VectorType::find(client)?;
        let vector = match (&question.text, &question.vector) {
            (Some(text), _) => {
                let (name, text) = (quote_literal(&table.name), quote_literal(text));
                format!("embedd.embed({name}, {text})")
            }
            (None, Some(vector)) => {
                super::check_dimensions(&table, vector)?;
                let elements = serde_json::to_string(vector)
                    .map_err(|e| Error::Damaged { what: e.to_string() })?;
                format!("'{elements}'::{}.vector", pgvector.schema)
            }
            (None, None) => return Err(Error::NullArgument { argument: "query" }),
        };
        let condition = condition_of(question, &fields, Values::Literal)?;
        let wanted = wanted(question, &ranking, &condition);
        let seen = seen(client, &table, &wanted)?;
        let wanted = wanted.seeing(seen.as_ref(), &condition);
        let extent = extent(client, &table)?;
        let key = extent.key(&table);
        let of = |condition: String| {
            let sql = (vector.as_str(), wanted.limit.to_string(), condition);
            statement(&table, &pgvector, &wanted, key, sql)
        };
        let mut statement = of(condition.sql.clone())?;
        let planned = Planned::of(client, &table, extent, &statement, &[], &wanted)?;
        if let Some(seen) = seen.filter(|seen| planned.plan == Plan::Exact && seen.is_little()) {
            let keys = seen.statement;
            statement = of(format!("({}) and v.pk_value = any (array({keys}))", condition.sql))?;
        }
        let mut lines = vec![reason(&planned)];
        lines.extend(then(question, &ranking));
        let sql = match planned.plan {
            Plan::Exact => statement.exactly(),
            Plan::Index { ef_search } => {
                let set = |(name, value)| format!("set local {name} = {value};");
                lines.extend(planned.settings(ef_search).map(set));
                statement.through_index()
            }
        };
        lines.push(format!("{sql};"));
        Ok(lines.join("\n"))
    })
}

/// Why the plan was chosen.
fn reason(planned: &Planned) -> String {
    let rows = planned.extent.rows;
    let size = match rows.is_finite() {
        true => format!("about {rows:.0} rows"),
        false => "shards".to_string(),
    };
    let kept = planned.known.kept.map_or_else(
        || "no filter or policy".to_string(),
        |kept| format!("a filter or policy that keeps about {:.2} %", kept * 100.0),
    );
    let how = match planned.plan {
        Plan::Exact => "Exact: every row that matches is read".to_string(),
        Plan::Index { .. } => {
            let method = planned.extent.method().unwrap_or("unknown");
            let or = match planned.known.is_checked {
                true => ", or visits so many for them that it may miss some",
                false => "",
            };
            format!(
                "Through the index ({method}); exactly after it, if it brings fewer rows than are wanted{or}"
            )
        }
    };
    format!("-- {how}. The table has {size}, {kept}.")
}

/// What happens to the rows of the statement.
fn then(question: &Question, ranking: &Ranking) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(score) = question.min_score {
        lines.push(format!("-- Then rows with a similarity below {score} are left out."));
    }
    if !ranking.is_empty() {
        lines.push(
            "-- Then boosts and decays of the values change the scores and the order.".to_string(),
        );
    }
    if question.offset > 0 || !ranking.is_empty() {
        let (offset, limit) = (question.offset, question.limit);
        lines.push(format!("-- Then {offset} rows are skipped, and {limit} are returned."));
    }
    lines
}
