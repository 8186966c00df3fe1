//! The invariants at each check of a chaos run: source and vectors are equal, each vector is that of its text, and no
//! text was paid for more often than its changes and the kills explain.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use pgvector::Vector;
use postgres::Client;

use super::script::SOURCES;
use support::fake_provider::{FakeProvider, vector};
use support::source::{COLUMNS, assert_equal, relation};

/// The model and its dimensions.
pub const MODEL: &str = "fake-model";
pub const DIMENSIONS: usize = 8;

/// The text of the embedder's probe.
const PROBE: &str = "embedd";

/// The fake may record a little later which answers a dying embedder still read from the network.
const LATE: Duration = Duration::from_secs(1);

/// Creates sources and vector tables, and a history of the texts committed by each transaction.
pub fn set_up(client: &mut Client, base_url: &str, rows: i64) {
    client
        .execute(
            "SELECT embedd.create_provider('fake', 'openai_compatible', default_model => $1, base_url => $2,
                    options => '{\"timeout\": 3000}')",
            &[&MODEL, &base_url],
        )
        .expect("the provider can be made");
    client
        .batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
             CREATE TABLE p (LIKE t INCLUDING INDEXES) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (minvalue) TO (100);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
             CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (maxvalue);
             CREATE TABLE mark (at timestamptz);
             CREATE TABLE history (seq bigserial, xid bigint DEFAULT txid_current(), source text, key bigint, text text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND old.id <> new.id) THEN
                     INSERT INTO history (source, key) VALUES (TG_ARGV[0], old.id);
                 END IF;
                 IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND (old.id, old.title, old.body)
                                                   IS DISTINCT FROM (new.id, new.title, new.body)) THEN
                     INSERT INTO history (source, key, text) VALUES (TG_ARGV[0], new.id,
                         concat_ws(E'\\n', 'Title: ' || nullif(new.title, ''), nullif(new.body, '')));
                 END IF;
                 RETURN NULL;
             END $$",
        )
        .expect("the tables can be made");
    for source in SOURCES {
        let rows = if source == "t" { rows } else { rows.min(300) };
        let sql = format!(
            "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {source} FOR EACH ROW EXECUTE FUNCTION note('{source}');
             INSERT INTO {source} SELECT i, 'first of {source} ' || i, 'row', i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_vector_table('{source}', '{source}', '{COLUMNS}', embedding_provider => 'fake',
                    embedding_dimensions => {DIMENSIONS}, start_backfill => true)"
        );
        client.batch_execute(&sql).expect("the vector table can be made");
    }
}

/// The payments of a whole run.
#[derive(Default)]
pub struct Account {
    /// The cost of each text at the last check.
    paid_before: HashMap<String, u64>,
    total_before: u64,
    /// Committed changes of a text, including superseded ones.
    pub changes: u64,
    /// Payments explained by a change of their text.
    pub necessary: u64,
    /// All payments.
    pub paid: u64,
    /// Payments beyond the changes of their text.
    pub again: u64,
    /// How many of them the losses can explain.
    pub lost: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { changes, necessary, paid, again, lost, .. } = self;
        let bound = necessary + lost;
        write!(
            f,
            "{changes} changes of texts; texts necessary {necessary}, paid {paid} ({again} again), bound {bound}"
        )
    }
}

impl Account {
    /// Compares the payments since the last check with the commits and losses since. Nothing may be in flight. A text
    /// may be paid for once for each committed change, and once more for each loss between two payments. All losses
    /// together may cost no more than what was in flight and not on disk.
    pub fn settle(&mut self, client: &mut Client, fake: &FakeProvider, losses: &[Instant]) {
        let rows = client
            .query(
                "SELECT text, count(*) FROM (SELECT DISTINCT ON (source, xid, key) text FROM history
                                              ORDER BY source, xid, key, seq DESC) last
                  WHERE text <> '' GROUP BY text",
                &[],
            )
            .expect("the history can be read");
        let committed: HashMap<String, u64> =
            rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect();
        let mut asked: HashMap<String, (Instant, Instant)> = HashMap::new();
        for seen in fake.requests().into_iter().filter(|seen| seen.answered == Some(200)) {
            for text in seen.texts {
                asked.entry(text).or_insert((seen.at, seen.at)).1 = seen.at;
            }
        }
        asked.remove(PROBE);
        for (text, (first, last)) in &asked {
            let paid = fake.paid(text) - self.paid_before.get(text).unwrap_or(&0);
            let changes = committed.get(text).copied().unwrap_or(0);
            let between = |at: &&Instant| **at + LATE > *first && **at < *last;
            let between = losses.iter().filter(between).count() as u64;
            self.again += paid.saturating_sub(changes);
            self.necessary += paid.min(changes);
            assert!(
                paid <= changes * (1 + between),
                "{text:?} was paid for {paid} times; transactions that committed had written it {changes} times, and \
                 {between} losses lay between the first and the last payment"
            );
        }
        self.changes += committed.values().sum::<u64>();
        self.paid += fake.paid_total() - self.total_before;
        let Account { again, lost, .. } = self;
        assert!(*again <= *lost, "{again} texts were paid for again, and losses explain {lost}");
    }

    /// Marks everything paid so far as settled.
    pub fn close(&mut self, client: &mut Client, fake: &FakeProvider) {
        client.batch_execute("TRUNCATE history").expect("the history can be emptied");
        for text in fake.requests().into_iter().flat_map(|seen| seen.texts) {
            let paid = fake.paid(&text);
            self.paid_before.insert(text, paid);
        }
        self.total_before = fake.paid_total();
        fake.forget_requests();
    }
}

/// Every source equals its vectors, and every vector is that of its text.
pub fn check(client: &mut Client) {
    for source in SOURCES {
        assert_equal(client, source);
        let sql = format!(
            "SELECT pk_value, embedded_text, embedding FROM {} WHERE embedding IS NOT NULL",
            relation(client, source)
        );
        for row in client.query(&sql, &[]).expect("the vectors can be read") {
            let (key, text, stored): (String, String, Vector) =
                (row.get(0), row.get(1), row.get(2));
            let right = vector(MODEL, &text, DIMENSIONS);
            let off = right.iter().zip(stored.as_slice()).any(|(a, b)| (a - b).abs() > 1e-5);
            assert!(!off, "the vector of row {key} of {source} is not the one of {text:?}");
        }
        let sql = "SELECT pk_value || ': ' || problem FROM embedd.verify($1)";
        let found = client.query(sql, &[&source]).expect("embedd can verify");
        assert!(found.is_empty(), "embedd.verify: {}", found[0].get::<_, String>(0));
    }
}
