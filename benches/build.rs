//! The time to fill a vector table and to build its index, compared with COPY of the same rows and CREATE INDEX.
//!
//! 50,000 rows of about 350 bytes with vectors of 384 dimensions, from a provider of kind `test`, which answers at once, and whose
//! work is small because each text is one word. Plain SQL copies the same keys, vectors and texts into a table with a primary key and creates the same index, with the same
//! maintenance_work_mem and the same number of parallel workers, in the same run; wanted: >= 0.8 of its speed.
//! EMBEDD_BENCH_ROWS and EMBEDD_BENCH_DIMENSIONS change the size.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot go on says why"
)]

use std::time::Instant;

use postgres::Client;
use support::processes::processor_time;
use support::source::relation;
use support::{Cluster, LONG};

/// How often both are measured, in turns.
const ROUNDS: usize = 2;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let rows = number("EMBEDD_BENCH_ROWS", 50_000);
    let dimensions = number("EMBEDD_BENCH_DIMENSIONS", 384);
    let cluster = Cluster::builder()
        .set("maintenance_work_mem", "1GB")
        .set("shared_buffers", "512MB")
        .set("max_wal_size", "8GB")
        // pgvector logs the number of its parallel workers.
        .set("log_min_messages", "debug1")
        .start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            "select embedd.create_provider('fast', 'test');
             create table source (id bigint primary key, body text);
             insert into source
             select i, (select string_agg(md5((i * 11 + w)::text), '' order by w) from generate_series(1, 11) w)
               from generate_series(1, {rows}) i;
             analyze source; checkpoint"
        ))
        .unwrap();
    println!("{rows} rows of {dimensions} dimensions");
    for round in 1..=ROUNDS {
        let name = format!("round {round}");
        let mark = cluster.log_mark();
        let Filled { load, processor, index } = embedd(&cluster, &mut client, &name, dimensions);
        let workers = parallel_workers(&cluster, mark);
        let mark = cluster.log_mark();
        let (copy, plain) = plain(&cluster, &mut client, &name, dimensions);
        println!(
            "embedd: load {load:.1} s (processor of the worker {processor:.1} s), index {index:.1} s ({workers} parallel workers); COPY {copy:.1} s, CREATE INDEX {plain:.1} s ({} parallel workers)",
            parallel_workers(&cluster, mark)
        );
        println!(
            "load and index, of the speed of COPY and CREATE INDEX: {:.2}; the load alone: {:.2}; the index alone: {:.2}",
            (copy + plain) / (load + index),
            copy / load,
            plain / index
        );
    }
}

/// The seconds that embedd took.
struct Filled {
    load: f64,
    /// The processor time of the sync worker for the load.
    processor: f64,
    index: f64,
}

/// Creates a vector table and waits until it is synced.
fn embedd(cluster: &Cluster, client: &mut Client, name: &str, dimensions: usize) -> Filled {
    let worker = || processor_time(cluster.sync_worker("postgres")).unwrap().as_secs_f64();
    let before = worker();
    let begin = Instant::now();
    client
        .execute(
            "select embedd.create_vector_table($1, 'source', '[{\"name\": \"body\", \"role\": \"embedding\"}]',
                    embedding_provider => 'fast', embedding_dimensions => $2, start_backfill => true)",
            &[&name, &(dimensions as i32)],
        )
        .unwrap();
    let task = format!(
        "from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id where v.name = '{name}'"
    );
    let loaded = format!("select t.phase = 'index' {task}");
    cluster.wait_for("postgres", LONG * 20, "the rows to be loaded", &loaded);
    let load = begin.elapsed().as_secs_f64();
    let processor = worker() - before;
    let built = format!("select t.status = 'completed' {task}");
    cluster.wait_for("postgres", LONG * 20, "the index to be built", &built);
    Filled { load, processor, index: begin.elapsed().as_secs_f64() - load }
}

/// Copies the rows of a vector table and creates the same index, in a session; returns the seconds of each.
fn plain(cluster: &Cluster, client: &mut Client, name: &str, dimensions: usize) -> (f64, f64) {
    let file = cluster.data().join("rows");
    let (vectors, file) = (relation(client, name), file.display());
    client
        .batch_execute(&format!(
            "copy (select * from {vectors} order by pk_value) to '{file}' (format binary);
             select embedd.drop_vector_table('{name}');
             create table plain (pk_value text primary key, embedding vector({dimensions}), embedded_text text,
                                 metadata jsonb, row_hash text);
             checkpoint"
        ))
        .unwrap();
    let mut timed = |statement: &str| {
        let begin = Instant::now();
        client.batch_execute(statement).unwrap();
        begin.elapsed().as_secs_f64()
    };
    let copy = timed(&format!("copy plain from '{file}' (format binary)"));
    let index = timed("create index on plain using hnsw (embedding vector_cosine_ops)");
    client.batch_execute("drop table plain; checkpoint").unwrap();
    (copy, index)
}

/// The parallel workers of the last build since a place in the log.
fn parallel_workers(cluster: &Cluster, mark: usize) -> String {
    let log = cluster.log_since(mark);
    let said =
        log.rsplit_once(" parallel workers").and_then(|(said, _)| said.rsplit_once("using "));
    said.map_or("no".to_string(), |(_, number)| number.to_string())
}
