//! What queries pay while a vector table is changed: their latency during a re-backfill and around its swap, against the
//! quiet server of the same run.
//!
//! Sessions ask the same question every few milliseconds while another one writes. Wanted: the 99th percentile within
//! 1.5 of that of the quiet server, and no failed or empty answer.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Cluster, LONG};

const ROWS: usize = 20_000;
const DIMENSIONS: [usize; 2] = [384, 256];
/// Sessions that ask, and the pause between their questions.
const SESSIONS: usize = 3;
const PAUSE: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_secs(10);
/// Around the moment of the swap.
const AROUND: Duration = Duration::from_secs(1);
/// Half of them follow the load at once, half swap in a shadow that is ready.
const SWAPS: usize = 12;

/// The milliseconds at a part of the sorted times.
fn percentile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(((times.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN)
}

fn print(what: &str, mut times: Vec<f64>, quiet: f64) -> f64 {
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    let most = times.last().copied().unwrap_or(f64::NAN);
    println!(
        "{what:<36} {:>7} questions  p50 {p50:>7.2} ms  p99 {p99:>7.2} ms ({:.2} of quiet)  longest {most:>7.1} ms",
        times.len(),
        p99 / quiet
    );
    p99
}

fn main() {
    let cluster = Cluster::builder()
        .set("maintenance_work_mem", "256MB")
        .set("shared_buffers", "512MB")
        .start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(&format!(
            "create table source (id bigint primary key, body text);
             insert into source select i, 'row ' || i || ' of ' || i % 100 from generate_series(1, {ROWS}) i;
             select embedd.create_provider('p', 'test');
             select embedd.create_vector_table('source', 'source', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'p', embedding_dimensions => {}, start_backfill => true)",
            DIMENSIONS[0]
        ))
        .unwrap();
    let synced = "select sync_status = 'synced' from embedd.vector_tables where replaces is null";
    cluster.wait_for("postgres", LONG * 20, "the backfill to be done", synced);
    let stop = AtomicBool::new(false);
    let (failed, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let asked: Mutex<Vec<(Instant, f64)>> = Mutex::new(Vec::new());
    let (mut changed, mut around, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    let quiet = thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = cluster.connect("postgres");
                let sql = "select id from embedd.query('source', 'row 77 of 77', 10)";
                while !stop.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    match client.query(sql, &[]) {
                        Ok(rows) if rows.len() == 10 => {}
                        _ => drop(failed.fetch_add(1, Ordering::SeqCst)),
                    }
                    let time = begin.elapsed().as_secs_f64() * 1000.0;
                    asked.lock().unwrap().push((begin, time));
                    thread::sleep(PAUSE);
                }
            });
        }
        scope.spawn(|| {
            let mut client = cluster.connect("postgres");
            while !stop.load(Ordering::SeqCst) {
                let n = written.fetch_add(1, Ordering::SeqCst);
                let id = (n * 37 % ROWS as u64) as i64;
                let sql = "update source set body = body || '.' where id = $1";
                client.execute(sql, &[&id]).unwrap();
                thread::sleep(PAUSE * 4);
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < QUIET {
            thread::sleep(PAUSE);
        }
        let quiet = asked.lock().unwrap().drain(..).map(|(_, time)| time).collect::<Vec<f64>>();
        for swap in 0..SWAPS {
            let dimensions = DIMENSIONS[(swap + 1) % 2];
            let is_automatic = swap < SWAPS / 2;
            client
                .batch_execute(&format!(
                    "select embedd.update_vector_table('source', embedding_dimensions => {dimensions});
                     select embedd.backfill('source', auto_swap => {is_automatic})"
                ))
                .unwrap();
            if !is_automatic {
                let filled = "select sync_status = 'synced' from embedd.vector_tables where replaces is not null";
                cluster.wait_for("postgres", LONG * 20, "the shadow to be ready", filled);
                let at = Instant::now();
                while at.elapsed() < AROUND {
                    thread::sleep(PAUSE);
                }
                client.batch_execute("select embedd.swap('source')").unwrap();
            }
            let swapped = format!(
                "select embedding_dimensions = {dimensions} from embedd.vector_tables where replaces is null"
            );
            cluster.wait_for("postgres", LONG * 20, "the swap", &swapped);
            let at = Instant::now();
            while at.elapsed() < AROUND {
                thread::sleep(PAUSE);
            }
            for (begin, time) in asked.lock().unwrap().drain(..) {
                match (begin + AROUND > at, is_automatic) {
                    (true, true) => around.push(time),
                    (true, false) => ready.push(time),
                    (false, _) => changed.push(time),
                }
            }
            cluster.wait_for("postgres", LONG, "the status", synced);
        }
        stop.store(true, Ordering::SeqCst);
        quiet
    });
    let base = percentile(&mut quiet.clone(), 0.99);
    print("quiet, under writes", quiet, base);
    print("during the re-backfill", changed, base);
    print("around a swap at once after the load", around, base);
    print("around a swap of a ready shadow", ready, base);
    println!(
        "{SWAPS} swaps of {ROWS} rows, {} writes, {} failed or short answers",
        written.load(Ordering::SeqCst),
        failed.load(Ordering::SeqCst)
    );
}
