//! How soon a change is visible, and the cost of a query beyond its SELECT.
//!
//! Both against the baseline of the same run, with a model so small that it answers at once. Promised: p50 from COMMIT to
//! visible vector <= 5 ms over the time of the two statements; query() of a known text <= 0.3 ms over the same SELECT
//! with a ready vector. A fast shutdown while a provider hangs, with rows and a question in flight, takes no longer
//! than that of a server without embedd; promised: a second.
//!
//! Also the latency of a question while a backfill of 20,000 texts saturates the local model, or uses up the rate
//! limit of a provider, compared with an idle one. Promised: 1.5 times at p50, 2 times at p99, for at most 5 % of the
//! backfill. This needs the local model: `make model`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::{Duration, Instant};

use postgres::Client;
use support::binaries::pg_config_says;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::{Cluster, LONG, Shutdown};

const INSERTS: i64 = 100;
const QUESTIONS: usize = 1_000;
const ROWS: i64 = 5_000;
const BACKFILL: i64 = 20_000;

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
    drop(client);
    drop(cluster);
    shutdown();
    overtaking();
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
        .batch_execute("set hnsw.iterative_scan = relaxed_order; set hnsw.ef_search = 160")
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

/// The latency of a question during a backfill: of the local model, and of a rate-limited provider.
fn overtaking() {
    let model = pg_config_says("--sharedir").join("embedd/all-MiniLM-L6-v2");
    let model = model.to_str().unwrap();
    let cluster = Cluster::builder().set("embedd.local_model_path", model).start();
    cluster.create_extension("postgres");
    let pace = Duration::from_millis(250);
    let beside = Beside { provider: "'local'", pace, window: Duration::from_secs(10), windows: 24 };
    beside.measure(&cluster, "local model");
    for budget in [r#""requests_per_minute": 300"#, r#""tokens_per_minute": 60000"#] {
        let fake = FakeProvider::start(Dialect::OpenAiCompatible);
        let cluster = Cluster::start();
        cluster.create_extension("postgres");
        let options = format!(r#"{{"texts_per_request": 10, {budget}}}"#);
        cluster
            .connect("postgres")
            .execute(
                "select embedd.create_provider('slow', 'openai_compatible', default_model => 'any', base_url => $1,
                        options => $2::text::jsonb)",
                &[&fake.base_url(), &options],
            )
            .unwrap();
        let pace = Duration::from_millis(500);
        let provider = "'slow', embedding_dimensions => 8";
        let beside = Beside { provider, pace, window: Duration::from_secs(20), windows: 4 };
        beside.measure(&cluster, &format!("provider with {budget}"));
    }
}

/// Questions during a backfill.
struct Beside {
    /// The provider, as an argument in SQL.
    provider: &'static str,
    /// The interval between questions.
    pace: Duration,
    /// Windows with and without questions alternate during the backfill.
    window: Duration,
    windows: usize,
}

impl Beside {
    fn measure(&self, cluster: &Cluster, what: &str) {
        let mut client = cluster.connect("postgres");
        let provider = self.provider;
        client
            .batch_execute(&format!(
                r#"create table small (id bigint primary key, body text);
                   create table large (id bigint primary key, body text);
                   insert into large select n, n || repeat(' a few words of text', 6) from generate_series(1, {BACKFILL}) n;
                   select embedd.create_vector_table(name, name::regclass, '[{{"name": "body", "role": "embedding"}}]',
                       embedding_provider => {provider}) from unnest(array['small', 'large']) name"#
            ))
            .unwrap();
        let count = {
            let sql =
                "select 'select count(*) from ' || vector_table::regclass from embedd.vector_tables
                        where name = 'large'";
            client.query_one(sql, &[]).unwrap().get::<_, String>(0)
        };
        let mut asked = 0;
        self.ask(&mut client, &mut asked);
        let mut idle = self.ask(&mut client, &mut asked);
        client.batch_execute("select embedd.backfill('large')").unwrap();
        let embedded =
            |client: &mut Client| -> i64 { client.query_one(&count, &[]).unwrap().get(0) };
        cluster.wait_until(LONG, "the backfill to begin", || embedded(&mut client) > 0);
        let (mut busy, mut rows, mut times) = (Vec::new(), [0; 2], [Duration::ZERO; 2]);
        for window in 0..self.windows {
            let (begin, before) = (Instant::now(), embedded(&mut client));
            match window % 2 {
                0 => std::thread::sleep(self.window),
                _ => busy.extend(self.ask(&mut client, &mut asked)),
            }
            let after = embedded(&mut client);
            if after == BACKFILL {
                break;
            }
            rows[window % 2] += after - before;
            times[window % 2] += begin.elapsed();
        }
        let [alone, beside] = [0, 1].map(|kind| rows[kind] as f64 / times[kind].as_secs_f64());
        let at = |times: &mut Vec<Duration>, part: usize| {
            times.sort();
            times[times.len() * part / 100]
        };
        let ratio = |busy: Duration, idle: Duration| busy.as_secs_f64() / idle.as_secs_f64();
        let (idle, busy) =
            ((at(&mut idle, 50), at(&mut idle, 99)), (at(&mut busy, 50), at(&mut busy, 99)));
        println!(
            "question beside a backfill, {what}: p50 {} ms, idle {} ms, ratio {:.2}; p99 {} ms, idle {} ms, ratio {:.2}",
            ms(busy.0),
            ms(idle.0),
            ratio(busy.0, idle.0),
            ms(busy.1),
            ms(idle.1),
            ratio(busy.1, idle.1)
        );
        println!(
            "backfill beside questions, {what}: {beside:.1} rows a second, alone {alone:.1}, ratio {:.3}",
            beside / alone
        );
    }

    /// Asks new questions at this interval for one window.
    fn ask(&self, client: &mut Client, asked: &mut u64) -> Vec<Duration> {
        let (begin, mut times) = (Instant::now(), Vec::new());
        while begin.elapsed() < self.window {
            *asked += 1;
            let question = format!("what do the few words of the text number {asked} say");
            let asking = Instant::now();
            client.query_one("select embedd.embed('small', $1)::text", &[&question]).unwrap();
            times.push(asking.elapsed());
            std::thread::sleep(self.pace.saturating_sub(asking.elapsed()));
        }
        times
    }
}

/// Stops a cluster and returns how long that took.
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
