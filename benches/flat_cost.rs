//! Whether the cost of one change grows: with the keys that wait, with the changes that went before, and while another
//! session holds an old snapshot and an open transaction.
//!
//! Each figure is a ratio to the first round of the same run: the time from a thousand small transactions until their
//! changes are done, and the time of one call of sync_status(). Promised: about 1, whatever came before.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use postgres::Client;
use support::{Cluster, LONG};

/// Transactions of one round, each with one row.
const CHANGES: usize = 1000;
/// Rounds of which the median counts.
const ROUNDS: usize = 5;
/// Keys that wait, or that were done before.
const MANY: i64 = 1_000_000;

fn main() {
    let cluster =
        Cluster::builder().set("max_wal_size", "4GB").set("embedd.max_sync_workers", "1").start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            r#"create table small (id bigint primary key, body text, price integer);
               create table waiting (id bigint primary key, body text);
               create table flow (id bigint primary key, body text);
               select embedd.create_provider('nobody', 'openai_compatible', default_model => 'm', base_url => 'http://127.0.0.1:9/v1');
               select embedd.create_vector_table('small', 'small', '[{"name": "body", "role": "embedding"},
                   {"name": "price", "role": "metadata"}]', start_backfill => true);
               select embedd.create_vector_table('flow', 'flow', '[{"name": "body", "role": "embedding"}]', start_backfill => true);
               select embedd.create_vector_table('waiting', 'waiting', '[{"name": "body", "role": "embedding"}]',
                   embedding_provider => 'nobody', embedding_dimensions => 8, start_backfill => true);
               insert into small select n, '', 0 from generate_series(1, 1000) n;
               set synchronous_commit = off;"#,
        )
        .unwrap();
    let mut bench = Bench { cluster, client, first: None };
    bench.drained(&["small", "flow", "waiting"]);
    bench.measure("nothing else");
    bench
        .client
        .batch_execute("insert into waiting select n, 'text ' || n from generate_series(1, 1000) n")
        .unwrap();
    bench.measure("1,000 keys wait for a dead provider");
    bench
        .client
        .batch_execute(&format!(
            "insert into waiting select n, 'text ' || n from generate_series(1001, {MANY}) n"
        ))
        .unwrap();
    bench.measure("1,000,000 keys wait for a dead provider");
    bench.process(MANY);
    bench.measure("after 1,000,000 changes done");
    let mut old = bench.cluster.connect("postgres");
    old.batch_execute("begin isolation level repeatable read; create table of_the_old (n integer); select count(*) from small")
        .unwrap();
    bench.measure("another session has begun a transaction");
    bench.process(MANY / 4);
    for _ in 0..20 {
        bench.changes();
    }
    bench.measure("the same transaction, 270,000 changes later");
    old.batch_execute("commit").unwrap();
}

struct Bench {
    cluster: Cluster,
    client: Client,
    first: Option<(Duration, Duration)>,
}

impl Bench {
    /// Waits until nothing of these tables is left to be done.
    fn drained(&self, tables: &[&str]) {
        for table in tables {
            let sql = format!(
                "select rows_pending = 0 and sync_status = 'synced' from embedd.sync_status('{table}')"
            );
            self.cluster.wait_for("postgres", LONG * 10, "the changes to be done", &sql);
        }
    }

    /// Brings so many changes through, in transactions of some thousand rows.
    fn process(&mut self, changes: i64) {
        let step = 20_000;
        for n in 0..changes / step {
            let sql = format!(
                "insert into flow select n, '' from generate_series({0}, {0} + {step} - 1) n on conflict (id) do update set body = null",
                1 + (n % 5) * step
            );
            self.client.batch_execute(&sql).unwrap();
        }
        self.drained(&["flow"]);
    }

    /// A thousand small transactions, until they are done.
    fn changes(&mut self) -> Duration {
        let begin = Instant::now();
        for n in 0..CHANGES {
            let sql = format!("update small set price = price + 1 where id = {}", n + 1);
            self.client.batch_execute(&sql).unwrap();
        }
        // Changes of one table are done in their order; to look at the queue would itself become slower.
        let done = format!(
            "select (v.metadata ->> 'price')::integer = s.price from {} v join small s on s.id::text = v.pk_value where v.pk_value = '{CHANGES}' and s.id = {CHANGES}",
            support::source::relation(&mut self.client, "small")
        );
        while !self.client.query_one(&done, &[]).unwrap().get::<_, bool>(0) {
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }

    fn status(&mut self) -> Duration {
        let begin = Instant::now();
        for table in ["small", "waiting", "flow"] {
            self.client.query_one("select * from embedd.sync_status($1)", &[&table]).unwrap();
        }
        begin.elapsed() / 3
    }

    fn measure(&mut self, what: &str) {
        let mut changes: Vec<Duration> = (0..ROUNDS).map(|_| self.changes()).collect();
        changes.sort();
        let mut status: Vec<Duration> = (0..ROUNDS).map(|_| self.status()).collect();
        status.sort();
        let (change, status) = (changes[ROUNDS / 2], status[ROUNDS / 2]);
        let (first_change, first_status) = *self.first.get_or_insert((change, status));
        println!(
            "{what}: {:.2} of the first round's time for {CHANGES} changes ({:.0} ms), sync_status {:.2} ms ({:.2} of the first)",
            change.as_secs_f64() / first_change.as_secs_f64(),
            change.as_secs_f64() * 1e3,
            status.as_secs_f64() * 1e3,
            status.as_secs_f64() / first_status.as_secs_f64(),
        );
    }
}
