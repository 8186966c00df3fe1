//! What a second and a fourth sync worker bring to one vector table: changes a second into an indexed table of 100,000
//! rows, with a provider at 0 ms.
//!
//! The ratio to one worker of the same run decides whether several workers share the keys of a table
//! (docs/decisions): they have to bring at least 1.5 times for two.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::Instant;

use support::fake_provider::{Dialect, FakeProvider};
use support::{Cluster, LONG};

const ROWS: usize = 100_000;
/// Rows changed in a round.
const CHANGED: usize = 5_000;
const ROUNDS: usize = 3;
/// Numbers in a vector.
const DIMENSIONS: usize = 384;
const KEY: &str = "sk-bench-0123456789";

fn main() {
    let cluster = Cluster::builder()
        .set("maintenance_work_mem", "512MB")
        .set("shared_buffers", "512MB")
        .start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    let fake = FakeProvider::builder(Dialect::OpenAi)
        .key(KEY)
        .dimensions(DIMENSIONS)
        .record(false)
        .start();
    client
        .batch_execute(&format!(
            "create table source (id bigint primary key, body text);
             insert into source select i, 'row ' || i from generate_series(1, {ROWS}) i;
             select embedd.create_provider('fake', 'openai', api_key => '{KEY}', base_url => '{}');
             select embedd.create_vector_table('source', 'source', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'fake', embedding_model => 'text-embedding-3-small', embedding_dimensions => {DIMENSIONS}, start_backfill => true)",
            fake.base_url()
        ))
        .unwrap();
    cluster.wait_for(
        "postgres",
        LONG * 20,
        "the backfill to be done",
        "select sync_status = 'synced' from embedd.vector_tables",
    );
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        for workers in [1, 2, 4] {
            cluster.configure(&[("embedd.workers_per_database", workers.to_string())]);
            cluster.reload();
            cluster.wait_for(
                "postgres",
                LONG,
                "the workers",
                &format!("select count(*) = {workers} from pg_stat_activity where backend_type = 'embedd sync worker' and datname = 'postgres'"),
            );
            let begin = Instant::now();
            client
                .batch_execute(&format!(
                    "update source set body = 'round {round} {workers} ' || id where id <= {CHANGED}"
                ))
                .unwrap();
            cluster.wait_for(
                "postgres",
                LONG * 20,
                "the queue to be empty",
                "select not exists (select from embedd.queue)",
            );
            rates.push((workers, CHANGED as f64 / begin.elapsed().as_secs_f64()));
        }
    }
    let best = |workers: i32| {
        rates.iter().filter(|(w, _)| *w == workers).map(|(_, rate)| *rate).fold(0.0, f64::max)
    };
    println!(
        "{DIMENSIONS} dimensions: 1 worker {:.0} rows/s; 2 workers {:.2} times, 4 workers {:.2} times (best of {ROUNDS} rounds)",
        best(1),
        best(2) / best(1),
        best(4) / best(1),
    );
    println!("  all rounds: {rates:.0?}");
}
