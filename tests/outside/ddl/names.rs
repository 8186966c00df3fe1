//! Table, columns, key and schema are renamed, while this and other sessions write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;

use super::{answers, synced, versions, wait_noted};
use support::source::{assert_equal, stored_text};
use support::{LONG, SHORT, StopOnDrop};

/// A function that writes to the source whatever it and its columns are called.
const WRITER: &str = "
    CREATE TABLE plan AS SELECT 't'::regclass AS source;
    CREATE FUNCTION column_name(number integer) RETURNS name LANGUAGE sql AS
        $$ SELECT a.attname FROM pg_attribute a, public.plan p WHERE a.attrelid = p.source AND a.attnum = number $$;
    CREATE FUNCTION write(n integer) RETURNS void LANGUAGE plpgsql SET search_path = public AS $$
    DECLARE source text;
    BEGIN
        SELECT p.source::text INTO source FROM plan p;
        EXECUTE format('UPDATE %s SET %I = %L WHERE %I = %s', source, column_name(2), 'text ' || n, column_name(1), n % 50 + 1);
        EXECUTE format('UPDATE %s SET %I = %s WHERE %I = %s', source, column_name(4), n, column_name(1), n % 50 + 51);
        EXECUTE format('INSERT INTO %s VALUES (%s, %L, NULL, 7)', source, 1000 + n, 'new ' || n);
        EXECUTE format('UPDATE %s SET %I = %s WHERE %I = %s', source, column_name(1), 100000 + n, column_name(1), 1000 + n);
        IF n % 3 = 0 THEN
            EXECUTE format('DELETE FROM %s WHERE %I = %s', source, column_name(1), 100000 + n);
        END IF;
    EXCEPTION WHEN undefined_table OR undefined_column THEN
        -- It was renamed between the look and the write.
        RETURN;
    END $$";

#[test]
fn names_change_under_the_writes_of_others() {
    let (cluster, mut client) = synced("renaming", 200);
    client.batch_execute(WRITER).unwrap();
    let untouched = versions(&mut client, "t");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopper = StopOnDrop(&is_over);
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let mut writer = cluster.connect("renaming");
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut n = number;
                    while !is_over.load(Ordering::Relaxed) {
                        writer.execute("SELECT write($1)", &[&n]).unwrap();
                        n += 2;
                    }
                    n
                })
            })
            .collect();
        let changes = [
            ("ALTER TABLE public.t RENAME TO \"the T\"", "source_name = 'public.\"the T\"'"),
            (
                "ALTER TABLE public.\"the T\" RENAME title TO \"Head line\"",
                "columns #>> '{0,source_column}' = 'Head line'",
            ),
            (
                "ALTER TABLE public.\"the T\" RENAME id TO \"the Key\"",
                "primary_key_column = 'the Key'",
            ),
            (
                "CREATE SCHEMA other; ALTER TABLE public.\"the T\" SET SCHEMA other",
                "source_name = 'other.\"the T\"'",
            ),
            (
                "ALTER TABLE other.\"the T\" RENAME price TO cost",
                "columns #>> '{2,source_column}' = 'cost'",
            ),
            ("ALTER SCHEMA other RENAME TO \"O\"", "source_name = '\"O\".\"the T\"'"),
            // Two names are swapped.
            (
                "BEGIN; ALTER TABLE \"O\".\"the T\" RENAME body TO x;
                 ALTER TABLE \"O\".\"the T\" RENAME \"Head line\" TO body;
                 ALTER TABLE \"O\".\"the T\" RENAME x TO \"Head line\"; COMMIT",
                "columns #>> '{1,source_column}' = 'Head line'",
            ),
        ];
        for (round, (change, noted)) in (0..).zip(changes) {
            client.batch_execute(change).unwrap();
            let n: i32 = 50_000 + round;
            client.execute("SELECT public.write($1)", &[&n]).unwrap();
            assert!(answers(&mut client, r#"{"price": {"gte": 0}}"#) > 0);
            wait_noted(&cluster, "renaming", noted);
        }
        drop(stopper);
        let written: Vec<i32> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        assert!(written.iter().all(|n| *n > 10), "{written:?}");
    });
    cluster.assert_synced("renaming", "t");
    // The fields of the documents keep their configured names.
    let row = client
        .query_one(
            "SELECT metadata::text FROM embedd.query('t', 'title', filters => '{\"price\": 150, \"title\": \"title 150\"}')",
            &[],
        )
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_str(row.get(0)).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({"title": "title 150", "body": "body of 150", "price": 150})
    );
    // These rows were not written, so they were not embedded again.
    let now = versions(&mut client, "t");
    let rewritten: Vec<i32> =
        (101..=200).filter(|n| now.get(&n.to_string()) != untouched.get(&n.to_string())).collect();
    assert!(rewritten.is_empty(), "{rewritten:?}");
}

#[test]
fn a_transaction_renames_and_writes() {
    let (cluster, mut client) = synced("rename_and_write", 10);
    client
        .batch_execute(
            "BEGIN;
               UPDATE t SET title = 'before' WHERE id = 1;
               ALTER TABLE t RENAME id TO number;
               UPDATE t SET title = 'after the key', number = 200 WHERE number = 2;
               ALTER TABLE t RENAME title TO headline;
               UPDATE t SET headline = 'after the text' WHERE number = 3;
               ALTER TABLE t RENAME TO u;
               CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
               INSERT INTO t VALUES (77, 'of another table', '', 1);
               INSERT INTO u VALUES (4711, 'inserted', '', 1); DELETE FROM u WHERE number = 5;
             COMMIT",
        )
        .unwrap();
    wait_noted(&cluster, "rename_and_write", "source_name = 'public.u'");
    cluster.assert_synced("rename_and_write", "t");
    assert_eq!(stored_text(&mut client, "t", "200").unwrap(), "Title: after the key\nbody of 2");
    assert_eq!(stored_text(&mut client, "t", "77"), None);
    client.batch_execute("TRUNCATE u; INSERT INTO u VALUES (1, 'only', '', 1)").unwrap();
    cluster.assert_synced("rename_and_write", "t");
}

/// The stored configuration of the vector table, and its rows.
fn everything(client: &mut Client) -> (String, std::collections::BTreeMap<String, String>) {
    let sql = "SELECT v::text FROM embedd.vector_tables v WHERE name = 't'";
    let stored = client.query_one(sql, &[]).unwrap().get(0);
    (stored, versions(client, "t"))
}

#[test]
fn rolled_back_ddl_changes_nothing() {
    let (cluster, mut client) = synced("rolled_back", 10);
    let before = everything(&mut client);
    let changes = [
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t RENAME id TO number",
        "ALTER TABLE t DROP COLUMN title; UPDATE t SET body = 'x'",
        "ALTER TABLE t ALTER id TYPE text; INSERT INTO t VALUES ('a', 'b', 'c', 1)",
        "TRUNCATE t",
        "DROP TABLE t",
        "DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer)",
        "ALTER TABLE t DISABLE TRIGGER USER; UPDATE t SET body = 'x'",
    ];
    for change in changes {
        client.batch_execute(&format!("BEGIN; {change}; ROLLBACK")).unwrap();
        client
            .batch_execute(&format!(
                "BEGIN; SAVEPOINT a; {change}; ROLLBACK TO a; SELECT 1; COMMIT"
            ))
            .unwrap();
    }
    // A later write makes the worker check everything again.
    client.batch_execute("UPDATE t SET title = 'written' WHERE id = 1").unwrap();
    cluster.wait_until(SHORT, "the write to arrive", || {
        stored_text(&mut client, "t", "1").unwrap() == "Title: written\nbody of 1"
    });
    cluster.wait_for(
        "rolled_back",
        LONG,
        "an empty queue",
        "SELECT NOT EXISTS (SELECT FROM embedd.queue)",
    );
    let mut after = everything(&mut client);
    assert!(after.1.remove("1").is_some_and(|xmin| xmin != before.1["1"]));
    assert!(after.1.iter().all(|(key, xmin)| before.1[key] == *xmin), "{after:?}");
    assert_eq!(after.0, before.0);
    assert_equal(&mut client, "t");
}
