//! The cost of frequently changing metadata, of a source with a thousand partitions, and of rows of many megabytes.
//!
//! Promised: 5,000 counters, updated ten times at 2 s a round, leave table and indexes at most 1.5 times their size;
//! the load of a thousand partitions has at least half the speed of a single table, and verify() takes a bounded
//! number of locks; with rows of 8 MB and more no process has over 600 MB of private memory.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;
use support::processes::own_megabytes;
use support::{Cluster, LONG};

const COUNTERS: i64 = 5_000;
const ROUNDS: usize = 10;
const PARTITIONS: i64 = 1_000;
const ROWS: i64 = 20_000;
/// Megabytes of a row, and the number of such rows; rows of more than 16 MB are not read.
const LARGE: [(i64, i64); 4] = [(8, 60), (15, 20), (30, 6), (120, 3)];

fn main() {
    counters();
    partitions();
    large_rows();
}

/// Metadata that changes in each row, repeatedly.
fn counters() {
    let cluster = Cluster::builder().set("autovacuum_naptime", "1s").start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            r#"create table items (id int primary key, body text, views int default 0);
               insert into items select n, 'text number ' || n from generate_series(1, {COUNTERS}) n;
               select embedd.create_vector_table('items', 'items',
                   '[{{"name": "body", "role": "embedding"}}, {{"name": "views", "role": "metadata"}}]', start_backfill => true);"#
        ))
        .unwrap();
    synced(&cluster, "items");
    let vectors: String = client
        .query_one("select vector_table::regclass::text from embedd.vector_tables", &[])
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "create table plain (like {vectors} including all); insert into plain select * from {vectors};
             drop index plain_embedding_idx"
        ))
        .unwrap();
    let before = sizes(&mut client, &vectors);
    let (mut rounds, mut plain) = (Vec::new(), Vec::new());
    for n in 1..=ROUNDS {
        let begin = Instant::now();
        client.batch_execute("update items set views = views + 1").unwrap();
        synced(&cluster, "items");
        rounds.push(begin.elapsed());
        let begin = Instant::now();
        client
            .batch_execute(&format!("update plain set metadata = metadata || '{{\"views\": {n}}}'"))
            .unwrap();
        plain.push(begin.elapsed());
    }
    let after = sizes(&mut client, &vectors);
    let hot: f64 = client
        .query_one(
            "select n_tup_hot_upd::float8 / nullif(n_tup_upd, 0) from pg_stat_user_tables where relid = $1::text::regclass",
            &[&vectors],
        )
        .unwrap()
        .get::<_, Option<f64>>(0)
        .unwrap_or_default();
    println!(
        "{COUNTERS} counters {ROUNDS} times: {:.2} s a round (UPDATE without hnsw {:.2} s), table {:.2} times, indexes {:.2} times, HOT {:.2}",
        mean(&rounds),
        mean(&plain),
        after.0 as f64 / before.0 as f64,
        after.1 as f64 / before.1 as f64,
        hot
    );
}

/// Many partitions, and the same rows in one table.
fn partitions() {
    let cluster = Cluster::builder().set("max_locks_per_transaction", "256").start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            "create table parts (id bigint, day int, body text, primary key (id, day)) partition by list (day);
             create table one (id bigint, day int, body text, primary key (id, day));
             do $$ begin for n in 0..{PARTITIONS} - 1 loop execute format('create table parts_%s partition of parts for values in (%s)', n, n); end loop; end $$;
             insert into parts select n, n % {PARTITIONS}, 'event ' || n from generate_series(1, {ROWS}) n;
             insert into one select * from parts;
             analyze parts; analyze one"
        ))
        .unwrap();
    let mut took = Vec::new();
    for name in ["one", "parts"] {
        let begin = Instant::now();
        client
            .batch_execute(&format!(
                r#"select embedd.create_vector_table('{name}', '{name}', '[{{"name": "body", "role": "embedding"}}]', start_backfill => true)"#
            ))
            .unwrap();
        synced(&cluster, name);
        took.push(begin.elapsed());
        let vectors: String = client
            .query_one(
                "select vector_table::regclass::text from embedd.vector_tables where name = $1",
                &[&name],
            )
            .unwrap()
            .get(0);
        let mut seen = Vec::new();
        for n in 1..=10 {
            let begin = Instant::now();
            client
                .batch_execute(&format!(
                    "update {name} set body = 'v{n}' where id = 77 and day = 77"
                ))
                .unwrap();
            let look =
                format!("select embedded_text = 'v{n}' from {vectors} where pk_value = '[77, 77]'");
            while !client.query_one(&look, &[]).unwrap().get::<_, bool>(0) {
                assert!(begin.elapsed() < LONG, "the change is not seen");
            }
            seen.push(begin.elapsed());
        }
        seen.sort();
        let begin = Instant::now();
        client.query(&format!("select * from embedd.verify('{name}')"), &[]).unwrap();
        println!(
            "{name}: load {:.1} s, a change visible after {:.1} ms (median of 10), verify() {:.2} s",
            took[took.len() - 1].as_secs_f64(),
            seen[5].as_secs_f64() * 1000.0,
            begin.elapsed().as_secs_f64()
        );
    }
    println!(
        "load of {PARTITIONS} partitions: {:.2} times that of one table",
        took[1].as_secs_f64() / took[0].as_secs_f64()
    );
}

/// Rows of many megabytes, loaded, changed and compared.
fn large_rows() {
    let cluster = Cluster::builder().start();
    cluster.create_extension("postgres");
    let is_over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| largest_processes(&cluster, &is_over));
        let failed = write_large_rows(&cluster);
        is_over.store(true, Ordering::Relaxed);
        println!("rows of {LARGE:?} (megabytes, rows): {failed} in failed_rows");
        watch.join().unwrap()
    });
    for (process, megabytes) in most {
        println!("  {process}: at most {megabytes} MB of its own");
    }
}

/// Writes the rows and returns how many end in failed_rows.
fn write_large_rows(cluster: &Cluster) -> i64 {
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            "create table large (id serial primary key, body text, note text);
             alter table large alter body set storage external, alter note set storage external",
        )
        .unwrap();
    for (megabytes, rows) in LARGE {
        // A quarter of it is metadata, and some of it needs escapes in JSON.
        client
            .batch_execute(&format!(
                "insert into large (body, note)
                 select repeat(t, {megabytes} * 24576), repeat(t, {megabytes} * 8192) from generate_series(1, {rows}) n,
                      translate(md5(n::text), '01', '\"\\') t"
            ))
            .unwrap();
    }
    let begin = Instant::now();
    client
        .batch_execute(
            r#"select embedd.create_vector_table('large', 'large',
                   '[{"name": "body", "role": "embedding"}, {"name": "note", "role": "metadata"}]', start_backfill => true)"#,
        )
        .unwrap();
    synced(cluster, "large");
    println!("load of large rows: {:.1} s", begin.elapsed().as_secs_f64());
    client
        .batch_execute(
            r#"select embedd.create_vector_table('compared', 'large',
                   '[{"name": "body", "role": "embedding"}, {"name": "note", "role": "metadata"}]',
                   sync_mode => 'batch', batch_interval => '1 day', start_backfill => true)"#,
        )
        .unwrap();
    synced(cluster, "compared");
    client.batch_execute("update large set body = 'x' || body").unwrap();
    synced(cluster, "large");
    client.query("select * from embedd.verify('large')", &[]).unwrap();
    client.query_one("select embedd.reconcile('large')", &[]).unwrap();
    synced(cluster, "large");
    let failed = "select count(*) from embedd.failed_rows";
    client.query_one(failed, &[]).unwrap().get(0)
}

/// The largest private memory observed for each process of a cluster, by name, until stopped.
fn largest_processes(cluster: &Cluster, is_over: &AtomicBool) -> BTreeMap<String, u64> {
    let mut most = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        for (pid, name) in cluster.processes() {
            let megabytes = own_megabytes(pid).unwrap_or(0);
            // The title of a session has its port, and then its statement.
            let title = name.split_whitespace().filter(|word| !word.contains('('));
            let seen = most.entry(title.collect::<Vec<_>>().join(" ")).or_insert(0);
            *seen = megabytes.max(*seen);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    most.retain(|_, megabytes| *megabytes >= 20);
    most
}

fn synced(cluster: &Cluster, name: &str) {
    let done = format!(
        "select sync_status = 'synced' and rows_pending = 0 from embedd.sync_status('{name}')"
    );
    cluster.wait_for("postgres", LONG * 4, "the sync", &done);
}

/// Bytes of a table and of its indexes.
fn sizes(client: &mut Client, table: &str) -> (i64, i64) {
    let row = client
        .query_one(
            "select pg_table_size($1::text::regclass), pg_indexes_size($1::text::regclass)",
            &[&table],
        )
        .unwrap();
    (row.get(0), row.get(1))
}

fn mean(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64
}
