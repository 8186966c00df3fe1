//! Nothing is lost and nothing is done twice when processes are killed or frozen, or the whole server goes down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, JoinHandle};

use postgres::Client;
use support::processes::{EMBEDDER, LAUNCHER, SYNC_WORKER, kill9};
use support::source::{backfill, create_source, relation, synced_source};
use support::{Cluster, Frozen, LONG, SHORT, Shutdown};

const DB: &str = "crash";

/// A session that changes rows of `t` until it is stopped, and reconnects when its connection breaks.
struct Writer {
    stop: Arc<AtomicBool>,
    /// Process id of its backend, while it has one.
    backend: Arc<AtomicI32>,
    thread: JoinHandle<u32>,
}

impl Writer {
    fn start(cluster: &Arc<Cluster>) -> Self {
        let (stop, backend) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let (cluster, told, pid) = (Arc::clone(cluster), Arc::clone(&stop), Arc::clone(&backend));
        let thread = thread::spawn(move || {
            let mut changes = 0;
            let mut client: Option<Client> = None;
            while !told.load(Ordering::SeqCst) {
                let Some(open) = client.as_mut().filter(|open| !open.is_closed()) else {
                    pid.store(0, Ordering::SeqCst);
                    client = cluster.try_connect(DB).ok();
                    if let Some(row) = client
                        .as_mut()
                        .and_then(|open| open.query_one("SELECT pg_backend_pid()", &[]).ok())
                    {
                        pid.store(row.get(0), Ordering::SeqCst);
                    }
                    continue;
                };
                if open.batch_execute(&change(changes)).is_ok() {
                    changes += 1;
                }
            }
            changes
        });
        Self { stop, backend, thread }
    }

    /// Its current backend.
    fn pid(&self, cluster: &Cluster) -> i32 {
        cluster.wait_until(LONG, "the writer to have a session", || {
            self.backend.load(Ordering::SeqCst) != 0
        });
        self.backend.load(Ordering::SeqCst)
    }

    /// Stops it; returns how many of its transactions were committed for certain.
    fn finish(self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer ends well")
    }
}

/// The n-th transaction of a writer.
fn change(n: u32) -> String {
    let id = 1 + n * 37 % 700;
    match n % 5 {
        0 => format!("UPDATE t SET title = 'change {n}' WHERE id = {id}"),
        1 => format!(
            "INSERT INTO t VALUES ({}, 'insert {n}', '', {n}) ON CONFLICT DO NOTHING",
            5000 + n
        ),
        2 => format!("DELETE FROM t WHERE id = {id}"),
        3 => format!(
            "BEGIN; UPDATE t SET price = {n} WHERE id = {id}; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; COMMIT"
        ),
        _ => format!("UPDATE t SET id = {}, body = 'moved' WHERE id = {id}", 100_000 + n),
    }
}

/// Waits until the backfill of `t` has stored more rows, or has ended.
fn wait_for_progress(cluster: &Cluster, relation: &str, more_than: i64) {
    let sql = format!(
        "SELECT (SELECT count(*) FROM {relation}) > {more_than}
             OR NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))"
    );
    cluster.wait_for(DB, LONG, "the backfill to progress", &sql);
}

#[test]
fn kills_in_a_backfill_under_writes_lose_nothing() {
    let cluster = Cluster::builder()
        .never_polling()
        .set("embedd.batch_texts", "16")
        .set("embedd.texts_in_flight", "32")
        .start();
    let cluster = Arc::new(cluster);
    let mut client = cluster.database(DB);
    create_source(&mut client, "t", 2500);
    let vectors = relation(&mut client, "t");
    let writer = Writer::start(&cluster);
    backfill(&mut client, "t");
    let victims = [SYNC_WORKER, EMBEDDER, LAUNCHER, "the writer", "the server"];
    for (round, victim) in victims.into_iter().enumerate() {
        wait_for_progress(&cluster, &vectors, 200 + 300 * round as i64);
        match victim {
            "the server" => cluster.restart(Shutdown::Immediate),
            "the writer" => kill9(writer.pid(&cluster)),
            SYNC_WORKER => kill9(cluster.sync_worker(DB)),
            other => kill9(cluster.pid(other)),
        }
    }
    // Also in the stream of changes after the backfill.
    cluster.wait_for(
        DB,
        LONG,
        "the backfill to end",
        "SELECT NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))",
    );
    for victim in [SYNC_WORKER, EMBEDDER] {
        let pid = if victim == SYNC_WORKER { cluster.sync_worker(DB) } else { cluster.pid(victim) };
        kill9(pid);
        cluster.successor(victim, pid);
    }
    let changes = writer.finish();
    assert!(changes > 10, "the writer committed {changes} transactions");
    cluster.assert_synced(DB, "t");
    for kind in [EMBEDDER, LAUNCHER, SYNC_WORKER] {
        cluster.pid(kind);
    }
}

#[test]
fn a_power_cut_loses_nothing() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "t", 200);
    {
        let _embedder = Frozen::new(cluster.pid(EMBEDDER));
        client
            .batch_execute(
                "UPDATE t SET title = 'in flight' WHERE id <= 100; DELETE FROM t WHERE id = 1;
                 INSERT INTO t SELECT i, 'new', i::text, 0 FROM generate_series(1000, 1100) i",
            )
            .unwrap();
        cluster.crash();
    }
    cluster.start_again();
    cluster.assert_synced(DB, "t");
}

#[test]
fn a_backfill_continues_after_a_crash() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    create_source(&mut client, "t", 2500);
    let vectors = relation(&mut client, "t");
    backfill(&mut client, "t");
    cluster.wait_for(
        DB,
        LONG,
        "the first page to be done",
        "SELECT last_processed_pk IS NOT NULL FROM embedd.tasks",
    );
    // The worker does not wait for the disk, but the next synchronous commit flushes its commits too.
    client.batch_execute("CREATE TABLE flushed ()").unwrap();
    let worker = cluster.sync_worker(DB);
    kill9(worker);
    cluster.successor(SYNC_WORKER, worker);
    let mut client = cluster.connect(DB);
    // What was there after the crash is known to be on disk; it must not be written again.
    let embedder = Frozen::new(cluster.pid(EMBEDDER));
    let sql = "SELECT last_processed_pk, attempts FROM embedd.tasks";
    let row = client.query_one(sql, &[]).unwrap();
    let (last, attempts): (Option<String>, i32) = (row.get(0), row.get(1));
    let last: i64 = last.expect("the checkpoint outlived the crash").parse().unwrap();
    let sql = format!(
        "CREATE TABLE kept AS SELECT pk_value, xmin::text AS version FROM {vectors} WHERE pk_value::bigint <= {last}"
    );
    let kept = client.execute(&sql, &[]).unwrap();
    assert_eq!(kept as i64, last, "every row up to the checkpoint is there");
    assert!(last >= 1000, "checkpoint {last}");
    drop(embedder);
    cluster.assert_synced(DB, "t");
    let sql = format!(
        "SELECT count(*) FROM kept k JOIN {vectors} v USING (pk_value) WHERE v.xmin::text <> k.version"
    );
    let again: i64 = client.query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(again, 0, "rows that were embedded again");
    let sql = "SELECT attempts, processed_rows, status FROM embedd.tasks";
    let row = client.query_one(sql, &[]).unwrap();
    assert!(attempts >= 1 && row.get::<_, i32>(0) >= 2, "attempts {attempts}, {row:?}");
    assert_eq!(row.get::<_, i64>(1), 2500);
    assert_eq!(row.get::<_, String>(2), "completed");
    // A worker without work embeds nothing: a second backfill writes no row.
    let sql =
        format!("CREATE TABLE before AS SELECT pk_value, xmin::text AS version FROM {vectors}");
    client.batch_execute(&sql).unwrap();
    backfill(&mut client, "t");
    cluster.assert_synced(DB, "t");
    let sql = format!(
        "SELECT count(*) FROM before b JOIN {vectors} v USING (pk_value) WHERE v.xmin::text <> b.version"
    );
    assert_eq!(client.query_one(&sql, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn a_frozen_embedder_blocks_no_writer_and_no_lock() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "t", 20);
    let worker = cluster.sync_worker(DB);
    let frozen = Frozen::new(cluster.pid(EMBEDDER));
    client.batch_execute("SET statement_timeout = '30s'").unwrap();
    for i in 0..50 {
        client.batch_execute(&format!("UPDATE t SET title = 'round {i}' WHERE id = 1")).unwrap();
    }
    client
        .batch_execute("INSERT INTO t SELECT i, 'n', '', 0 FROM generate_series(100, 2000) i")
        .unwrap();

    // statement_timeout and a cancel request end a question.
    let mut asking = cluster.connect(DB);
    asking.batch_execute("SET statement_timeout = '300ms'").unwrap();
    let question = "SELECT * FROM embedd.query('t', 'never asked before')";
    let error = asking.query(question, &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014", "{error:?}");
    asking.batch_execute("SET statement_timeout = 0").unwrap();
    let token = asking.cancel_token();
    let pid: i32 = asking.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let asked = thread::spawn(move || (asking.query(question, &[]), asking));
    let sql = format!("SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = {pid}");
    cluster.wait_for(DB, SHORT, "the question to wait for the embedder", &sql);
    token.cancel_query(postgres::NoTls).unwrap();
    let (answer, mut asking) = asked.join().unwrap();
    assert_eq!(answer.unwrap_err().code().unwrap().code(), "57014");
    asking.batch_execute("SET embedd.embedder_timeout = '200ms'").unwrap();
    let error = asking.query(question, &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "08006", "{error:?}");

    // The worker waits without a transaction and without a lock.
    let sql = format!(
        "SELECT a.state = 'idle' AND a.xact_start IS NULL AND a.backend_xmin IS NULL AND a.backend_xid IS NULL
                AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid)
           FROM pg_stat_activity a WHERE a.pid = {worker} AND EXISTS (SELECT FROM embedd.queue)"
    );
    cluster.wait_for(DB, SHORT, "the worker to hold no transaction", &sql);
    for _ in 0..20 {
        cluster.wait_for(DB, SHORT, "the worker to hold none still", &sql);
    }
    client.batch_execute("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE; COMMIT").unwrap();
    client.batch_execute("ALTER TABLE t ADD COLUMN more text DEFAULT 'x'").unwrap();
    drop(frozen);
    asking.batch_execute("RESET embedd.embedder_timeout").unwrap();
    assert_eq!(asking.query(question, &[]).unwrap().len(), 10);
    cluster.assert_synced(DB, "t");
}

#[test]
fn a_frozen_worker_blocks_no_writer() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "t", 20);
    let frozen = Frozen::new(cluster.sync_worker(DB));
    client
        .batch_execute(
            "SET statement_timeout = '30s';
             UPDATE t SET title = 'frozen' WHERE id = 1; DELETE FROM t WHERE id = 2; TRUNCATE t;
             INSERT INTO t SELECT i, 'new ' || i, '', 0 FROM generate_series(1, 3000) i;
             ALTER TABLE t ADD COLUMN more text",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    let found = client.query("SELECT * FROM embedd.query('t', 'title 7', 3)", &[]).unwrap();
    assert_eq!(found.len(), 3);
    drop(frozen);
    cluster.assert_synced(DB, "t");
}
