//! Columns of a source are dropped, added again and altered. Writers get no error.

use postgres::Client;

use super::{answers, synced, versions, wait_error, wait_noted, wait_well};
use support::source::{assert_equal, stored_text};
use support::{Cluster, LONG};

/// Every kind of write to `t`, whichever columns exist.
fn write(client: &mut Client, column: &str, n: i64) {
    client
        .batch_execute(&format!(
            "UPDATE t SET {column} = {0} WHERE {column} = {1}; DELETE FROM t WHERE {column} = {2};
             INSERT INTO t ({column}) VALUES ({3})",
            n + 2000,
            n,
            n + 1,
            n + 1000
        ))
        .unwrap();
}

/// The column does not exist: the status reports it, writes and queries continue.
fn assert_gone(cluster: &Cluster, db: &str, client: &mut Client, column: &str, written: &str) {
    wait_error(cluster, db, "t", &format!("\"{column}\""));
    write(client, written, 5);
    assert!(answers(client, "{}") > 0);
    let error = client.query("SELECT * FROM embedd.verify('t')", &[]).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains(column), "{error:?}");
}

#[test]
fn an_embedded_column_is_dropped_and_added_again() {
    let (cluster, mut client) = synced("dropped_text", 20);
    client.batch_execute("ALTER TABLE t DROP COLUMN title").unwrap();
    assert_gone(&cluster, "dropped_text", &mut client, "title", "id");
    client.batch_execute("ALTER TABLE t ADD COLUMN title text").unwrap();
    wait_well(&cluster, "dropped_text", "t");
    cluster.assert_synced("dropped_text", "t");
    client.batch_execute("UPDATE t SET title = 'again' WHERE id = 1").unwrap();
    cluster.assert_synced("dropped_text", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: again\nbody of 1");
}

#[test]
fn a_metadata_column_is_dropped_and_recreated_with_a_default() {
    let (cluster, mut client) = synced("dropped_metadata", 20);
    client.batch_execute("ALTER TABLE t DROP COLUMN price").unwrap();
    assert_gone(&cluster, "dropped_metadata", &mut client, "price", "id");
    client.batch_execute("ALTER TABLE t ADD COLUMN price integer NOT NULL DEFAULT 17").unwrap();
    wait_well(&cluster, "dropped_metadata", "t");
    cluster.assert_synced("dropped_metadata", "t");
    assert_eq!(answers(&mut client, r#"{"price": 17}"#), answers(&mut client, "{}"));
    // Dropped and added in one transaction: no other session sees it missing.
    client
        .batch_execute(
            "BEGIN; ALTER TABLE t DROP COLUMN price; UPDATE t SET body = 'x' WHERE id = 3;
             ALTER TABLE t ADD COLUMN price integer DEFAULT 18; COMMIT",
        )
        .unwrap();
    wait_noted(&cluster, "dropped_metadata", "column_numbers = ARRAY[2, 3, 6]::smallint[]");
    cluster.assert_synced("dropped_metadata", "t");
    assert_eq!(answers(&mut client, r#"{"price": 18}"#), answers(&mut client, "{}"));
}

#[test]
fn the_key_is_dropped_and_recreated() {
    let (cluster, mut client) = synced("dropped_key", 20);
    client.batch_execute("ALTER TABLE t DROP COLUMN id").unwrap();
    assert_gone(&cluster, "dropped_key", &mut client, "id", "price");
    client.batch_execute("TRUNCATE t; INSERT INTO t (title) VALUES ('one'), ('two')").unwrap();
    client
        .batch_execute(
            "ALTER TABLE t ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        )
        .unwrap();
    wait_well(&cluster, "dropped_key", "t");
    cluster.assert_synced("dropped_key", "t");
    client.batch_execute("UPDATE t SET title = 'two and a half' WHERE id = 2").unwrap();
    cluster.assert_synced("dropped_key", "t");
}

#[test]
fn the_type_of_the_key_changes() {
    let (cluster, mut client) = synced("key_type", 20);
    let before = versions(&mut client, "t");
    let mut other = cluster.connect("key_type");
    other.batch_execute("UPDATE t SET price = 100 WHERE id = 20").unwrap();
    for (n, to, named) in
        [(1, "integer", "integer"), (2, "text", "text"), (3, "numeric(10,2)", "numeric")]
    {
        client.batch_execute(&format!("ALTER TABLE t ALTER id TYPE {to} USING id::{to}")).unwrap();
        wait_error(&cluster, "key_type", "t", "\"id\"");
        wait_error(&cluster, "key_type", "t", named);
        // Sessions with the old type in their caches and new sessions write.
        other
            .batch_execute(&format!(
                "UPDATE t SET title = 'other {n}' WHERE id::numeric = {}",
                n + 1
            ))
            .unwrap();
        cluster
            .connect("key_type")
            .batch_execute(&format!(
                "INSERT INTO t VALUES ('{0}', 'new {n}', '', 1); DELETE FROM t WHERE id::numeric = {1}",
                100 + n,
                10 + n
            ))
            .unwrap();
        assert!(answers(&mut client, "{}") > 0);
        client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
        wait_well(&cluster, "key_type", "t");
        cluster.assert_synced("key_type", "t");
        other
            .batch_execute(&format!("UPDATE t SET title = 'later {n}' WHERE id::numeric = 5"))
            .unwrap();
        cluster.assert_synced("key_type", "t");
    }
    assert_eq!(stored_text(&mut client, "t", "5.00").unwrap(), "Title: later 3\nbody of 5");
    assert_ne!(before, versions(&mut client, "t"));
}

#[test]
fn an_unsuitable_type_of_the_key_is_reported() {
    let (cluster, mut client) = synced("key_type_bad", 5);
    client.batch_execute("ALTER TABLE t ALTER id TYPE money USING id::integer::money").unwrap();
    wait_error(&cluster, "key_type_bad", "t", "money");
    let error = client.query("SELECT embedd.reconcile('t')", &[]).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("money"), "{error:?}");
    client.batch_execute("UPDATE t SET title = 'x'").unwrap();
    // Restored, without any further call.
    client.batch_execute("ALTER TABLE t ALTER id TYPE bigint USING id::numeric::bigint").unwrap();
    wait_well(&cluster, "key_type_bad", "t");
    cluster.assert_synced("key_type_bad", "t");
}

#[test]
fn the_types_of_columns_change() {
    let (cluster, mut client) = synced("column_types", 20);
    client
        .batch_execute(
            "ALTER TABLE t ALTER title TYPE varchar(100);
             ALTER TABLE t ALTER price TYPE numeric(12,3);
             ALTER TABLE t ALTER body TYPE jsonb USING to_jsonb(body)",
        )
        .unwrap();
    client.batch_execute("UPDATE t SET title = 'written after' WHERE id = 1").unwrap();
    cluster.wait_done("column_types");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: written after\n\"body of 1\"");
    client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
    cluster.assert_synced("column_types", "t");
    assert_eq!(stored_text(&mut client, "t", "2").unwrap(), "Title: title 2\n\"body of 2\"");
    client
        .batch_execute("UPDATE t SET price = 2.100 WHERE id = 2; UPDATE t SET body = '{\"a\": 1}' WHERE id = 3")
        .unwrap();
    cluster.wait_for(
        "column_types",
        LONG,
        "an empty queue",
        "SELECT NOT EXISTS (SELECT FROM embedd.queue)",
    );
    assert_equal(&mut client, "t");
}

/// The worker is notified of a change once, at a moment when it cannot read the queue, and checks it later.
#[test]
fn a_column_is_recreated_while_the_queue_is_locked() {
    let (cluster, mut client) = synced("unread", 20);
    // The worker has already checked everything since its backfill, so only the notification can make it check again.
    client.batch_execute("UPDATE t SET title = 'changed' WHERE id = 1").unwrap();
    cluster.assert_synced("unread", "t");
    let mut holder = cluster.connect("unread");
    holder.batch_execute("BEGIN; LOCK embedd.queue IN ACCESS EXCLUSIVE MODE").unwrap();
    client
        .batch_execute("ALTER TABLE t DROP COLUMN price, ADD COLUMN price integer DEFAULT 18")
        .unwrap();
    let at_lock = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'unread' AND backend_type = 'embedd sync worker'
                                                        AND wait_event_type = 'Lock')";
    cluster.wait_for("unread", LONG, "the worker to wait", &format!("SELECT {at_lock}"));
    cluster.wait_for("unread", LONG, "its timeout", &format!("SELECT NOT {at_lock}"));
    holder.batch_execute("COMMIT").unwrap();
    wait_noted(&cluster, "unread", "column_numbers = ARRAY[2, 3, 5]::smallint[]");
    cluster.assert_synced("unread", "t");
}
