//! What has to hold whenever a chaos run takes a breath: source and vectors are equal, every vector is the one of its
//! text, and no text was paid for more often than its changes and the kills between explain.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use pgvector::Vector;
use postgres::Client;

use super::script::SOURCES;
use support::fake_provider::{FakeProvider, vector};
use support::source::{COLUMNS, assert_equal, relation};

/// The model, and the numbers in its vectors.
pub const MODEL: &str = "fake-model";
pub const DIMENSIONS: usize = 8;

/// What the embedder sends to see whether a service takes anything at all.
const PROBE: &str = "embedd";

/// Texts whose answer a dying embedder still took from the network may be noted by the fake a little later.
const LATE: Duration = Duration::from_secs(1);

/// Makes sources and vector tables, and a history of the texts that each transaction has left behind.
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

/// What was paid, over a whole run.
#[derive(Default)]
pub struct Account {
    /// What each text had cost when it was last looked at.
    paid_before: HashMap<String, u64>,
    total_before: u64,
    /// Changes of a text that committed, the superseded ones too.
    pub changes: u64,
    /// Payments that a change of their text made necessary.
    pub necessary: u64,
    /// All payments.
    pub paid: u64,
    /// Payments beyond the changes of their text.
    pub again: u64,
    /// How many of these losses can have made necessary.
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
    /// Compares what was paid since the last time with what was committed since, and the losses between. Nothing may
    /// be under way. A text is paid for once at most for each change that committed; each loss may cost it once more,
    /// if it lies between two payments. All losses together cost no more than was in flight and not on disk.
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

    /// Everything that was paid up to now is settled.
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

/// Every source equals its vectors, and every vector is the one of the text beside it.
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
