//! What a writer pays for sync: bulk INSERT, UPDATE of a column that is not embedded, and single-row transactions.
//!
//! Each figure is a ratio to the same statement on the same table without sync, in alternating rounds of one run; the
//! sync worker works meanwhile. Promised: bulk INSERT <= 1.25, unwatched UPDATE <= 1.05, single INSERTs >= 0.80 of the rate.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::{Duration, Instant};

use postgres::Client;
use support::{Cluster, LONG};

const ROWS: usize = 100_000;
const ROUNDS: usize = 7;
const SINGLE: usize = 3_000;

fn main() {
    // With fsync on, as a server is that somebody relies on.
    let cluster = Cluster::builder().durable().start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            r#"create table plain (id bigint primary key, title text, body text, price numeric, seen int);
               create table synced (like plain including all);
               create table idle (like plain including all);
               create function nothing() returns trigger language plpgsql as 'begin return null; end';
               create trigger idle after update on idle for each row when (false) execute function nothing();
               select embedd.create_vector_table('synced', 'synced', '[
                   {"name": "title", "role": "embedding"}, {"name": "body", "role": "embedding"},
                   {"name": "price", "role": "metadata"}]', start_backfill => true);
               set synchronous_commit = off;"#,
        )
        .unwrap();
    drained(&cluster);
    bulk(&cluster, &mut client);
    unwatched(&cluster, &mut client);
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

fn fill(table: &str) -> String {
    format!(
        "insert into {table} select n, 'title ' || n, 'the body of row ' || n, n % 100, 0
           from generate_series(1, {ROWS}) n"
    )
}

fn bulk(cluster: &Cluster, client: &mut Client) {
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut taken = [Duration::ZERO; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let table = ["plain", "synced"][which];
            taken[which] = timed(client, &fill(table));
            client.batch_execute(&format!("truncate {table}")).unwrap();
            if which == 1 {
                drained(cluster);
            }
        }
        ratios.push(taken[1].as_secs_f64() / taken[0].as_secs_f64());
    }
    report("100,000-row INSERT .. SELECT, synced / plain", &mut ratios);
}

/// The worker is paused: it has nothing to do with rows whose change is not noted, and its own work is not measured here.
///
/// `idle` has a trigger that never fires, which is the least that any trigger costs.
fn unwatched(cluster: &Cluster, client: &mut Client) {
    const TABLES: [&str; 3] = ["plain", "synced", "idle"];
    client.batch_execute("select embedd.pause_sync('synced')").unwrap();
    for table in TABLES {
        client.batch_execute(&fill(table)).unwrap();
    }
    let (mut ratios, mut floor) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let mut taken = [Duration::ZERO; 3];
        for turn in 0..3 {
            let which = (turn + round) % 3;
            let table = TABLES[which];
            client.batch_execute(&format!("vacuum {table}")).unwrap();
            client.batch_execute("checkpoint").unwrap();
            taken[which] = timed(client, &format!("update {table} set seen = seen + 1"));
        }
        ratios.push(taken[1].as_secs_f64() / taken[0].as_secs_f64());
        floor.push(taken[2].as_secs_f64() / taken[0].as_secs_f64());
    }
    report("100,000-row UPDATE of an unwatched column, synced / plain", &mut ratios);
    report("the same with a trigger that never fires, idle / plain", &mut floor);
    client
        .batch_execute("truncate plain; truncate synced; select embedd.resume_sync('synced')")
        .unwrap();
    drained(cluster);
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
