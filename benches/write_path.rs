//! What a writer pays for sync: bulk INSERT, UPDATE of a column that is not embedded, and single-row transactions.
//!
//! Each figure is a ratio to the same statement on the same table without sync, in alternating rounds of one run; the
//! sync worker works meanwhile. Two triggers that are not embedd's show what PostgreSQL takes for any row trigger.
//! Promised: bulk INSERT <= 1.25, single INSERTs >= 0.80 of the rate; unwatched UPDATE <= 1.05 of a trigger in C that does
//! nothing.
//! Where valgrind is installed, the instructions of a row are counted too: what else the machine does is not in them.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use postgres::Client;
use support::binaries::{owner_runs, program};
use support::{Cluster, LONG, Shutdown};

const ROWS: usize = 100_000;
const ROUNDS: usize = 7;
const SINGLE: usize = 3_000;
/// Rows of a statement whose instructions are counted, which takes fifty times as long.
const COUNTED: usize = 10_000;

/// The tables, the one without a trigger first, and what is done for each row of them.
const TABLES: [(&str, &str); 4] = [
    ("plain", "no trigger"),
    ("idle", "a trigger that never fires"),
    ("nothing", "a trigger in C that does nothing"),
    ("synced", "embedd's trigger"),
];

fn main() {
    // With fsync on, as a production server has it.
    let cluster = Cluster::builder().durable().start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            r#"create table plain (id bigint primary key, title text, body text, price numeric, seen int);
               create table idle (like plain including all);
               create table nothing (like plain including all);
               create table synced (like plain including all);
               -- A function of PostgreSQL's own that returns zero at once, as a trigger may.
               create function nothing() returns trigger language internal as 'pg_is_in_recovery';
               create trigger idle after insert or update or delete on idle
                   for each row when (false) execute function nothing();
               create trigger nothing after insert or update or delete on nothing
                   for each row execute function nothing();
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
    drop(client);
    cluster.stop(Shutdown::Fast);
    count(&cluster);
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

fn fill(table: &str, rows: usize) -> String {
    // On one line: a server in single-user mode takes each line for a statement.
    format!(
        "insert into {table} select n, 'title ' || n, 'the body of row ' || n, n % 100, 0 from generate_series(1, {rows}) n"
    )
}

fn update(table: &str) -> String {
    format!("update {table} set seen = seen + 1")
}

fn bulk(cluster: &Cluster, client: &mut Client) {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut taken = [Duration::ZERO; TABLES.len()];
        for turn in 0..TABLES.len() {
            let which = (turn + round) % TABLES.len();
            let (table, _) = TABLES[which];
            taken[which] = timed(client, &fill(table, ROWS));
            client.batch_execute(&format!("truncate {table}")).unwrap();
            if table == "synced" {
                drained(cluster);
            }
        }
        rounds.push(taken);
    }
    report_all("100,000-row INSERT .. SELECT", &rounds);
}

/// The worker is paused: it has nothing to do with rows whose change is not noted, and its own work is not measured here.
fn unwatched(cluster: &Cluster, client: &mut Client) {
    client.batch_execute("select embedd.pause_sync('synced')").unwrap();
    for (table, _) in TABLES {
        client.batch_execute(&fill(table, ROWS)).unwrap();
    }
    let mut rounds = Vec::new();
    for round in 0..2 * ROUNDS {
        let mut taken = [Duration::ZERO; TABLES.len()];
        for turn in 0..TABLES.len() {
            let which = (turn + round) % TABLES.len();
            let (table, _) = TABLES[which];
            client.batch_execute(&format!("vacuum {table}")).unwrap();
            client.batch_execute("checkpoint").unwrap();
            taken[which] = timed(client, &update(table));
        }
        rounds.push(taken);
    }
    report_all("100,000-row UPDATE of an unwatched column", &rounds);
    for (table, _) in TABLES {
        client.batch_execute(&format!("truncate {table}")).unwrap();
    }
    client.batch_execute("select embedd.resume_sync('synced')").unwrap();
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

/// Instructions of a row: those of a server in single-user mode that runs a statement, less those of one that does not.
fn count(cluster: &Cluster) {
    let mut plain = [0.0; 2];
    for (table, what) in TABLES {
        let truncate = format!("truncate {table}");
        let mut totals = [0; 3];
        let statements = [truncate, fill(table, COUNTED), update(table)];
        for (n, total) in totals.iter_mut().enumerate() {
            match instructions(cluster, &statements[..=n]) {
                Ok(counted) => *total = counted,
                Err(why) => return println!("instructions of a row: not counted, {why}"),
            }
        }
        for (n, statement) in ["INSERT", "UPDATE of an unwatched column"].iter().enumerate() {
            let row = totals[n + 1].saturating_sub(totals[n]) as f64 / COUNTED as f64;
            if table == TABLES[0].0 {
                plain[n] = row;
            }
            println!(
                "instructions of a row, {statement}, {what}: {row:.0} ({:.3})",
                row / plain[n]
            );
        }
    }
}

/// Instructions of a server in single-user mode from its start to its end.
fn instructions(cluster: &Cluster, statements: &[String]) -> Result<u64, String> {
    let mut command = owner_runs(Path::new("valgrind"));
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(program("postgres")).arg("--single").arg("-D").arg(cluster.data()).arg("postgres");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().map_err(|error| error.to_string())?;
    let mut input = server.stdin.take().unwrap();
    // The command may have ended already: what it wrote tells why.
    let _ = writeln!(input, "{}", statements.join("\n"));
    drop(input);
    let said = server.wait_with_output().map_err(|error| error.to_string())?.stderr;
    let said = String::from_utf8_lossy(&said);
    let total = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    total.ok_or_else(|| said.lines().last().unwrap_or("valgrind said nothing").to_string())
}

/// The ratio of each table to the first in the same round.
fn report_all(what: &str, rounds: &[[Duration; TABLES.len()]]) {
    for (which, (_, trigger)) in TABLES.iter().enumerate().skip(1) {
        let ratio =
            |taken: &[Duration; TABLES.len()]| taken[which].as_secs_f64() / taken[0].as_secs_f64();
        let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        report(&format!("{what}, {trigger} / none"), &mut ratios);
    }
}

fn report(what: &str, ratios: &mut [f64]) {
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
    println!("{what}: {median:.3} (median of {}, {low:.3} to {high:.3})", ratios.len());
}
