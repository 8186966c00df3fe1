//! The vectors of a job of pg_vectorize: in a table beside the source, or in a column of the source.
//!
//! The tables are those of pg_vectorize (ChuckHend/pg_vectorize): `vectorize.job` with name, transformer and params in
//! the extension, and with one column for each setting in the server; `vectorize._embeddings_<job>` with the key,
//! embeddings and updated_at; or the columns `<job>_embeddings` and `<job>_updated_at` of the source. It does not keep
//! the text that it has embedded, so the text is made from the row by its own rules.

use serde::Deserialize;
use serde_json::Value;

use super::{check_key, check_model, nothing, plain_table, read, the_one};
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::import::{self, Counts, Request};
use crate::name::{quote_ident, quote_literal, split_qualified};

const PRODUCT: &str = "pg_vectorize";

/// A job of either form.
struct Job {
    model: String,
    key: String,
    columns: Vec<String>,
    update_time: Option<String>,
    is_in_source: bool,
    /// Whether it is one of the server, which puts the name of a column in front of its value.
    has_names: bool,
}

/// A row of `vectorize.job` of the extension.
#[derive(Deserialize)]
struct OfExtension {
    name: String,
    transformer: String,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    schema: String,
    #[serde(alias = "table")]
    relation: String,
    columns: Vec<String>,
    update_time_col: Option<String>,
    #[serde(default)]
    table_method: String,
    primary_key: String,
}

/// A row of `vectorize.job` of the server.
#[derive(Deserialize)]
struct OfServer {
    job_name: String,
    src_schema: String,
    src_table: String,
    src_columns: Vec<String>,
    primary_key: String,
    update_time_col: String,
    model: String,
}

/// Adopts the vectors of a job.
pub fn adopt(name: &str, job: Option<&str>) -> Result<Counts> {
    let (table, _) = import::find(name)?;
    let (job_name, job) = find(&table, job)?;
    check_model(PRODUCT, &table, Some(&job.model))?;
    check_key(PRODUCT, &table, std::slice::from_ref(&job.key))?;
    let query = query(&table, &job_name, &job)?;
    import::run(&Request { name, query: &query, has_reasons: true })
}

fn find(table: &VectorTable, wanted: Option<&str>) -> Result<(String, Job)> {
    let Some(jobs) = plain_table("vectorize", "job") else {
        return Err(nothing(PRODUCT, table, "There is no table vectorize.job.".to_string()));
    };
    let source = table.source_name.as_deref().and_then(split_qualified).unwrap_or_default();
    let rows: Vec<Value> = read(&format!("select pg_catalog.to_jsonb(j) from {jobs} j"), &[])?;
    let found = rows.into_iter().filter_map(parse).filter(|(of, _, _)| *of == source);
    let named = found.map(|(_, name, job)| (name.clone(), (name, job))).collect();
    the_one(PRODUCT, table, named, "job", wanted)
}

/// A job with its name, and schema and name of its source.
fn parse(row: Value) -> Option<((String, String), String, Job)> {
    if let Ok(row) = serde_json::from_value::<OfExtension>(row.clone()) {
        let params = row.params;
        let job = Job {
            model: row.transformer,
            key: params.primary_key,
            columns: params.columns,
            update_time: params.update_time_col,
            is_in_source: params.table_method == "append",
            has_names: false,
        };
        return Some(((params.schema, params.relation), row.name, job));
    }
    let row: OfServer = serde_json::from_value(row).ok()?;
    let job = Job {
        model: row.model,
        key: row.primary_key,
        columns: row.src_columns,
        update_time: Some(row.update_time_col),
        is_in_source: false,
        has_names: true,
    };
    Some(((row.src_schema, row.src_table), row.job_name, job))
}

/// The rows of a job, with their texts as it makes them. A row that was changed since its vector was made, or that waits
/// in the queue of the jobs, is skipped.
fn query(table: &VectorTable, name: &str, job: &Job) -> Result<String> {
    let source = table.source_name()?;
    let key = format!("s.{}", quote_ident(&job.key));
    let own = |suffix: &str| format!("s.{}", quote_ident(&format!("{name}_{suffix}")));
    let (from, embeddings, updated_at) = match job.is_in_source {
        true => (format!("{source} s"), own("embeddings"), own("updated_at")),
        false => {
            let store = format!("_embeddings_{name}");
            let Some(store) = plain_table("vectorize", &store) else {
                let detail = format!("There is no table vectorize.{store}.");
                return Err(nothing(PRODUCT, table, detail));
            };
            let same_row = table.key.equals("s", &[format!("e.{}", quote_ident(&job.key))]);
            let from = format!("{store} e join {source} s on {same_row}");
            (from, "e.embeddings".to_string(), "e.updated_at".to_string())
        }
    };
    let mut changed = Vec::new();
    if let Some(column) = &job.update_time {
        changed.push(format!("s.{} > {updated_at}", quote_ident(column)));
    }
    if let Some(queue) = plain_table("pgmq", "q_vectorize_jobs") {
        changed.push(format!(
            "{key}::text in (
                 select pg_catalog.jsonb_array_elements_text(q.message -> 'record_ids')
                   from {queue} q where q.message ->> 'job_name' = {})",
            quote_literal(name)
        ));
    }
    let reason = match changed.is_empty() {
        true => "null::text".to_string(),
        false => format!("case when {} then 'changed' end", changed.join(" or ")),
    };
    Ok(format!("select {key}, {}, {embeddings}, {reason} from {from}", text(job)))
}

/// The text of a row as a job makes it, but for white space at its ends.
fn text(job: &Job) -> String {
    let columns = job.columns.iter();
    match job.has_names {
        false => {
            let values: Vec<String> =
                columns.map(|column| format!("s.{}::text", quote_ident(column))).collect();
            values.join(" || ', ' || ")
        }
        true => {
            let values: Vec<String> = columns
                .map(|column| {
                    let name = quote_literal(&format!("{column}: "));
                    format!("{name} || coalesce(s.{}::text, '') || ' '", quote_ident(column))
                })
                .collect();
            values.join(" || ' ' || ")
        }
    }
}
