//! The speed of a backfill through a provider, compared with the provider's limit and with the database's own.
//!
//! 20,000 rows of about 50 words. At 50 ms of latency the limit is texts a request x requests in flight / latency, or
//! the database's own; promised: >= 0.85 of it. At 0 ms only the database's own limit is left: plain SQL inserts and
//! indexes the same rows and vectors in the same run; promised: >= 0.70. The memory of worker and embedder is printed
//! over 200,000 rows; promised: flat.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot go on says why"
)]

use std::time::{Duration, Instant};

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider};
use support::processes::{EMBEDDER, SYNC_WORKER, own_megabytes};
use support::source::relation;
use support::{Cluster, LONG};

const ROWS: usize = 20_000;
const MANY_ROWS: usize = 200_000;
/// Numbers in a vector.
const DIMENSIONS: usize = 384;
const KEY: &str = "sk-bench-0123456789";

/// One setting of a provider.
struct Case {
    name: &'static str,
    latency: Duration,
    texts: usize,
    in_flight: usize,
}

fn main() {
    let cluster = Cluster::builder()
        .set("maintenance_work_mem", "256MB")
        .set("shared_buffers", "256MB")
        .start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            "create table source (id bigint primary key, body text);
             insert into source
             select i, (select string_agg(md5((i * 50 + w)::text), ' ' order by w)
                          from generate_series(1, 1) one, generate_series(1, 50) w)
               from generate_series(1, {ROWS}) i;
             -- About 50 words of six letters each.
             update source set body = regexp_replace(body, '([0-9a-f]{{6}})[0-9a-f]*', '\\1', 'g');
             analyze source"
        ))
        .unwrap();
    let no_latency = Case { name: "at0", latency: Duration::ZERO, texts: 256, in_flight: 8 };
    let (_, whole) = backfill(&cluster, &mut client, &no_latency);
    let plain = plain_limits(&mut client, "at0");
    println!("provider at 0 ms: {:.0} rows/s", per_second(whole));
    println!(
        "plain SQL, insert and then create index: {:.0} rows/s",
        per_second(plain.insert + plain.index)
    );
    println!(
        "plain SQL, insert into an indexed table: {:.0} rows/s",
        per_second(plain.insert_indexed)
    );
    let ratio = (plain.insert + plain.index) / whole;
    println!("provider at 0 ms, of the database's own limit (insert, then index): {ratio:.2}");
    for case in [
        Case { name: "slow", latency: Duration::from_millis(50), texts: 16, in_flight: 2 },
        Case { name: "middling", latency: Duration::from_millis(50), texts: 32, in_flight: 4 },
        Case { name: "usual", latency: Duration::from_millis(50), texts: 128, in_flight: 8 },
    ] {
        let allowed = (case.texts * case.in_flight) as f64 / case.latency.as_secs_f64();
        let (load, whole) = backfill(&cluster, &mut client, &case);
        // The lower bound: the texts at the provider's rate, or their insert, and then the index.
        let least = (ROWS as f64 / allowed).max(plain.insert);
        println!(
            "provider at 50 ms, {} texts x {} in flight = {allowed:.0} texts/s: load {:.0} rows/s, {:.2} of what is allowed; with the index {:.2}",
            case.texts,
            case.in_flight,
            per_second(load),
            least / load,
            (least + plain.index) / whole,
        );
    }
    memory(&cluster, &mut client);
}

fn per_second(seconds: f64) -> f64 {
    ROWS as f64 / seconds
}

/// Creates a vector table and waits until its backfill is done; returns the seconds until the index, and until the
/// end.
fn backfill(cluster: &Cluster, client: &mut Client, case: &Case) -> (f64, f64) {
    let fake = FakeProvider::builder(Dialect::OpenAi)
        .key(KEY)
        .dimensions(DIMENSIONS)
        .latency(case.latency)
        .record(false)
        .start();
    let begin = start(client, case, &fake.base_url(), "source");
    let sql = format!(
        "select t.phase = 'index' or t.status = 'completed' from embedd.tasks t
           join embedd.vector_tables v on v.id = t.target_id where v.name = '{}'",
        case.name
    );
    cluster.wait_for("postgres", LONG * 20, "the rows to be loaded", &sql);
    let loaded = begin.elapsed().as_secs_f64();
    wait_synced(cluster, case.name);
    let whole = begin.elapsed().as_secs_f64();
    eprintln!("{}: {} requests for {} texts", case.name, fake.request_count(), fake.text_count());
    client.execute("select embedd.pause_sync($1)", &[&case.name]).unwrap();
    (loaded, whole)
}

fn start(client: &mut Client, case: &Case, url: &str, source: &str) -> Instant {
    let options =
        format!(r#"{{"texts_per_request": {}, "max_in_flight": {}}}"#, case.texts, case.in_flight);
    client
        .execute(
            "select embedd.create_provider($1, 'openai', api_key => $2, base_url => $3, options => $4::text::jsonb)",
            &[&case.name, &KEY, &url, &options],
        )
        .unwrap();
    let begin = Instant::now();
    client
        .execute(
            "select embedd.create_vector_table($1, $2::text::regclass, '[{\"name\": \"body\", \"role\": \"embedding\"}]',
                    embedding_provider => $1, embedding_model => 'text-embedding-3-small', embedding_dimensions => $3,
                    start_backfill => true)",
            &[&case.name, &source, &(DIMENSIONS as i32)],
        )
        .unwrap();
    begin
}

fn wait_synced(cluster: &Cluster, name: &str) {
    let sql =
        format!("select sync_status = 'synced' from embedd.vector_tables where name = '{name}'");
    cluster.wait_for("postgres", LONG * 20, "the backfill to be done", &sql);
}

/// The seconds of plain SQL for the same rows.
struct Plain {
    insert: f64,
    index: f64,
    insert_indexed: f64,
}

/// Measures plain SQL: the index after the load, and before it.
fn plain_limits(client: &mut Client, name: &str) -> Plain {
    let from = relation(client, name);
    // As embedd builds it with a pgvector older than 0.8.2 (CVE-2026-3172).
    client.batch_execute("set max_parallel_maintenance_workers = 0").unwrap();
    let mut timed = |statement: String| {
        let begin = Instant::now();
        client.batch_execute(&statement).unwrap();
        begin.elapsed().as_secs_f64()
    };
    let table = |name: &str| {
        format!(
            "create table {name} (pk_value text primary key, embedding vector({DIMENSIONS}), embedded_text text,
                                  metadata jsonb, row_hash text)"
        )
    };
    let index =
        |name: &str| format!("create index on {name} using hnsw (embedding vector_cosine_ops)");
    let insert = |name: &str| format!("insert into {name} select * from {from} order by pk_value");
    timed(table("after"));
    timed(table("before"));
    timed(index("before"));
    Plain {
        insert: timed(insert("after")),
        index: timed(index("after")),
        insert_indexed: timed(insert("before")),
    }
}

/// Prints the memory of worker and embedder during the sync of many rows.
fn memory(cluster: &Cluster, client: &mut Client) {
    client
        .batch_execute(&format!(
            "create table many (id bigint primary key, body text);
             insert into many select i + n * {ROWS}, s.body || n
               from generate_series(1, {ROWS}) i join source s on s.id = i, generate_series(0, {}) n",
            MANY_ROWS / ROWS - 1
        ))
        .unwrap();
    let case = Case { name: "many", latency: Duration::ZERO, texts: 256, in_flight: 8 };
    let fake = FakeProvider::builder(Dialect::OpenAi)
        .key(KEY)
        .dimensions(DIMENSIONS)
        .record(false)
        .start();
    start(client, &case, &fake.base_url(), "many");
    let (worker, embedder) = (cluster.sync_worker("postgres"), cluster.pid(EMBEDDER));
    let mut at = Vec::new();
    for share in [1, 3, 5, 7, 9] {
        let rows = MANY_ROWS * share / 10;
        cluster.wait_until(LONG * 20, "rows to go through", || fake.text_count() >= rows as u64);
        at.push(format!(
            "{rows} rows: worker {}, embedder {}",
            own_megabytes(worker).unwrap(),
            own_megabytes(embedder).unwrap()
        ));
    }
    println!("{SYNC_WORKER} and {EMBEDDER}, memory of their own in MB: {}", at.join("; "));
}
