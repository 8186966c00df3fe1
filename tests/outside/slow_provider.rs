//! A provider that takes ten seconds for every answer affects only itself: meanwhile the worker holds no transaction
//! and no lock, and writers and owners are not blocked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{COLUMNS, assert_equal, relation};
use support::{Cluster, LONG};

const DB: &str = "slow";

/// How long the provider takes.
const ANSWER: Duration = Duration::from_secs(10);

/// The documented limit of a worker's transaction. It is printed, not asserted: on a busy machine any process may be
/// delayed that long.
const PROMISED: Duration = Duration::from_millis(100);

/// The asserted limit: far above the documented one, and far below the latency of an answer.
const ASSERTED: Duration = Duration::from_secs(1);

/// The sampling interval.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The stop flag of a test thread.
type Stop = Arc<AtomicBool>;

/// The samples of the worker.
#[derive(Debug, Default)]
struct Sampled {
    looks: u64,
    /// Samples in which it was in a transaction.
    in_transaction: u64,
    /// Samples in which it had a lock on the source or on the vector table.
    with_lock: u64,
    longest_transaction: Duration,
    /// The longest time between the first and the last sample of a lock that one transaction had on the source or on
    /// the vector table, and its description.
    longest_lock: Duration,
    lock: String,
}

/// The sampled backend, as a condition.
const THE_WORKER: &str = "a.datname = 'slow' AND a.backend_type = 'embedd sync worker'";

/// Samples a backend until stopped.
fn sample(mut client: Client, who: &str, vectors: &str, stop: &Stop) -> JoinHandle<Sampled> {
    let sql = format!(
        "SELECT a.xact_start IS NOT NULL,
                coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8,
                coalesce((SELECT array_agg(l.virtualtransaction || ' ' || l.relation::regclass || ' ' || l.mode)
                            FROM pg_locks l
                           WHERE l.pid = a.pid AND l.granted
                             AND l.relation IN ('t'::regclass, '{vectors}'::regclass)), '{{}}')
           FROM pg_stat_activity a WHERE {who}"
    );
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let statement = client.prepare(&sql).unwrap();
        let mut seen = Sampled::default();
        let mut held: HashMap<String, Instant> = HashMap::new();
        while !stop.load(Ordering::SeqCst) {
            let row = client.query_opt(&statement, &[]).unwrap().expect("the backend is there");
            let now = Instant::now();
            seen.looks += 1;
            seen.in_transaction += u64::from(row.get::<_, bool>(0));
            let age = Duration::from_secs_f64(row.get::<_, f64>(1).max(0.0));
            seen.longest_transaction = seen.longest_transaction.max(age);
            let locks: Vec<String> = row.get(2);
            seen.with_lock += u64::from(!locks.is_empty());
            held.retain(|lock, _| locks.contains(lock));
            for lock in locks {
                let since = now - *held.entry(lock.clone()).or_insert(now);
                if since > seen.longest_lock {
                    (seen.longest_lock, seen.lock) = (since, lock);
                }
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        seen
    })
}

/// Whether sampling detects a transaction and a lock of a session that has them for a while.
fn sees_locks(cluster: &Cluster, vectors: &str) -> bool {
    let mut holder = cluster.connect(DB);
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let stop = Stop::default();
    let looking = sample(cluster.connect(DB), &format!("a.pid = {pid}"), vectors, &stop);
    let hold = format!("BEGIN; LOCK {vectors} IN ACCESS SHARE MODE; SELECT pg_sleep(0.5); COMMIT");
    holder.batch_execute(&hold).unwrap();
    stop.store(true, Ordering::SeqCst);
    let seen = looking.join().expect("a session can be looked at");
    !seen.longest_lock.is_zero() && !seen.longest_transaction.is_zero()
}

/// Runs the statements of one round after the other until stopped; none may fail. Returns how many succeeded, and the
/// slowest with its duration.
fn busy(
    cluster: &Cluster,
    stop: &Stop,
    round: impl Fn(u64) -> Vec<String> + Send + 'static,
) -> JoinHandle<(u64, Duration, String)> {
    let mut client = cluster.connect(DB);
    client.batch_execute("SET lock_timeout = '1s'").unwrap();
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut count, mut longest, mut which) = (0, Duration::ZERO, String::new());
        for n in 0.. {
            for statement in round(n) {
                if stop.load(Ordering::SeqCst) {
                    return (count, longest, which);
                }
                let begin = Instant::now();
                if let Err(error) = client.batch_execute(&statement) {
                    panic!("after {:?}, {statement}: {error:?}", begin.elapsed());
                }
                count += 1;
                if begin.elapsed() > longest {
                    (longest, which) = (begin.elapsed(), statement);
                }
                // Yields the processor to the others.
                thread::sleep(BETWEEN_LOOKS);
            }
        }
        unreachable!("there is always another round")
    })
}

/// The statements of an ordinary writer; the number identifies the writer.
fn writes(writer: u64, n: u64) -> Vec<String> {
    let id = 1 + (n * 7 + writer) % 20;
    vec![
        format!(
            "INSERT INTO t VALUES ({id}, 'writer {writer} round {n}', 'body', {n})
             ON CONFLICT (id) DO UPDATE SET title = excluded.title"
        ),
        format!("UPDATE t SET price = {n} WHERE id = {id}"),
        format!("UPDATE t SET body = 'writer {writer} body {n}' WHERE id = {}", 1 + n % 20),
        format!("DELETE FROM t WHERE id = {}", 1 + (n * 3 + writer) % 20),
    ]
}

/// The statements of the tables' owner.
fn upkeep(vectors: &str, n: u64) -> Vec<String> {
    let mut all = vec![
        "VACUUM t".to_string(),
        format!("VACUUM {vectors}"),
        "CREATE INDEX extra ON t (price)".into(),
        "DROP INDEX extra".into(),
        format!("CREATE INDEX extra ON {vectors} (row_hash)"),
        "DROP INDEX extra".into(),
        "ALTER TABLE t RENAME COLUMN spare TO other; ALTER TABLE t RENAME COLUMN other TO spare"
            .into(),
        "BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE; COMMIT".into(),
        format!("BEGIN; LOCK {vectors} IN ACCESS EXCLUSIVE MODE; COMMIT"),
        format!("ANALYZE {vectors}"),
    ];
    // A table may have at most 1,600 columns over its life.
    if n < 200 {
        all.push(
            "ALTER TABLE t ADD COLUMN more text DEFAULT 'x'; ALTER TABLE t DROP COLUMN more".into(),
        );
    }
    if n % 10 == 5 {
        all.push("TRUNCATE t".into());
    }
    all
}

#[test]
fn a_slow_provider_blocks_no_session() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).model("fake-model").start();
    fake.script(Rule::always().respond(Respond::delay(ANSWER)));
    let sql = format!(
        "SELECT embedd.create_provider('fake', 'openai_compatible', default_model => 'fake-model', base_url => '{}');
         CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer, spare text);
         INSERT INTO t SELECT i, 'first ' || i, NULL, i FROM generate_series(1, 10) i;
         SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', embedding_provider => 'fake',
                embedding_dimensions => 8)",
        fake.base_url()
    );
    client.batch_execute(&sql).unwrap();
    cluster.sync_worker(DB);
    let vectors = relation(&mut client, "t");
    let (looked, stop) = (Stop::default(), Stop::default());
    assert!(sees_locks(&cluster, &vectors), "the sampling missed a lock");
    let looking = sample(cluster.connect(DB), THE_WORKER, &vectors, &looked);
    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
    fake.wait_for_requests(1, LONG);

    let mut sessions: Vec<_> =
        (0..3).map(|writer| busy(&cluster, &stop, move |n| writes(writer, n))).collect();
    sessions.push(busy(&cluster, &stop, move |n| upkeep(&vectors, n)));
    // Covers a whole answer, its storage, and the requests after it.
    fake.wait_until(LONG, "the second answer", |fake| fake.answer_count() >= 2);
    stop.store(true, Ordering::SeqCst);
    for session in sessions {
        let (count, longest, which) = session.join().expect("nothing that a session does fails");
        println!("{count} statements went through, the longest took {longest:.0?}: {which}");
        assert!(count > 100, "only {count} statements in {ANSWER:?}");
    }
    cluster.wait_done(DB);
    looked.store(true, Ordering::SeqCst);
    let seen = looking.join().expect("the worker can be looked at");
    println!("{seen:.1?}; promised {PROMISED:?}, asserted {ASSERTED:?}");
    assert!(
        seen.looks > 1000 && seen.in_transaction > 0 && seen.with_lock > 0,
        "too few looks: {seen:?}"
    );
    assert!(seen.longest_transaction < ASSERTED, "a transaction of the worker was open: {seen:?}");
    assert!(seen.longest_lock < ASSERTED, "the worker held a lock: {seen:?}");

    // The queries of the comparison need not be so slow.
    fake.clear_script();
    assert_equal(&mut client, "t");
}
