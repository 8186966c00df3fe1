//! What a writer pays for sync: bulk INSERT, UPDATE of a column that is not embedded, and single-row transactions.
//!
//! Each figure is a ratio to the same statement on the same table without sync, in alternating rounds of one run; the
//! sync worker works meanwhile. Promised: bulk INSERT <= 1.25, unwatched UPDATE <= 1.05, single INSERTs >= 0.80 of the rate.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use postgres::Client;
use support::{Cluster, LONG};

const ROWS: usize = 100_000;
const ROUNDS: usize = 7;
const SINGLE: usize = 3_000;

fn main() {
    let cluster = Cluster::start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            r#"create table plain (id bigint primary key, title text, body text, price numeric, seen int);
               create table synced (like plain including all);
               select embedd.create_vector_table('synced', 'synced', '[
                   {"name": "title", "role": "embedding"}, {"name": "body", "role": "embedding"},
                   {"name": "price", "role": "metadata"}]', start_backfill => true);
               set synchronous_commit = off;"#,
        )
        .unwrap();
    drained(&cluster);
    bulk(&cluster, &mut client);
    single(&cluster, &mut client);
}

/// Waits until the worker has nothing left to do, so that one round does not pay for the one before.
fn drained(cluster: &Cluster) {
    cluster.wait_for(
        "postgres",
        LONG * 3,
        "the queue to be empty",
        "select not exists (select from embedd.queue) and (select sync_status = 'synced' from embedd.vector_tables)",
    );
}

fn timed(client: &mut Client, statement: &str) -> Duration {
    let begin = Instant::now();
    client.batch_execute(statement).unwrap();
    begin.elapsed()
}

fn bulk(cluster: &Cluster, client: &mut Client) {
    let (mut inserts, mut updates) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut taken = [(Duration::ZERO, Duration::ZERO); 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let table = ["plain", "synced"][which];
            let insert = timed(
                client,
                &format!(
                    "insert into {table} select n, 'title ' || n, 'the body of row ' || n, n % 100, 0
                       from generate_series(1, {ROWS}) n"
                ),
            );
            // The worker rests while the UPDATE is timed: its own writes are not what the UPDATE costs.
            if which == 1 {
                client.batch_execute("select embedd.pause_sync('synced')").unwrap();
            }
            client.batch_execute(&format!("vacuum analyze {table}")).unwrap();
            let update = timed(client, &format!("update {table} set seen = seen + 1"));
            client.batch_execute(&format!("truncate {table}")).unwrap();
            if which == 1 {
                client.batch_execute("select embedd.resume_sync('synced')").unwrap();
                drained(cluster);
            }
            taken[which] = (insert, update);
        }
        inserts.push(taken[1].0.as_secs_f64() / taken[0].0.as_secs_f64());
        updates.push(taken[1].1.as_secs_f64() / taken[0].1.as_secs_f64());
    }
    report("100,000-row INSERT .. SELECT, synced / plain", &mut inserts);
    report("100,000-row UPDATE of an unwatched column, synced / plain", &mut updates);
}

fn single(cluster: &Cluster, client: &mut Client) {
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let mut rate = [0.0; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let table = ["plain", "synced"][which];
            let insert = client
                .prepare(&format!("insert into {table} values ($1, 'title', 'the body', 1, 0)"))
                .unwrap();
            let begin = Instant::now();
            for n in 0..SINGLE {
                client.execute(&insert, &[&(n as i64)]).unwrap();
            }
            rate[which] = SINGLE as f64 / begin.elapsed().as_secs_f64();
            client.batch_execute(&format!("truncate {table}")).unwrap();
            if which == 1 {
                drained(cluster);
            }
        }
        rates.push(rate[1] / rate[0]);
    }
    report("single-row INSERT transactions, rate synced / plain", &mut rates);
}

fn report(what: &str, ratios: &mut [f64]) {
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
    println!("{what}: {median:.3} (median of {}, {low:.3} to {high:.3})", ratios.len());
}
