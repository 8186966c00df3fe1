//! The orders of events in which a sync can lose or resurrect a row, each of them forced: the provider is held at a
//! gate, the worker at a lock or frozen, and meanwhile the source changes.

mod late;
mod lost;
mod paid;
mod pairs;
mod pauses;
mod rows;
mod scans;

use std::collections::HashMap;
use std::sync::Arc;

use pgvector::Vector;
use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, vector};
use support::processes::SYNC_WORKER;
use support::source::{COLUMNS, assert_equal, relation};
use support::{Cluster, LONG, SHORT, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The model that every fake has.
const MODEL: &str = "fake-model";

/// A database with a synced source `t` of ten rows, and a provider that can be held.
struct Stage {
    cluster: Arc<Cluster>,
    db: String,
    fake: FakeProvider,
    client: Client,
    vectors: String,
    /// The cost of each text at the start of the last check, which embeds some of them itself.
    paid: HashMap<String, u64>,
}

impl Stage {
    /// In the cluster that the tests of this program share.
    fn shared(db: &str) -> Self {
        Self::in_cluster(SHARED.cluster(), db)
    }

    /// In its own cluster, for a test that would disturb others.
    fn alone() -> Self {
        Self::in_cluster(Arc::new(Cluster::builder().never_polling().start()), "alone")
    }

    fn in_cluster(cluster: Arc<Cluster>, db: &str) -> Self {
        let mut client = cluster.database(db);
        let fake = FakeProvider::builder(Dialect::OpenAiCompatible).model(MODEL).start();
        let sql = format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', default_model => '{MODEL}', base_url => '{}');
             CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
             INSERT INTO t SELECT i, 'first ' || i, NULL, i FROM generate_series(1, 10) i;
             SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', embedding_provider => 'fake',
                    embedding_dimensions => 8, start_backfill => true)",
            fake.base_url()
        );
        client.batch_execute(&sql).unwrap();
        cluster.wait_done(db);
        let vectors = relation(&mut client, "t");
        Self { cluster, db: db.into(), fake, client, vectors, paid: HashMap::new() }
    }

    /// Runs statements, each in its own transaction by default.
    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs a statement whose texts are at the provider when this returns; the provider must be held.
    fn run_into_flight(&mut self, sql: &str) {
        let before = self.fake.request_count();
        self.run(sql);
        self.fake.wait_for_requests(before + 1, LONG);
    }

    /// Waits until a query that returns one boolean returns true.
    fn wait_for(&self, what: &str, sql: &str) {
        self.cluster.wait_for(&self.db, SHORT, what, sql);
    }

    /// Waits until the sync worker waits for a lock.
    fn wait_for_worker_at_lock(&self) {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{}' AND backend_type = '{SYNC_WORKER}'
                                                           AND wait_event_type = 'Lock')",
            self.db
        );
        self.cluster.wait_for(&self.db, LONG, "the worker to wait for a lock", &sql);
    }

    /// Waits until the sync worker is in no transaction.
    fn wait_for_worker_at_rest(&self) {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{}' AND backend_type = '{SYNC_WORKER}'
                                                           AND state = 'idle' AND xact_start IS NULL)",
            self.db
        );
        self.cluster.wait_for(&self.db, LONG, "the worker to be idle", &sql);
    }

    /// Whether there is a vector row for this key.
    fn has_vector(&mut self, key: i64) -> bool {
        let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE pk_value = $1)", self.vectors);
        self.client.query_one(&sql, &[&key.to_string()]).unwrap().get(0)
    }

    /// How often a title had been paid for before the last check.
    fn paid(&self, title: &str) -> u64 {
        self.paid.get(&format!("Title: {title}")).copied().unwrap_or(0)
    }

    /// Waits until no work is left; then everything must be equal, and every vector that of its text.
    fn assert_synced(&mut self) {
        self.cluster.wait_done(&self.db);
        let texts = self.fake.requests().into_iter().flat_map(|seen| seen.texts);
        self.paid = texts.map(|text| (text.clone(), self.fake.paid(&text))).collect();
        // A crash of the server has ended the session.
        self.client = self.cluster.connect(&self.db);
        let sql = format!(
            "SELECT embedded_text, embedding FROM {} WHERE embedding IS NOT NULL",
            self.vectors
        );
        for row in self.client.query(&sql, &[]).unwrap() {
            let (text, stored): (String, Vector) = (row.get(0), row.get(1));
            let right = vector(MODEL, &text, 8);
            let off = right.iter().zip(stored.as_slice()).any(|(a, b)| (a - b).abs() > 1e-5);
            assert!(!off, "a vector stands beside {text:?} that is not its own");
        }
        assert_equal(&mut self.client, "t");
    }

    /// The titles in the source, by key.
    fn title(&mut self, key: i64) -> Option<String> {
        let row = self.client.query_opt("SELECT title FROM t WHERE id = $1", &[&key]).unwrap();
        row.and_then(|row| row.get(0))
    }
}

impl Drop for Stage {
    /// Frees the worker slot for another test's database.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.psql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", self.db));
        }
    }
}
