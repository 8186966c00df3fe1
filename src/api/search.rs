//! The SQL functions that answer questions. They are stable: within one statement the same question has the same result, which
//! PostgreSQL may cache.

use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::given;
use crate::datum::{RawJsonb, Texts, Vector};
use crate::error::Result as EmbeddResult;
use crate::row_security;
use crate::search::{self, Answer, Question};

// The symbol differs from that of the function with fewer arguments, up to 0.7.0.
#[pg_extern(stable, parallel_restricted, name = "query")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
#[allow(clippy::too_many_arguments)]
fn query_by(
    vector_table: Option<&str>,
    query: default!(Option<String>, "NULL"),
    limit: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
    min_similarity_score: default!(Option<f64>, "NULL"),
    ef_search: default!(Option<i32>, "NULL"),
    query_vector: default!(Option<Vector>, "NULL"),
    offset: default!(Option<i32>, "0"),
    order_by: default!(Option<String>, "NULL"),
    after: default!(Option<RawJsonb>, "NULL"),
    boosts: default!(Option<RawJsonb>, "NULL"),
    decays: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, Option<String>),
            name!(score, Option<f64>),
            name!(metadata, Option<RawJsonb>),
            name!(embedded_text, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let question = asked(
        vector_table,
        query,
        limit,
        filters,
        min_similarity_score,
        ef_search,
        query_vector,
        offset,
        order_by,
        after,
        boosts,
        decays,
    )?;
    Ok(answer_rows(search::query(&question)?))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn explain_query(
    vector_table: Option<&str>,
    query: default!(Option<String>, "NULL"),
    limit: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
    min_similarity_score: default!(Option<f64>, "NULL"),
    ef_search: default!(Option<i32>, "NULL"),
    query_vector: default!(Option<Vector>, "NULL"),
    offset: default!(Option<i32>, "0"),
    order_by: default!(Option<String>, "NULL"),
    after: default!(Option<RawJsonb>, "NULL"),
    boosts: default!(Option<RawJsonb>, "NULL"),
    decays: default!(Option<RawJsonb>, "NULL"),
) -> Result<String, ErrorReport> {
    let question = asked(
        vector_table,
        query,
        limit,
        filters,
        min_similarity_score,
        ef_search,
        query_vector,
        offset,
        order_by,
        after,
        boosts,
        decays,
    )?;
    Ok(search::explain::explain(&question)?)
}

/// The arguments of query() as a question; those that are NULL have their defaults.
#[allow(clippy::too_many_arguments)]
fn asked(
    vector_table: Option<&str>,
    query: Option<String>,
    limit: Option<i32>,
    filters: Option<RawJsonb>,
    min_similarity_score: Option<f64>,
    ef_search: Option<i32>,
    query_vector: Option<Vector>,
    offset: Option<i32>,
    order_by: Option<String>,
    after: Option<RawJsonb>,
    boosts: Option<RawJsonb>,
    decays: Option<RawJsonb>,
) -> EmbeddResult<Question> {
    Ok(Question {
        vector_table: given(vector_table, "vector_table")?.to_string(),
        text: query,
        vector: query_vector.map(|vector| vector.0),
        limit: limit.unwrap_or(search::DEFAULT_LIMIT),
        offset: offset.unwrap_or(0),
        filters: parsed(filters, "filters")?,
        min_score: min_similarity_score,
        ef_search,
        order_by,
        after: parsed(after, "after")?,
        boosts: parsed(boosts, "boosts")?,
        decays: parsed(decays, "decays")?,
    })
}

/// A row of the result of query() and similar().
type AnswerRow = (Option<String>, Option<f64>, Option<RawJsonb>, Option<String>);

fn answer_rows(answers: Vec<Answer>) -> TableIterator<'static, AnswerRow> {
    TableIterator::new(answers.into_iter().map(|row| (row.id, row.score, row.metadata, row.text)))
}

/// A JSON argument, if it is given.
fn parsed(
    json: Option<RawJsonb>,
    argument: &'static str,
) -> EmbeddResult<Option<serde_json::Value>> {
    Ok(json.map(|json| json.parse(argument)).transpose()?.filter(|json| !json.is_null()))
}

// The form up to 0.7.0, which the views of an updated installation may call under another name.
#[pg_extern(sql = false)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn query(
    vector_table: Option<&str>,
    query: Option<String>,
    limit: Option<i32>,
    filters: Option<RawJsonb>,
    min_similarity_score: Option<f64>,
    ef_search: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, Option<String>),
            name!(score, Option<f64>),
            name!(metadata, Option<RawJsonb>),
            name!(embedded_text, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let question = asked(
        vector_table,
        query,
        limit,
        filters,
        min_similarity_score,
        ef_search,
        None,
        None,
        None,
        None,
        None,
        None,
    )?;
    Ok(answer_rows(search::query(&question)?))
}

#[pg_extern(stable, parallel_restricted, name = "search")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn search_tables(
    vector_tables: Option<Texts>,
    query: Option<String>,
    limit: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
    min_similarity_score: default!(Option<f64>, "NULL"),
    offset: default!(Option<i32>, "0"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(vector_table, String),
            name!(id, Option<String>),
            name!(score, Option<f64>),
            name!(metadata, Option<RawJsonb>),
            name!(embedded_text, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let vector_tables = given(vector_tables, "vector_tables")?.0;
    let question = Question {
        text: query,
        limit: limit.unwrap_or(search::DEFAULT_LIMIT),
        offset: offset.unwrap_or(0),
        filters: parsed(filters, "filters")?,
        min_score: min_similarity_score,
        ..Question::default()
    };
    let found = search::several::search(&vector_tables, &question)?;
    Ok(TableIterator::new(
        found.into_iter().map(|(name, row)| (name, row.id, row.score, row.metadata, row.text)),
    ))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn recall(
    vector_table: Option<&str>,
    sample: default!(Option<i32>, "50"),
    k: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(recall, Option<f64>),
            name!(questions, i32),
            name!(query_ms, Option<f64>),
            name!(exact_ms, Option<f64>),
            name!(plan, &'static str),
            name!(ef_search, Option<i32>),
            name!(advice, String),
        ),
    >,
    ErrorReport,
> {
    let question = Question {
        vector_table: given(vector_table, "vector_table")?.to_string(),
        filters: parsed(filters, "filters")?,
        ..Question::default()
    };
    let (sample, k) = (given(sample, "sample")?, given(k, "k")?);
    let measured = search::recall::recall(&question, sample, k)?;
    Ok(TableIterator::once((
        measured.recall,
        measured.questions,
        measured.query_ms,
        measured.exact_ms,
        measured.plan,
        measured.ef_search,
        measured.advice,
    )))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn similar(
    vector_table: Option<&str>,
    id: Option<String>,
    limit: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, Option<String>),
            name!(score, Option<f64>),
            name!(metadata, Option<RawJsonb>),
            name!(embedded_text, Option<String>),
        ),
    >,
    ErrorReport,
> {
    neighbours(vector_table, id.map(|id| vec![id]), limit, filters)
}

#[pg_extern(stable, parallel_restricted, name = "similar")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn similar_to_several(
    vector_table: Option<&str>,
    ids: Option<Texts>,
    limit: default!(Option<i32>, "10"),
    filters: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, Option<String>),
            name!(score, Option<f64>),
            name!(metadata, Option<RawJsonb>),
            name!(embedded_text, Option<String>),
        ),
    >,
    ErrorReport,
> {
    neighbours(vector_table, ids.map(|ids| ids.0), limit, filters)
}

fn neighbours(
    vector_table: Option<&str>,
    ids: Option<Vec<String>>,
    limit: Option<i32>,
    filters: Option<RawJsonb>,
) -> Result<TableIterator<'static, AnswerRow>, ErrorReport> {
    let vector_table = given(vector_table, "vector_table")?;
    let Some(ids) = ids else { return Ok(TableIterator::empty()) };
    let limit = limit.unwrap_or(search::DEFAULT_LIMIT);
    let filters = parsed(filters, "filters")?;
    Ok(answer_rows(search::similar::similar(vector_table, &ids, limit, filters)?))
}

// The policy of a vector table whose source has row security calls it with the rights of the reader.
#[pg_extern(stable, parallel_restricted)]
fn may_read_source(
    vector_table: i32,
    pk_value: &str,
    call: pg_sys::FunctionCallInfo,
) -> Result<bool, ErrorReport> {
    // SAFETY: PostgreSQL has passed it to this call.
    Ok(unsafe { row_security::may_read(call, vector_table, pk_value) }?)
}

// Stable, so that an index can serve `ORDER BY embedding <=> embedd.embed(..)`.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn embed(vector_table: &str, input: &str) -> Result<Vector, ErrorReport> {
    Ok(Vector(search::embed(vector_table, input)?))
}
