//! How soon a change is seen, and what a question costs beyond its SELECT.
//!
//! Both against the baseline of the same run, with a model so small that it answers at once. Promised: p50 from COMMIT to
//! visible vector <= 5 ms over the time of the two statements; query() of a known text <= 0.3 ms over the same SELECT
//! with a ready vector. A fast shutdown while a provider hangs, with rows and a question under way, takes no longer than
//! that of a server without embedd; promised: a second.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::{Duration, Instant};

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::{Cluster, LONG, Shutdown};

const INSERTS: i64 = 100;
const QUESTIONS: usize = 1_000;
const ROWS: i64 = 5_000;

fn main() {
    let cluster = Cluster::start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            r#"create table plain (id bigint primary key, body text);
               create table synced (id bigint primary key, body text);
               insert into synced select n, 'the body of row ' || n from generate_series(1, {ROWS}) n;
               select embedd.create_vector_table('synced', 'synced',
                   '[{{"name": "body", "role": "embedding"}}]', start_backfill => true);"#
        ))
        .unwrap();
    cluster.wait_for(
        "postgres",
        LONG,
        "the backfill to end",
        "select sync_status = 'synced' from embedd.vector_tables",
    );
    let vectors: String = client
        .query_one("select vector_table::regclass::text from embedd.vector_tables", &[])
        .unwrap()
        .get(0);
    visible(&mut client, &vectors);
    question(&mut client, &vectors);
    shutdown();
}

fn visible(client: &mut Client, vectors: &str) {
    let look = client
        .prepare(&format!(
            "select count(*) from {vectors} where pk_value = $1 and embedding is not null"
        ))
        .unwrap();
    let plain =
        client.prepare("insert into plain values ($1, 'a new text ' || $1::bigint)").unwrap();
    let synced =
        client.prepare("insert into synced values ($1, 'a new text ' || $1::bigint)").unwrap();
    let (mut statements, mut seen) = (Vec::new(), Vec::new());
    for n in ROWS + 1..=ROWS + INSERTS {
        let key = n.to_string();
        let begin = Instant::now();
        client.execute(&plain, &[&n]).unwrap();
        client.query_one(&look, &[&key]).unwrap();
        statements.push(begin.elapsed());
        let begin = Instant::now();
        client.execute(&synced, &[&n]).unwrap();
        while client.query_one(&look, &[&key]).unwrap().get::<_, i64>(0) == 0 {
            assert!(begin.elapsed() < LONG, "the vector of {key} does not come");
        }
        seen.push(begin.elapsed());
    }
    let (statements, seen) = (median(&mut statements), median(&mut seen));
    println!(
        "COMMIT to visible vector: p50 {} ms, the two statements {} ms, over them {} ms",
        ms(seen),
        ms(statements),
        ms(seen.saturating_sub(statements))
    );
}

fn question(client: &mut Client, vectors: &str) {
    let vector: String = client
        .query_one("select embedd.embed('synced', 'a question that is asked often')::text", &[])
        .unwrap()
        .get(0);
    let select = format!(
        "select pk_value, 1 - (embedding <=> '{vector}') as score, metadata, embedded_text from {vectors}
          order by embedding <=> '{vector}' limit 10"
    );
    let query = "select * from embedd.query('synced', 'a question that is asked often')";
    client
        .batch_execute("set hnsw.iterative_scan = strict_order; set hnsw.ef_search = 40")
        .unwrap();
    let (mut selects, mut queries) = (Vec::new(), Vec::new());
    for _ in 0..QUESTIONS {
        for (statement, times) in [(select.as_str(), &mut selects), (query, &mut queries)] {
            let begin = Instant::now();
            let rows = client.simple_query(statement).unwrap();
            times.push(begin.elapsed());
            assert!(rows.len() > 10);
        }
    }
    let (selects, queries) = (median(&mut selects), median(&mut queries));
    println!(
        "query() of a known text: p50 {} ms, the same SELECT with a ready vector {} ms, over it {} ms",
        ms(queries),
        ms(selects),
        ms(queries.saturating_sub(selects))
    );
}

/// How long a fast shutdown takes while a provider hangs.
fn shutdown() {
    let plain = Cluster::builder().not_preloaded().start();
    plain.connect("postgres").batch_execute("checkpoint").unwrap();
    let plain = stopped(&plain);
    let fake = FakeProvider::start(Dialect::OpenAiCompatible);
    fake.script(Rule::always().respond(Respond::never()));
    let cluster = Cluster::start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .execute(
            "select embedd.create_provider('hanging', 'openai_compatible', default_model => 'any', base_url => $1,
                    options => '{\"timeout\": \"10min\"}')",
            &[&fake.base_url()],
        )
        .unwrap();
    client
        .batch_execute(
            r#"create table t (id bigint primary key, body text);
               insert into t select n, 'row ' || n from generate_series(1, 1000) n;
               select embedd.create_vector_table('t', 't', '[{"name": "body", "role": "embedding"}]',
                   embedding_provider => 'hanging', embedding_dimensions => 8, start_backfill => true);
               checkpoint"#,
        )
        .unwrap();
    fake.wait_for_requests(2, LONG);
    let before = fake.request_count();
    let asking = std::thread::spawn(move || {
        let _ = client.execute("select * from embedd.query('t', 'anything')", &[]);
    });
    fake.wait_for_requests(before + 1, LONG);
    let hanging = stopped(&cluster);
    asking.join().unwrap();
    println!(
        "fast shutdown while a provider hangs: {} ms, of a server without embedd {} ms",
        ms(hanging),
        ms(plain)
    );
}

/// Stops a cluster and tells how long that took.
fn stopped(cluster: &Cluster) -> Duration {
    let begin = Instant::now();
    cluster.stop(Shutdown::Fast);
    begin.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}
