//! Whether the cost of a change grows: with waiting keys, with earlier changes, and while another session holds an old
//! snapshot and an open transaction.
//!
//! Each figure is a ratio to the first round of the same run: the time of a thousand small transactions until their
//! changes are synced, over that of the same transactions on a table without sync (whose dead rows accumulate too
//! while an old snapshot exists); the processor time of the sync worker for them; and the time of one call of
//! sync_status(). Promised: about 1, whatever came before.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::{Duration, Instant};

use postgres::Client;
use support::processes::processor_time;
use support::{Cluster, LONG};

/// Transactions in a round, with one row each.
const CHANGES: usize = 1000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 9;
/// Waiting keys, or keys processed before.
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
    client
        .batch_execute(
            "create table plain (like small including all); insert into plain select * from small",
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
        bench.update("plain");
        bench.changes();
    }
    bench.measure("the same transaction, 270,000 changes later");
    old.batch_execute("commit").unwrap();
}

/// Medians of some rounds.
#[derive(Clone, Copy)]
struct Figures {
    /// The time of a thousand changes until they are synced, over that of a thousand on a table without sync.
    ratio: f64,
    changes: Duration,
    worker: Duration,
    status: Duration,
}

struct Bench {
    cluster: Cluster,
    client: Client,
    first: Option<Figures>,
}

impl Bench {
    /// Waits until no work is left for these tables.
    fn drained(&self, tables: &[&str]) {
        for table in tables {
            let sql = format!(
                "select rows_pending = 0 and sync_status = 'synced' from embedd.sync_status('{table}')"
            );
            self.cluster.wait_for("postgres", LONG * 10, "the changes to be done", &sql);
        }
    }

    /// Syncs this many changes, in transactions of some thousand rows.
    fn process(&mut self, changes: i64) {
        let step = 20_000;
        for n in 0..changes / step {
            let sql = format!(
                "insert into flow select n, '' from generate_series({0}, {0} + {step} - 1) n on conflict (id) do update set body = case when flow.body is null then '' end",
                1 + (n % 5) * step
            );
            self.client.batch_execute(&sql).unwrap();
        }
        self.drained(&["flow"]);
    }

    /// A thousand small transactions.
    fn update(&mut self, table: &str) -> Duration {
        let begin = Instant::now();
        for n in 0..CHANGES {
            let sql = format!("update {table} set price = price + 1 where id = {}", n + 1);
            self.client.batch_execute(&sql).unwrap();
        }
        begin.elapsed()
    }

    /// A thousand small transactions, until their changes are synced.
    fn changes(&mut self) -> Duration {
        let begin = Instant::now();
        self.update("small");
        // Changes of one table are synced in order; polling the queue would itself become slower.
        let done = format!(
            "select (v.metadata ->> 'price')::integer = s.price from {} v join small s on s.id::text = v.pk_value where v.pk_value = '{CHANGES}' and s.id = {CHANGES}",
            support::source::relation(&mut self.client, "small")
        );
        while !self.client.query_one(&done, &[]).unwrap().get::<_, bool>(0) {
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }

    /// Processor time of the sync worker so far.
    fn worker(&self) -> Duration {
        let pid = self.cluster.sync_worker("postgres");
        processor_time(pid).unwrap()
    }

    /// Waits until the worker is idle and no autovacuum runs, so that the figure covers only the changes.
    fn settled(&self) {
        let mut before = Duration::ZERO;
        self.cluster.wait_until(LONG * 2, "the worker to rest", || {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.worker();
            now - std::mem::replace(&mut before, now) < Duration::from_millis(5)
        });
        let sql = "select not exists (select from pg_stat_activity where backend_type = 'autovacuum worker')";
        self.cluster.wait_for("postgres", LONG * 2, "autovacuum to end", sql);
    }

    fn status(&mut self) -> Duration {
        let begin = Instant::now();
        for table in ["small", "waiting", "flow"] {
            self.client.query_one("select * from embedd.sync_status($1)", &[&table]).unwrap();
        }
        begin.elapsed() / 3
    }

    fn measure(&mut self, what: &str) {
        self.settled();
        let (mut ratio, mut changes, mut worker, mut status) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let plain = self.update("plain");
            let before = self.worker();
            let synced = self.changes();
            worker.push(self.worker() - before);
            ratio.push(synced.as_secs_f64() / plain.as_secs_f64());
            changes.push(synced);
            status.push(self.status());
        }
        ratio.sort_by(f64::total_cmp);
        [&mut changes, &mut worker, &mut status].into_iter().for_each(|times| times.sort());
        let now = Figures {
            ratio: ratio[ROUNDS / 2],
            changes: changes[ROUNDS / 2],
            worker: worker[ROUNDS / 2],
            status: status[ROUNDS / 2],
        };
        let first = *self.first.get_or_insert(now);
        let of = |now: Duration, first: Duration| now.as_secs_f64() / first.as_secs_f64();
        println!(
            "{what}: {CHANGES} changes take {:.2} of the time without sync ({:.2} of the first round; {:.0} ms), \
             the worker's processor time {:.0} ms ({:.2} of the first), sync_status {:.2} ms ({:.2} of the first)",
            now.ratio,
            now.ratio / first.ratio,
            now.changes.as_secs_f64() * 1e3,
            now.worker.as_secs_f64() * 1e3,
            of(now.worker, first.worker),
            now.status.as_secs_f64() * 1e3,
            of(now.status, first.status),
        );
    }
}
