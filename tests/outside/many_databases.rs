//! More databases than worker slots, several workers for one database, and workers that exit and restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use support::processes::{SYNC_WORKER, is_alive, kill9};
use support::source::{backfill, create_source, relation, synced_source};
use support::{Cluster, Frozen, LONG, SHORT, StopOnDrop};

/// The workers of a database by title.
type Workers = BTreeMap<&'static str, i32>;

/// Whether no client is connected to any other database; a closed connection takes a moment to disappear.
const NO_SESSIONS: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
     WHERE datname <> 'postgres' AND backend_type = 'client backend')";

/// Changes rows of `t` until `stop`, in many small transactions; returns how many.
fn write_until(cluster: &Cluster, db: &str, stop: &AtomicBool) -> u32 {
    let (mut changes, mut client) = (0, cluster.connect(db));
    while !stop.load(Ordering::SeqCst) {
        let id = 1 + changes * 7 % 200;
        let sql = match changes % 3 {
            0 => format!("UPDATE t SET title = 'change {changes}' WHERE id = {id}"),
            1 => format!("INSERT INTO t VALUES ({}, 'new', '', 1)", 1000 + changes),
            _ => format!("DELETE FROM t WHERE id = {id}"),
        };
        match client.batch_execute(&sql) {
            Ok(()) => changes += 1,
            // After a kill the server ends all sessions.
            Err(_) => client = cluster.connect(db),
        }
    }
    changes
}

/// Waits for exactly these titles of sync workers, without their common prefix; returns the process ids.
fn wait_for_workers(cluster: &Cluster, of: &str, expected: &[&'static str]) -> Workers {
    let kind = format!("{SYNC_WORKER} for {of}");
    let mut found = Workers::new();
    cluster.wait_until(LONG, &format!("the workers of \"{of}\" {expected:?}"), || {
        let pids = cluster.processes();
        let pids: Vec<(i32, &str)> = pids
            .iter()
            .filter_map(|(pid, title)| Some((*pid, title.strip_prefix(&kind)?)))
            .collect();
        found = expected
            .iter()
            .filter_map(|title| {
                let mut of_title = pids.iter().filter(|(_, other)| other == title);
                Some((*title, of_title.next()?.0))
            })
            .collect();
        found.len() == expected.len() && pids.len() == expected.len()
    });
    found
}

fn set_and_reload(cluster: &Cluster, name: &str, value: &str) {
    cluster.configure(&[(name, value)]);
    cluster.reload();
}

/// Waits until the stored row of a key contains this text; returns how long that took.
fn wait_stored(cluster: &Cluster, client: &mut Client, vectors: &str, text: &str) -> Duration {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {vectors} WHERE pk_value = '1' AND embedded_text LIKE $1)"
    );
    let statement = client.prepare(&sql).unwrap();
    let pattern = format!("%{text}%");
    cluster.wait_until(SHORT, &format!("\"{text}\" to be stored"), || {
        // Polls at a far shorter interval than usual, so that the time is the worker's.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(100) {
            if client.query_one(&statement, &[&pattern]).unwrap().get::<_, bool>(0) {
                return true;
            }
        }
        false
    })
}

#[test]
fn the_number_of_workers_is_changed_under_writes() {
    let cluster =
        Cluster::builder().never_polling().set("embedd.workers_per_database", "2").start();
    let mut client = cluster.database("pair");
    synced_source(&cluster, "pair", &mut client, "t", 200);
    wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"]);
    assert_eq!(cluster.pids_in("pair", SYNC_WORKER).len(), 2);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        let writer = scope.spawn(|| write_until(&cluster, "pair", &stop));
        for (count, titles) in [
            ("1", &[""][..]),
            ("3", &[" 1/3", " 2/3", " 3/3"]),
            ("2", &[" 1/2", " 2/2"]),
            ("1", &[""]),
        ] {
            set_and_reload(&cluster, "embedd.workers_per_database", count);
            wait_for_workers(&cluster, "pair", titles);
        }
        // Without waiting for the first change to finish.
        for count in ["4", "1", "2", "3", "2"] {
            set_and_reload(&cluster, "embedd.workers_per_database", count);
        }
        wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"]);
        drop(stopper);
        assert!(writer.join().unwrap() > 0);
    });
    cluster.assert_synced("pair", "t");
}

#[test]
fn two_workers_are_killed_and_asked_to_exit_together() {
    let cluster =
        Cluster::builder().never_polling().set("embedd.workers_per_database", "2").start();
    let mut client = cluster.database("pair");
    synced_source(&cluster, "pair", &mut client, "t", 200);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        let writer = scope.spawn(|| write_until(&cluster, "pair", &stop));
        for victim in [" 1/2", " 2/2"] {
            let pid = wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"])[victim];
            kill9(pid);
            cluster.wait_until(SHORT, "the killed worker to be gone", || !is_alive(pid));
        }
        wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"]);
        drop(stopper);
        writer.join().unwrap();
    });
    cluster.assert_synced("pair", "t");
    wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"]);

    // Without the extension there are no workers.
    let mut client = cluster.connect("pair");
    client.batch_execute("CREATE DATABASE bare").unwrap();
    let mut bare = cluster.connect("bare");
    bare.batch_execute("SET client_min_messages = warning; CREATE EXTENSION embedd CASCADE")
        .unwrap();
    wait_for_workers(&cluster, "bare", &[" 1/2", " 2/2"]);
    synced_source(&cluster, "bare", &mut bare, "t", 2);
    bare.batch_execute("DROP EXTENSION embedd CASCADE").unwrap();
    wait_for_workers(&cluster, "bare", &[]);
    bare.batch_execute("CREATE EXTENSION embedd CASCADE").unwrap();
    wait_for_workers(&cluster, "bare", &[" 1/2", " 2/2"]);
    drop(bare);

    let workers = cluster.pids_in("pair", SYNC_WORKER);
    assert_eq!(workers.len(), 2);
    create_source(&mut client, "big", 3000);
    backfill(&mut client, "big");
    let busy = "SELECT synced_rows > 50 FROM embedd.sync_status('big')";
    cluster.wait_for("pair", LONG, "the backfill to be under way", busy);
    drop(client);
    cluster.wait_for("postgres", SHORT, "the sessions to be gone", NO_SESSIONS);
    cluster.psql("postgres", "DROP DATABASE pair");
    cluster.wait_until(SHORT, "the workers to go", || !workers.iter().any(|pid| is_alive(*pid)));
}

/// A worker that has read a vector table before its backfill was requested, and its queue only after the other worker
/// had handed over its part of the backfill.
#[test]
fn a_backfill_begins_while_the_other_worker_reads() {
    let cluster =
        Cluster::builder().never_polling().set("embedd.workers_per_database", "2").start();
    let mut client = cluster.database("pair");
    let workers = wait_for_workers(&cluster, "pair", &[" 1/2", " 2/2"]);
    let mut holder = cluster.connect("pair");
    holder.batch_execute("BEGIN; LOCK embedd.sync_state").unwrap();
    create_source(&mut client, "t", 200);
    cluster.wait_for(
        "postgres",
        SHORT,
        "both workers to have seen the vector table",
        "SELECT count(*) = 2 FROM pg_stat_activity
          WHERE datname = 'pair' AND backend_type LIKE 'embedd%' AND wait_event_type = 'Lock'",
    );
    let id: i32 = client.query_one("SELECT id FROM embedd.vector_tables", &[]).unwrap().get(0);
    // The worker with this number does the scan.
    let other = Frozen::new(if id % 2 == 0 { workers[" 2/2"] } else { workers[" 1/2"] });
    backfill(&mut client, "t");
    holder.batch_execute("COMMIT").unwrap();
    let handed = "SELECT EXISTS (SELECT FROM embedd.queue WHERE is_paged)";
    cluster.wait_for("pair", LONG, "a part of the backfill to be handed over", handed);
    drop(other);
    cluster.assert_synced("pair", "t");
}

#[test]
fn fifty_databases_share_four_slots() {
    let cluster = Cluster::builder()
        .never_polling()
        .set("max_worker_processes", "8")
        .set("embedd.worker_idle_timeout", "2s")
        .start();
    let mut client = cluster.database("d0");
    synced_source(&cluster, "d0", &mut client, "t", 200);
    drop(client);
    let mut admin = cluster.connect("postgres");
    let version: i32 = admin
        .query_one("SELECT current_setting('server_version_num')::integer", &[])
        .unwrap()
        .get(0);
    let strategy = if version >= 150_000 { "STRATEGY file_copy" } else { "" };
    for n in 1..50 {
        admin.batch_execute(&format!("CREATE DATABASE d{n} TEMPLATE d0 {strategy}")).unwrap();
    }
    // Every database gets a worker once, while three have work all the time.
    cluster.restart(support::Shutdown::Fast);
    let begin = Instant::now();
    let (stop, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        for db in ["d3", "d17", "d49"] {
            let stop = &stop;
            let cluster = &cluster;
            scope.spawn(move || write_until(cluster, db, stop));
        }
        let mut before = Vec::new();
        cluster.wait_until(LONG, "every database to be looked at", || {
            // Between two looks another worker may have started; a database seen twice was served in between.
            let now = cluster.pids(SYNC_WORKER);
            let stayed = now.iter().filter(|pid| before.contains(*pid)).count();
            most.fetch_max(stayed, Ordering::SeqCst);
            before = now;
            let sql = "SELECT count(*) FROM pg_stat_database WHERE datname ~ '^d[0-9]+$' AND xact_commit > 0";
            let mut client = cluster.connect("postgres");
            client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 50
        });
        println!("looked at 50 databases in {:?}", begin.elapsed());
        drop(stopper);
    });
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)), "{most:?} workers at once");
    for db in ["d3", "d17", "d49"] {
        cluster.assert_synced(db, "t");
    }
    let took =
        cluster.wait_until(LONG, "every worker to exit", || cluster.pids(SYNC_WORKER).is_empty());
    println!("every worker had stepped aside {took:?} later");
    // A commit starts a worker again, even in a database without earlier writes.
    let mut times = Vec::new();
    for db in ["d3", "d4", "d5", "d48"] {
        let mut client = cluster.connect(db);
        let vectors = relation(&mut client, "t");
        client.batch_execute("INSERT INTO t VALUES (1, '', '', 1) ON CONFLICT DO NOTHING").unwrap();
        cluster.wait_until(LONG, "the worker to exit", || cluster.pids(SYNC_WORKER).is_empty());
        client.batch_execute("UPDATE t SET title = 'back again' WHERE id = 1").unwrap();
        times.push(wait_stored(&cluster, &mut client, &vectors, "back again"));
        cluster.assert_synced(db, "t");
    }
    println!("from commit to the vector by way of a new worker: {times:?}");
}

#[test]
fn a_commit_while_the_worker_exits_is_synced() {
    for (timeout, workers) in [("1ms", "1"), ("20ms", "2")] {
        let cluster = Cluster::builder()
            .never_polling()
            .set("embedd.worker_idle_timeout", timeout)
            .set("embedd.workers_per_database", workers)
            .start();
        let mut client = cluster.database("aside");
        synced_source(&cluster, "aside", &mut client, "t", 5);
        let vectors = relation(&mut client, "t");
        let mut times = Vec::new();
        for round in 0..200 {
            client
                .batch_execute(&format!("UPDATE t SET title = 'round {round}.' WHERE id = 1"))
                .unwrap();
            times.push(wait_stored(&cluster, &mut client, &vectors, &format!("round {round}.")));
            if round % 10 == 0 {
                cluster.wait_until(SHORT, "the worker to exit", || {
                    cluster.pids(SYNC_WORKER).is_empty()
                });
            } else {
                // Hits the moments of exiting, of absence and of restarting.
                thread::sleep(Duration::from_micros(round * 397 % 30_000));
            }
        }
        times.sort();
        println!(
            "idle timeout {timeout}, workers {workers}: from commit to the vector {:?} in the middle, {:?} at most",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        cluster.assert_synced("aside", "t");
    }
}

#[test]
fn busy_databases_take_turns() {
    // One slot, and a backfill that would take minutes one row at a time.
    let cluster = Cluster::builder()
        .never_polling()
        .set("embedd.max_sync_workers", "1")
        .set("embedd.batch_texts", "1")
        .set("embedd.texts_in_flight", "1")
        .start();
    let mut long = cluster.database("long");
    create_source(&mut long, "t", 100_000);
    backfill(&mut long, "t");
    let busy = "SELECT synced_rows > 10 FROM embedd.sync_status('t')";
    cluster.wait_for("long", LONG, "the backfill to be under way", busy);
    let mut short = cluster.database("short");
    let begin = Instant::now();
    synced_source(&cluster, "short", &mut short, "t", 5);
    println!("the other database had its turn after {:?}", begin.elapsed());
    let rows = "SELECT synced_rows FROM embedd.sync_status('t')";
    let synced = long.query_one(rows, &[]).unwrap().get::<_, i64>(0);
    assert!(synced < 100_000, "the long backfill was over before");
    cluster.wait_for(
        "long",
        LONG,
        "the long backfill to go on",
        &format!("SELECT synced_rows > {synced} + 20 FROM embedd.sync_status('t')"),
    );
    assert!(cluster.pids(SYNC_WORKER).len() <= 1);
}

#[test]
fn workers_that_cannot_start_do_not_block_others() {
    let cluster = Cluster::builder().never_polling().start();
    cluster.create_database("fresh");
    for db in ["stuck_a", "stuck_b"] {
        let mut client = cluster.database(db);
        synced_source(&cluster, db, &mut client, "t", 2);
    }
    cluster.wait_for("postgres", SHORT, "the sessions to be gone", NO_SESSIONS);
    // As many as may start at once wait for the lock on their database.
    let mut holder = cluster.connect("postgres");
    holder
        .batch_execute(
            "BEGIN; ALTER DATABASE stuck_a RENAME TO moved_a; ALTER DATABASE stuck_b RENAME TO moved_b",
        )
        .unwrap();
    cluster.wait_until(LONG, "two workers to be stuck", || cluster.pids(SYNC_WORKER).len() == 2);
    let begin = Instant::now();
    let mut client = cluster.connect("fresh");
    client
        .batch_execute("SET client_min_messages = warning; CREATE EXTENSION embedd CASCADE")
        .unwrap();
    synced_source(&cluster, "fresh", &mut client, "t", 2);
    println!("a worker came {:?} after two others had got stuck", begin.elapsed());
    assert!(holder.batch_execute("COMMIT").is_ok());
    for db in ["moved_a", "moved_b"] {
        cluster.connect(db).batch_execute("UPDATE t SET title = 'moved'").unwrap();
        cluster.assert_synced(db, "t");
    }
}
