//! What needs no new vector is not paid for: changes in place, and texts of a shadow that did not change.

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{relation, stored_text, wait_status, wait_synced};
use support::{Cluster, LONG, Shutdown};

use super::{IS_CLEAN, change};

const DB: &str = "reuse";

/// A table `t` of this many rows, every second one with a body, and a synced vector table by a provider that counts.
fn counted(cluster: &Cluster, fake: &FakeProvider, rows: u64) -> Client {
    let mut client = cluster.database(DB);
    client
        .batch_execute(&format!(
            r#"CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, n integer);
               INSERT INTO t SELECT i, 'row ' || i, CASE WHEN i % 2 = 0 THEN 'body ' || i END, i FROM generate_series(1, {rows}) i;
               SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm');
               SELECT embedd.create_vector_table('t', 't', '[{{"name": "title", "role": "embedding"}}]', embedding_provider => 'fake',
                      embedding_dimensions => 8, start_backfill => true)"#,
            fake.base_url()
        ))
        .unwrap();
    wait_synced(cluster, DB, "t");
    assert_eq!(fake.paid_total(), rows);
    client
}

#[test]
fn texts_that_did_not_change_keep_their_vectors() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = counted(&cluster, &fake, 100);
    for (arguments, paid) in [
        (
            r#"columns => '[{"name": "title", "role": "embedding"}, {"name": "body", "role": "embedding"}]'"#,
            50,
        ),
        ("vector_type => 'halfvec'", 0),
        (r#"index => '{"m": 8, "ef_construction": 32}'"#, 0),
    ] {
        let before = fake.paid_total();
        change(&mut client, arguments);
        wait_synced(&cluster, DB, "t");
        assert_eq!(fake.paid_total() - before, paid, "{arguments}");
        cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
    }
    let table = relation(&mut client, "t");
    let sql = "SELECT string_agg(pg_get_indexdef(i.indexrelid), '') || format_type(a.atttypid, a.atttypmod)
                 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'embedding'
                WHERE i.indrelid = $1::text::regclass GROUP BY a.atttypid, a.atttypmod";
    let definition: String = client.query_one(sql, &[&table]).unwrap().get(0);
    assert!(
        definition.contains("halfvec_cosine_ops") && definition.contains("m='8'"),
        "{definition}"
    );
    assert!(definition.ends_with("halfvec(8)"), "{definition}");
    let rows = client.query("SELECT id FROM embedd.query('t', 'row 5', 10)", &[]).unwrap();
    assert_eq!(rows.len(), 10);
}

#[test]
fn what_leaves_the_vectors_as_they_are_is_applied_at_once() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let other = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = counted(&cluster, &fake, 100);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('gateway', 'openai_compatible', base_url => '{}')",
            other.base_url()
        ))
        .unwrap();
    for arguments in [
        r#"columns => '[{"name": "title", "role": "embedding"}, {"name": "n", "role": "metadata"}]'"#,
        r#"columns => '[{"name": "title", "role": "embedding"}, {"name": "n", "role": "metadata", "filter_type": "keyword"}]'"#,
        "embedding_provider => 'gateway'",
        "on_source_drop => 'drop'",
        "table_name => 'Vectors of t'",
        "table_schema => 'elsewhere'",
    ] {
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS elsewhere").unwrap();
        let sql = format!(
            "SELECT needs_backfill, changed FROM embedd.update_vector_table('t', {arguments})"
        );
        let row = client.query_one(&sql, &[]).unwrap();
        assert!(!row.get::<_, bool>(0), "{arguments}");
        let changed: Vec<String> = row.get(1);
        assert!(arguments.starts_with(changed[0].as_str()) && changed.len() == 1, "{changed:?}");
        wait_synced(&cluster, DB, "t");
        let again = client.query_one(&sql, &[]).unwrap();
        assert_eq!(again.get::<_, Vec<String>>(1), Vec::<String>::new(), "{arguments}");
    }
    client.batch_execute("SELECT embedd.rename_vector_table('t', 'renamed')").unwrap();
    wait_synced(&cluster, DB, "renamed");
    assert_eq!((fake.paid_total(), other.text_count()), (100, 0));
    let rows = client
        .query(r#"SELECT id FROM embedd.query('renamed', 'row 5', 3, filters => '{"n": {"eq": "5"}}')"#, &[])
        .unwrap();
    assert_eq!(rows.len(), 1);
    let table = relation(&mut client, "renamed");
    assert_eq!(table, r#"elsewhere."Vectors of t""#);
    client.batch_execute("UPDATE t SET title = 'changed' WHERE id = 7").unwrap();
    wait_synced(&cluster, DB, "renamed");
    assert_eq!((fake.paid("changed"), other.paid("changed")), (0, 1));
}

#[test]
fn a_writer_that_began_before_a_change_is_waited_for() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = counted(&cluster, &fake, 100);
    for (n, arguments) in [
        r#"columns => '[{"name": "title", "role": "embedding"}, {"name": "n", "role": "metadata"}]'"#,
        r#"columns => '[{"name": "title", "role": "embedding"}, {"name": "n", "role": "metadata"}, {"name": "body", "role": "embedding"}]'"#,
    ]
    .into_iter()
    .enumerate()
    {
        let mut writer = cluster.connect(DB);
        let mut writing = writer.transaction().unwrap();
        let sql = format!("UPDATE t SET n = {}, body = 'late {n}' WHERE id = 7", 1000 + n);
        writing.batch_execute(&sql).unwrap();
        let sql = format!("SELECT needs_backfill FROM embedd.update_vector_table('t', {arguments})");
        if client.query_one(&sql, &[]).unwrap().get(0) {
            client.batch_execute("SELECT embedd.backfill('t')").unwrap();
        }
        let waits = "SELECT last_error LIKE 'waits for the end of transactions%' FROM embedd.tasks WHERE status = 'pending'";
        cluster.wait_for(DB, LONG, "the task to wait for the writer", waits);
        // Others write and query meanwhile.
        client.batch_execute("UPDATE t SET title = title || '!' WHERE id = 9").unwrap();
        assert_eq!(client.query("SELECT id FROM embedd.query('t', 'row 5', 5)", &[]).unwrap().len(), 5);
        writing.commit().unwrap();
        wait_synced(&cluster, DB, "t");
    }
    let table = relation(&mut client, "t");
    let sql = format!("SELECT metadata ->> 'n' FROM {table} WHERE pk_value = '7'");
    assert_eq!(client.query_one(&sql, &[]).unwrap().get::<_, String>(0), "1001");
    assert_eq!(stored_text(&mut client, "t", "7").as_deref(), Some("row 7\nlate 1"));
}

#[test]
fn restarts_in_a_load_pay_for_each_text_once() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::builder().set("embedd.texts_in_flight", "128").start();
    let mut client = counted(&cluster, &fake, 1500);
    change(&mut client, "embedding_model => 'other', embedding_dimensions => 8");
    for paid in [1700, 2200] {
        fake.wait_until(LONG, "the load to be under way", |fake| fake.paid_total() > paid);
        cluster.restart(Shutdown::Fast);
    }
    wait_synced(&cluster, DB, "t");
    let twice: u64 =
        fake.paid_more_than_once().iter().map(|(_, times)| times - 2.min(*times)).sum();
    // Each text is of two models, and what was in flight may be paid for again.
    assert!(twice <= 2 * 128, "{twice} texts were paid for again");
    let mut client = cluster.connect(DB);
    let sql = "SELECT embedding_model FROM embedd.vector_tables";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, String>(0), "other");
    wait_status(&cluster, DB, "t", "sync_status = 'synced'");
}

/// Takes minutes; part of `make soak`.
#[test]
#[ignore = "embeds 200,000 rows"]
fn a_long_load_with_restarts_embeds_each_text_once() {
    const ROWS: u64 = 200_000;
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).record(false).start();
    let cluster = Cluster::builder().set("embedd.texts_in_flight", "2000").start();
    let mut client = counted(&cluster, &fake, 100);
    client
        .batch_execute(&format!(
            "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(101, {ROWS}) i"
        ))
        .unwrap();
    let synced = "SELECT sync_status = 'synced' AND rows_pending = 0 FROM embedd.sync_status('t')";
    cluster.wait_for(DB, LONG * 10, "the first rows", synced);
    let before = fake.text_count();
    change(&mut client, "embedding_model => 'other', embedding_dimensions => 8");
    let restarts = 5;
    for restart in 1..=restarts {
        let enough = before + ROWS * restart / (restarts + 1);
        fake.wait_until(LONG * 10, "the load to advance", |fake| fake.text_count() > enough);
        cluster.restart(Shutdown::Fast);
    }
    cluster.wait_for(
        DB,
        LONG * 10,
        "the swap",
        "SELECT embedding_model = 'other' FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL",
    );
    cluster.wait_for(DB, LONG * 10, "the rest", synced);
    let paid = fake.text_count() - before;
    println!("{paid} texts were sent for {ROWS} rows, with {restarts} restarts");
    // What is in flight when the server stops is sent again.
    assert!(paid <= ROWS + restarts * 2000, "{paid} texts were sent");
}
