//! Attempts: restarts, an outage and processes that are asked to end never make a task fail, and a page over which the
//! worker ends again and again does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::processes::{SYNC_WORKER, is_alive, kill9, terminate};
use support::source::{assert_equal, backfill, relation, synced_source, wait_synced};
use support::{Cluster, LONG, Shutdown};

use super::{create_source, one, status};

const DB: &str = "attempts";

/// A text that hangs when it is read, as long as the function says so.
const HANGS: &str = "
    CREATE TYPE odd AS (value text);
    CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF $1.value = 'bad' THEN PERFORM pg_sleep(1e6); END IF;
        RETURN $1.value;
    END $$;
    CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd);
    CREATE TABLE t (id int PRIMARY KEY, body odd);
    INSERT INTO t SELECT i, row(CASE i WHEN 1200 THEN 'bad' ELSE 'fine ' || i END)::odd FROM generate_series(1, 1500) i;
    SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"body\", \"role\": \"embedding\"}]')";

/// What the view shows: rows done, their total, the rate, whether an eta is known, and the phase.
type Progress = (i64, Option<i64>, Option<f64>, bool, String);

/// The worker while it reads the row that hangs.
fn worker_in_the_row(cluster: &Cluster) -> i32 {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{DB}' AND backend_type = '{SYNC_WORKER}' AND wait_event = 'PgSleep')"
    );
    cluster.wait_until(LONG, "the worker to read the row", || {
        let client = cluster.try_connect(DB).ok();
        let row = client.and_then(|mut client| client.query_one(&sql, &[]).ok());
        row.is_some_and(|row| row.get(0))
    });
    cluster.sync_worker(DB)
}

#[test]
fn a_page_that_ends_the_worker_again_and_again() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "other", 3);
    client.batch_execute(HANGS).unwrap();
    backfill(&mut client, "t");
    // Asked to end, it is not suspected, however often that is. The launcher waits twice as long each time.
    for _ in 0..4 {
        let worker = worker_in_the_row(&cluster);
        terminate(worker);
        // The next commit starts the next one.
        client.batch_execute("UPDATE other SET title = 'again ' || random()").unwrap();
        cluster.successor(SYNC_WORKER, worker);
    }
    // The page of an interrupted load is read in another way than the first time.
    let is_over = |client: &mut Client| {
        one::<bool>(
            client,
            "SELECT NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))",
        )
    };
    let mut kills = 0;
    while !is_over(&mut cluster.connect(DB)) {
        assert!(kills < 6, "the task goes on after {kills} ends of the worker");
        let worker = worker_in_the_row(&cluster);
        kill9(worker);
        kills += 1;
        cluster.wait_until(LONG, "the server to be up again", || {
            !is_alive(worker) && cluster.try_connect(DB).is_ok()
        });
        // The next one either reads the row again, or has ended the task.
        cluster.wait_until(LONG, "the next worker", || {
            cluster.try_connect(DB).is_ok_and(|mut client| {
                is_over(&mut client)
                    || client
                        .query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'", &[])
                        .is_ok_and(|rows| !rows.is_empty())
            })
        });
    }
    assert!(kills >= 3, "the task has failed after {kills} ends of the worker");
    let mut client = cluster.connect(DB);
    let failed: String = one(
        &mut client,
        "SELECT t.status || ': ' || t.last_error FROM embedd.tasks t JOIN embedd.vector_tables v ON v.id = t.target_id WHERE v.name = 't'",
    );
    assert!(failed.starts_with("failed: the worker process ended 3 times in a row"), "{failed}");
    let (status_now, error) = {
        let row = client
            .query_one("SELECT sync_status, last_error FROM embedd.sync_status('t')", &[])
            .unwrap();
        (row.get::<_, String>(0), row.get::<_, String>(1))
    };
    assert_eq!(status_now, "error");
    assert!(error.contains("SELECT embedd.backfill('t')"), "{error}");
    assert_eq!(cluster.log().matches("the task of vector table \"t\" has failed").count(), 1);

    // The others go on, and so do changes of its other rows; that makes it no less incomplete.
    client
        .batch_execute("UPDATE other SET title = 'still synced'; UPDATE t SET body = row('changed')::odd WHERE id = 7")
        .unwrap();
    cluster.assert_synced(DB, "other");
    cluster.wait_done(DB);
    assert_eq!(status(&mut client), "error");
    let mended =
        "CREATE OR REPLACE FUNCTION odd_text(odd) RETURNS text LANGUAGE sql AS 'SELECT $1.value'";
    client.batch_execute(mended).unwrap();
    backfill(&mut client, "t");
    wait_synced(&cluster, DB, "t");
    assert_eq!(status(&mut client), "synced");
}

/// Restarts of the worker and of the server without any progress, while the provider is down.
#[test]
fn an_outage_with_restarts_fails_no_task() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    create_source(&mut client, &fake, 1500);
    fake.down();
    backfill(&mut client, "t");
    let failing = "SELECT last_error IS NOT NULL FROM embedd.stat_progress_backfill";
    cluster.wait_for(DB, LONG, "the outage to be noticed", failing);
    for round in 0..6 {
        let stalled: i32 = one(
            &mut cluster.connect(DB),
            "SELECT stalled_attempts FROM embedd.stat_progress_backfill",
        );
        // A crash goes back to what is on disk, and this commit puts the worker's there.
        let flush = format!("CREATE TABLE flushed{round} ()");
        cluster.connect(DB).batch_execute(&flush).unwrap();
        match round % 3 {
            0 => {
                let worker = cluster.sync_worker(DB);
                terminate(worker);
                cluster.wait_until(LONG, "its end", || {
                    !cluster.pids_in(DB, SYNC_WORKER).contains(&worker)
                });
                // The next commit starts the next one.
                let insert = format!("INSERT INTO t VALUES (2000 + {round}, 'new')");
                cluster.connect(DB).batch_execute(&insert).unwrap();
            }
            1 => kill9(cluster.sync_worker(DB)),
            _ => cluster.restart(Shutdown::Fast),
        }
        let sql = format!("SELECT stalled_attempts > {stalled} FROM embedd.stat_progress_backfill");
        cluster.wait_until(LONG, "the next attempt", || {
            let client = cluster.try_connect(DB).ok();
            let row = client.and_then(|mut client| client.query_opt(&sql, &[]).ok().flatten());
            row.is_some_and(|row| row.get(0))
        });
    }
    let mut client = cluster.connect(DB);
    let sql = "SELECT stalled_attempts > max_attempts AND status = 'running' FROM embedd.tasks";
    assert!(one::<bool>(&mut client, sql), "more attempts than may end in the same step");
    fake.up();
    // Any change of the provider makes the worker try it again at once.
    let again = "SELECT embedd.update_provider('fake', options => '{\"timeout\": 3001}')";
    client.batch_execute(again).unwrap();
    wait_synced(&cluster, DB, "t");
    assert_equal(&mut client, "t");
    let sql = "SELECT stalled_attempts = 0 AND status = 'completed' AND rows_done = 1502 AND rows_total = 1500 FROM embedd.tasks";
    assert!(one::<bool>(&mut client, sql));
}

/// The progress of a backfill with restarts in between only ever grows, and ends with all rows.
#[test]
fn its_progress_can_be_watched() {
    let cluster = Arc::new(Cluster::builder().never_polling().start());
    let mut client = cluster.database(DB);
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    fake.script(Rule::always().respond(Respond::delay(Duration::from_millis(5))));
    create_source(&mut client, &fake, 12_000);
    client.batch_execute("ANALYZE t").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (cluster, is_over) = (Arc::clone(&cluster), Arc::clone(&is_over));
        thread::spawn(move || {
            let sql = "SELECT rows_done, rows_total, rate, eta IS NOT NULL, phase, task_type FROM embedd.stat_progress_backfill WHERE vector_table = 't'";
            let mut seen: Vec<Progress> = Vec::new();
            let mut client = None;
            while !is_over.load(Ordering::SeqCst) {
                let Some(open) = client.as_mut().filter(|open: &&mut Client| !open.is_closed())
                else {
                    client = cluster.try_connect(DB).ok();
                    continue;
                };
                let Ok(Some(row)) = open.query_opt(sql, &[]) else { continue };
                let now = (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            seen
        })
    };
    backfill(&mut client, "t");
    for (round, how) in [SYNC_WORKER, "the server", SYNC_WORKER].into_iter().enumerate() {
        let sql = format!(
            "SELECT rows_done > {} FROM embedd.tasks WHERE status IN ('running', 'completed')",
            1000 + round * 2000
        );
        cluster.wait_for(DB, LONG, "the backfill to advance", &sql);
        match how {
            // A crash would go back to what is on disk.
            SYNC_WORKER => {
                let worker = cluster.sync_worker(DB);
                terminate(worker);
                cluster.wait_until(LONG, "its end", || {
                    !cluster.pids_in(DB, SYNC_WORKER).contains(&worker)
                });
                let insert = format!("INSERT INTO t VALUES (20000 + {round}, 'new {round}')");
                cluster.connect(DB).batch_execute(&insert).unwrap();
            }
            _ => cluster.restart(Shutdown::Fast),
        }
    }
    wait_synced(&cluster, DB, "t");
    is_over.store(true, Ordering::SeqCst);
    let seen = watch.join().expect("the progress can be read");
    let grows = |pair: &[Progress]| pair[0].0 <= pair[1].0;
    assert!(seen.windows(2).all(grows), "{seen:?}");
    let moves = seen.iter().filter(|now| now.4 == "source" && now.0 > 0).collect::<Vec<_>>();
    assert!(moves.len() > 3, "{seen:?}");
    // 12,000 rows are estimated.
    let is_sound = |total: i64| (11_000..=13_000).contains(&total);
    assert!(moves.iter().all(|now| now.1.is_some_and(is_sound)), "{seen:?}");
    assert!(moves.iter().all(|now| now.2.is_some_and(|rate| rate > 0.0) && now.3), "{seen:?}");
    let ended =
        "SELECT status || ' ' || rows_done || ' ' || (attempts > max_attempts) FROM embedd.tasks";
    assert_eq!(one::<String>(&mut cluster.connect(DB), ended), "completed 12002 true");
}

/// A worker that ends a task waits for a session that has locked the row of the vector table; the session may then change
/// the tasks, and neither is the victim of a deadlock.
#[test]
fn a_session_and_a_worker_lock_in_one_order() {
    let cluster = Cluster::builder().never_polling().set("deadlock_timeout", "10ms").start();
    let mut client = cluster.database(DB);
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    create_source(&mut client, &fake, 20);
    backfill(&mut client, "t");
    wait_synced(&cluster, DB, "t");
    client
        .batch_execute(&format!(
            "UPDATE {} SET row_hash = 'x'",
            relation(&mut cluster.connect(DB), "t")
        ))
        .unwrap();
    let hold = fake.hold();
    client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
    client.batch_execute("UPDATE t SET body = 'changed ' || id").unwrap();
    fake.wait_until(LONG, "the texts to be sent", |fake| fake.concurrent() > 0);
    let mut session = cluster.connect(DB);
    let mut holder = session.transaction().unwrap();
    holder.batch_execute("SELECT 1 FROM embedd.vector_tables WHERE name = 't' FOR UPDATE").unwrap();
    hold.release();
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{DB}' AND backend_type = '{SYNC_WORKER}' AND wait_event_type = 'Lock')"
    );
    cluster.wait_for(DB, LONG, "the worker to wait", &waits);
    holder
        .batch_execute("UPDATE embedd.tasks SET last_error = NULL WHERE completed_at IS NULL")
        .unwrap();
    holder.commit().unwrap();
    wait_synced(&cluster, DB, "t");
    assert_equal(&mut client, "t");
    assert!(!cluster.log().contains("deadlock detected"), "{}", cluster.log());
}
