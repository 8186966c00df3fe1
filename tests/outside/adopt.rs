//! Vectors that were paid for already are adopted: no provider is called for them, and what changes meanwhile wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pgvector::Vector;
use postgres::{Client, NoTls};
use support::fake_provider::{Dialect, FakeProvider, vector};
use support::processes::SYNC_WORKER;
use support::source::{assert_equal, relation, stored_text};
use support::{Cluster, LONG, SHORT, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The model that every fake has.
const MODEL: &str = "fake-model";

const DIMENSIONS: usize = 8;

/// A database with a source `t`, its vector table that was never filled, and a table `old` with the vectors of texts.
struct Stage {
    cluster: Arc<Cluster>,
    db: &'static str,
    fake: FakeProvider,
    client: Client,
}

impl Stage {
    /// The source has the columns of `create`; its texts are in column `body`.
    fn new(db: &'static str, create: &str, more: &str) -> Self {
        let cluster = SHARED.cluster();
        let mut client = cluster.database(db);
        let fake = FakeProvider::builder(Dialect::OpenAiCompatible).model(MODEL).start();
        let sql = format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', default_model => '{MODEL}', base_url => '{}');
             CREATE TABLE t {create};
             CREATE TABLE old (id text, content text, v vector(8));
             SELECT embedd.create_vector_table('t', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}},
                                                           {{\"name\": \"kind\", \"role\": \"metadata\"}}]',
                    embedding_provider => 'fake', embedding_dimensions => {DIMENSIONS} {more})",
            fake.base_url()
        );
        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        Self { cluster, db, fake, client }
    }

    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Keeps the vector of a text for a key.
    fn keep(&mut self, rows: &[(String, String)]) {
        let insert = self.client.prepare("INSERT INTO old VALUES ($1, $2, $3)").unwrap();
        let mut transaction = self.client.transaction().unwrap();
        for (key, text) in rows {
            let values = Vector::from(vector(MODEL, text, DIMENSIONS));
            transaction.execute(&insert, &[key, text, &values]).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// Imports the rows of a query: how many were imported, and how many skipped.
    fn import(&mut self, query: &str) -> (i64, i64) {
        let sql = "SELECT imported, skipped FROM embedd.import_vectors('t', $1)";
        let row = self.client.query_one(sql, &[&query]).unwrap();
        (row.get(0), row.get(1))
    }

    fn differences(&mut self) -> i64 {
        self.client.query_one("SELECT count(*) FROM embedd.verify('t')", &[]).unwrap().get(0)
    }

    /// Waits until the sync worker waits for a lock.
    fn wait_for_worker_at_lock(&self) {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{}' AND backend_type = '{SYNC_WORKER}'
                                                           AND wait_event_type = 'Lock')",
            self.db
        );
        self.cluster.wait_for(self.db, LONG, "the worker to wait for a lock", &sql);
    }

    /// Waits until no work is left; then everything is equal, and every vector is that of its text.
    fn assert_synced(&mut self) {
        self.cluster.wait_done(self.db);
        let sql = format!(
            "SELECT embedded_text, embedding FROM {} WHERE embedding IS NOT NULL",
            relation(&mut self.client, "t")
        );
        for row in self.client.query(&sql, &[]).unwrap() {
            let (text, stored): (String, Vector) = (row.get(0), row.get(1));
            let right = vector(MODEL, &text, DIMENSIONS);
            let off = right.iter().zip(stored.as_slice()).any(|(a, b)| (a - b).abs() > 1e-5);
            assert!(!off, "a vector stands beside {text:?} that is not its own");
        }
        assert_eq!(self.differences(), 0);
        assert_equal(&mut self.client, "t");
    }
}

const PLAIN: &str = "(id int PRIMARY KEY, body text, kind text)";

/// Keys and texts of rows of a source with one key column.
fn texts(rows: std::ops::RangeInclusive<i32>) -> Vec<(String, String)> {
    rows.map(|n| (n.to_string(), format!("text {n}"))).collect()
}

#[test]
fn the_backfill_embeds_only_the_rest() {
    let mut stage = Stage::new("rest", PLAIN, "");
    stage.run(
        "INSERT INTO t SELECT n, 'text ' || n, 'k' FROM generate_series(1, 600) n;
         INSERT INTO t VALUES (1001, NULL, 'nothing'), (1002, '', 'empty'), (1003, 'of another', NULL)",
    );
    stage.keep(&texts(1..=580));
    stage.keep(&[
        ("1003".to_string(), "older".to_string()),
        ("5000".to_string(), "gone".to_string()),
    ]);
    assert_eq!(stage.import("SELECT id, content, v FROM old"), (580, 2));
    let status = "SELECT sync_status FROM embedd.sync_status('t')";
    assert_eq!(stage.client.query_one(status, &[]).unwrap().get::<_, String>(0), "pending");
    // What changes before the backfill is not lost, and a row that has gone leaves no vector.
    stage.run(
        "UPDATE t SET body = 'text changed' WHERE id = 1; UPDATE t SET kind = 'other' WHERE id = 2;
         DELETE FROM t WHERE id = 3; UPDATE t SET id = 2004 WHERE id = 4",
    );
    stage.run("SELECT embedd.backfill('t')");
    stage.cluster.wait_done(stage.db);
    let mut paid: Vec<String> =
        stage.fake.requests().into_iter().flat_map(|seen| seen.texts).collect();
    paid.sort();
    let mut expected: Vec<String> = (581..=600).map(|n| format!("text {n}")).collect();
    // A row under another key is a new row.
    expected.extend(["of another", "text changed", "text 4"].map(str::to_string));
    expected.sort();
    assert_eq!(paid, expected);
    stage.assert_synced();
}

#[test]
fn a_whole_table_is_taken_without_a_call() {
    let mut stage = Stage::new("whole", PLAIN, "");
    stage.run("INSERT INTO t SELECT n, 'text ' || n, 'k' FROM generate_series(1, 6000) n");
    stage.keep(&texts(1..=6000));
    assert_eq!(stage.import("SELECT id, content, v FROM old"), (6000, 0));
    assert_eq!(stage.differences(), 0);
    stage.run("SELECT embedd.backfill('t')");
    stage.cluster.wait_done(stage.db);
    assert_eq!(stage.fake.request_count(), 0);
    // The index that was dropped before the load is there again.
    let indexes = format!(
        "SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass AND indisvalid",
        relation(&mut stage.client, "t")
    );
    assert_eq!(stage.client.query_one(&indexes, &[]).unwrap().get::<_, i64>(0), 2);
    stage.assert_synced();
}

#[test]
fn keys_of_every_kind() {
    let mut stage = Stage::new(
        "keys",
        "(\"The Id\" uuid, \"a\"\"b\" text, day date, body text, kind text, PRIMARY KEY (day, \"The Id\", \"a\"\"b\"))",
        "",
    );
    stage.run(
        "INSERT INTO t SELECT md5(n::text)::uuid, ' blank \"\\' || n || ' ', date '2025-01-01' + n, 'text ' || n, 'k' FROM generate_series(1, 100) n",
    );
    let rows = (1..=100).map(|n| (n.to_string(), format!("text {n}"))).collect::<Vec<_>>();
    stage.keep(&rows);
    let imported = stage.import(
        "SELECT jsonb_build_array(t.day, \"The Id\", t.\"a\"\"b\"), o.content, o.v FROM t JOIN old o ON o.content = t.body",
    );
    assert_eq!(imported, (100, 0));
    assert_eq!(stage.differences(), 0);
    stage.run("SELECT embedd.backfill('t')");
    stage.cluster.wait_done(stage.db);
    assert_eq!(stage.fake.request_count(), 0);
    stage.assert_synced();
}

#[test]
fn rows_that_change_while_they_are_imported() {
    let mut stage = Stage::new("meanwhile", PLAIN, ", start_backfill => true");
    stage.cluster.wait_done(stage.db);
    // Rows that the worker does not know of, and a trigger that holds the import after it has read the source.
    let vectors = relation(&mut stage.client, "t");
    stage.run(&format!(
        "SET session_replication_role = replica;
         INSERT INTO t SELECT n, 'text ' || n, 'k' FROM generate_series(1, 10) n;
         RESET session_replication_role;
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON {vectors} EXECUTE FUNCTION hold()"
    ));
    stage.keep(&texts(1..=10));
    let mut gate = stage.cluster.connect(stage.db);
    gate.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").unwrap();
    let mut importer = stage.cluster.config(stage.db).connect(NoTls).unwrap();
    let import = thread::spawn(move || {
        let sql =
            "SELECT imported FROM embedd.import_vectors('t', 'SELECT id, content, v FROM old')";
        importer.query_one(sql, &[]).unwrap().get::<_, i64>(0)
    });
    let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    stage.cluster.wait_for(stage.db, SHORT, "the import to be held", held);
    // No writer waits for the import, and the worker does.
    stage.run("DELETE FROM t WHERE id = 1; UPDATE t SET body = 'newer' WHERE id = 2; UPDATE t SET kind = 'newer' WHERE id = 3");
    stage.wait_for_worker_at_lock();
    gate.batch_execute("COMMIT").unwrap();
    assert_eq!(import.join().unwrap(), 10);
    stage.assert_synced();
    assert_eq!(stored_text(&mut stage.client, "t", "1"), None);
    assert_eq!(stored_text(&mut stage.client, "t", "2").as_deref(), Some("newer"));
}

#[test]
fn a_row_that_the_worker_waits_to_load_is_not_paid_for() {
    let mut stage = Stage::new("waits", PLAIN, ", start_backfill => true");
    stage.cluster.wait_done(stage.db);
    stage.keep(&texts(1..=2));
    let mut importer = stage.cluster.connect(stage.db);
    importer
        .batch_execute("BEGIN; SELECT embedd.import_vectors('t', 'SELECT id, v FROM old LIMIT 0')")
        .unwrap();
    stage.run("INSERT INTO t VALUES (1, 'text 1', 'k'), (2, 'text 2', 'k'), (3, 'text 3', 'k')");
    stage.wait_for_worker_at_lock();
    importer
        .batch_execute(
            "SELECT embedd.import_vectors('t', 'SELECT id, content, v FROM old'); COMMIT",
        )
        .unwrap();
    stage.cluster.wait_done(stage.db);
    let paid: Vec<u64> =
        ["text 1", "text 2", "text 3"].iter().map(|text| stage.fake.paid(text)).collect();
    assert_eq!(paid, [0, 0, 1]);
    stage.assert_synced();
}

#[test]
fn imports_among_writers() {
    let mut stage = Stage::new("writers", PLAIN, ", start_backfill => true");
    // Each row has one of three texts at a time, and old has the vectors of all.
    let rows: Vec<_> = (1..=1000)
        .flat_map(|n| (0..3).map(move |m| (n.to_string(), format!("text {n} {m}"))))
        .collect();
    stage.keep(&rows);
    stage.run("INSERT INTO t SELECT n, 'text ' || n || ' 0', 'k' FROM generate_series(1, 1000) n");
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|number| {
            let mut client = stage.cluster.connect(stage.db);
            let ends = ends.clone();
            thread::spawn(move || {
                let mut round = number;
                while !ends.load(Ordering::Relaxed) {
                    round += 1;
                    let id = round * 37 % 1000 + 1;
                    client
                        .batch_execute(&format!(
                            "UPDATE t SET body = 'text ' || id || ' {0}', kind = '{round}' WHERE id = {id};
                             DELETE FROM t WHERE id = {1};
                             INSERT INTO t VALUES ({1}, 'text {1} {0}', 'again') ON CONFLICT DO NOTHING",
                            round % 3,
                            (id + 50) % 1000 + 1
                        ))
                        .unwrap();
                }
            })
        })
        .collect();
    let mut imported = 0;
    for _ in 0..30 {
        imported += stage.import("SELECT id, content, v FROM old ORDER BY random()").0;
    }
    ends.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(imported > 0);
    stage.assert_synced();
}

#[test]
fn an_import_that_is_cancelled_leaves_nothing() {
    let mut stage = Stage::new("cancelled", PLAIN, "");
    stage.run("INSERT INTO t SELECT n, 'text ' || n, 'k' FROM generate_series(1, 10) n");
    stage.keep(&texts(1..=10));
    // The first rows are stored already when it is cancelled.
    let sql = "SELECT embedd.import_vectors('t', 'SELECT id, v FROM old
               UNION ALL SELECT n::text, ''[1,1,1,1,1,1,1,1]'' FROM generate_series(100, 1000000000) n')";
    stage.run("SET statement_timeout = '500ms'");
    let error = stage.client.batch_execute(sql).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    stage.run("RESET statement_timeout");
    assert_eq!(stage.differences(), 10);
    assert_eq!(stage.import("SELECT id, content, v FROM old"), (10, 0));
    assert_eq!(stage.differences(), 0);
}
