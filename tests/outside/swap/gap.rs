//! No query fails, comes back empty or mixes two configurations while a vector table is changed under writes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use postgres::{IsolationLevel, NoTls};
use support::source::{relation, wait_status, wait_synced};
use support::wait::StopOnDrop;
use support::{Cluster, LONG};

use super::{IS_CLEAN, change, columns, dimensions, synced};

const DB: &str = "gap";

#[test]
fn twelve_swaps_under_queries_and_writes() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 1500);
    let table = relation(&mut client, "t");
    let stop = AtomicBool::new(false);
    let (asked, written) = (AtomicU64::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let mut threads = Vec::new();
        for number in 0..4 {
            let (cluster, stop, asked, table) = (&cluster, &stop, &asked, &table);
            threads.push(scope.spawn(move || {
                let mut client = cluster.connect(DB);
                let direct =
                    format!("SELECT embedded_text FROM {table} ORDER BY pk_value LIMIT 10");
                let sql = match number {
                    0 => direct.as_str(),
                    _ => "SELECT embedded_text FROM embedd.query('t', 'row 5', 10)",
                };
                while !stop.load(Ordering::SeqCst) {
                    let rows = client.query(sql, &[]).unwrap();
                    let texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                    assert_eq!(texts.len(), 10, "{texts:?}");
                    let first = texts[0][..2].to_string();
                    assert!(texts.iter().all(|text| text.starts_with(&first)), "{texts:?}");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        let (writer, written, stopped) = (&cluster, &written, &stop);
        threads.push(scope.spawn(move || {
            let mut client = writer.connect(DB);
            while !stopped.load(Ordering::SeqCst) {
                let n = written.fetch_add(1, Ordering::SeqCst);
                let id = i64::from(n * 37 % 1600);
                let sql = "INSERT INTO t VALUES ($1, 'written ' || $2::text) ON CONFLICT (id) DO UPDATE SET title = excluded.title";
                client.execute(sql, &[&id, &n.to_string()]).unwrap();
            }
        }));
        for swap in 0..12 {
            let (prefix, size) = if swap % 2 == 0 { ("B: ", 64) } else { ("A: ", 32) };
            let before = asked.load(Ordering::SeqCst);
            change(
                &mut client,
                &format!("columns => '{}', embedding_dimensions => {size}", columns(prefix)),
            );
            let swapped = format!(
                "SELECT embedding_dimensions = {size} FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL"
            );
            cluster.wait_for(DB, LONG, "the swap", &swapped);
            assert!(asked.load(Ordering::SeqCst) > before, "no query was answered meanwhile");
            if threads.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(written.load(Ordering::SeqCst) > 12);
    wait_synced(&cluster, DB, "t");
    cluster.wait_for(DB, LONG, "the replaced tables to be dropped", IS_CLEAN);
}

#[test]
fn a_transaction_with_an_older_snapshot_reads_the_table_before() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 200);
    let mut old = cluster.connect(DB);
    let mut old =
        old.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
    old.query_one("SELECT count(*) FROM t", &[]).unwrap();
    change(&mut client, "embedding_dimensions => 64");
    let swapped =
        "SELECT old_tables <> '{}' FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL";
    cluster.wait_for(DB, LONG, "the swap", swapped);
    let sql = "SELECT embedded_text FROM embedd.query('t', 'row 5', 10)";
    assert_eq!(old.query(sql, &[]).unwrap().len(), 10);
    let size = "SELECT vector_dims(embedding) FROM embedd.embed('t', 'x') AS e(embedding)";
    assert_eq!(old.query_one(size, &[]).unwrap().get::<_, i32>(0), 32);
    assert_eq!(client.query_one(size, &[]).unwrap().get::<_, i32>(0), 64);
    old.commit().unwrap();
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
}

#[test]
fn a_question_that_is_embedded_during_a_swap_is_answered_by_one_configuration() {
    use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = cluster.database(DB);
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text);
             INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) i;
             SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm');
             SELECT embedd.create_provider('p', 'test');
             SELECT embedd.create_vector_table('t', 't', '{}', embedding_provider => 'fake', embedding_dimensions => 8,
                    start_backfill => true)",
            fake.base_url(),
            columns("A: ")
        ))
        .unwrap();
    wait_synced(&cluster, DB, "t");
    fake.forget_requests();
    let gate = fake.hold();
    let config = cluster.config(DB);
    let question = thread::spawn(move || {
        let mut client = config.connect(NoTls).unwrap();
        let sql = "SELECT embedded_text FROM embedd.query('t', 'question', 10)";
        client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect::<Vec<String>>()
    });
    fake.wait_for_requests(1, LONG);
    change(
        &mut client,
        &format!(
            "columns => '{}', embedding_provider => 'p', embedding_model => 'hash', embedding_dimensions => 16",
            columns("B: ")
        ),
    );
    let swapped = "SELECT embedding_dimensions = 16 FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL";
    cluster.wait_for(DB, LONG, "the swap", swapped);
    fake.script(Rule::always().respond(Respond::well()));
    drop(gate);
    let texts = question.join().unwrap();
    assert_eq!(texts.len(), 10);
    assert!(texts.iter().all(|text| text.starts_with("A: ")), "{texts:?}");
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
}

#[test]
fn a_session_that_reads_the_vectors_delays_the_swap_and_no_query() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 200);
    let table = relation(&mut client, "t");
    let mut reader = cluster.connect(DB);
    let mut reading = reader.transaction().unwrap();
    reading.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap();
    change(&mut client, "embedding_dimensions => 64");
    let waits = "SELECT phase = 'swap' AND attempts > 0 FROM embedd.tasks WHERE status = 'running'";
    cluster.wait_for(DB, LONG, "the swap to be tried", waits);
    for _ in 0..50 {
        let rows = client.query("SELECT id FROM embedd.query('t', 'row 5', 10)", &[]).unwrap();
        assert_eq!(rows.len(), 10);
    }
    assert_eq!(dimensions(&mut client), 32);
    wait_status(&cluster, DB, "t", "sync_status = 'backfilling'");
    reading.commit().unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(dimensions(&mut client), 64);
}
