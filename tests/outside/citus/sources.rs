//! Sharded sources: compared, never captured by triggers, with the same text on every node.

use postgres::error::SqlState;

use super::{BODY, nodes, number, relation, synced_texts, wait_status, wait_synced};

#[test]
fn a_distributed_source_is_rejected_with_triggers() {
    let Some(nodes) = nodes() else { return };
    let db = "refused";
    let mut client = nodes.database(db);
    client
        .batch_execute(
            "CREATE TABLE items (id int PRIMARY KEY, body text);
             INSERT INTO items SELECT i, 'text ' || i FROM generate_series(1, 50) i;
             SELECT create_distributed_table('items', 'id');
             CREATE TABLE everywhere (id int PRIMARY KEY, body text);
             SELECT create_reference_table('everywhere')",
        )
        .unwrap();
    for source in ["items", "everywhere"] {
        let sql = format!("SELECT embedd.create_vector_table('{source}', '{source}', '{BODY}')");
        let error = client.batch_execute(&sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(*error.code(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        assert!(error.message().contains("Citus"), "{error:?}");
        assert!(error.hint().unwrap().contains("sync_mode => 'batch'"), "{error:?}");
    }
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('items', 'items', '{BODY}', 'id', sync_mode => 'batch',
                 batch_interval => '1 s', start_backfill => true)"
        ))
        .unwrap();
    wait_status(&nodes.coordinator, db, "items", "sync_status = 'synced' AND synced_rows = 50");
    client
        .batch_execute(
            "DELETE FROM items WHERE id = 1; UPDATE items SET body = 'anew' WHERE id = 2",
        )
        .unwrap();
    wait_status(&nodes.coordinator, db, "items", "synced_rows = 49 AND total_rows = 49");
    nodes.coordinator.wait_for(
        db,
        support::LONG,
        "the rows to be equal",
        "SELECT count(*) = 0 FROM embedd.verify('items')",
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM embedd.failed_rows"), 0);
}

#[test]
fn a_source_that_is_distributed_later_is_reported_until_undone() {
    let Some(nodes) = nodes() else { return };
    let db = "later";
    let mut client = nodes.database(db);
    synced_texts(&nodes.coordinator, db, &mut client, "items", 50);
    client
        .batch_execute(
            "SET citus.enable_unsafe_triggers = on;
             SELECT create_distributed_table('items', 'id')",
        )
        .unwrap();
    wait_status(
        &nodes.coordinator,
        db,
        "items",
        "sync_status = 'error' AND last_error LIKE '%items%Citus%batch%'",
    );
    client
        .batch_execute("INSERT INTO items VALUES (1000, 'new'); DELETE FROM items WHERE id = 1")
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM embedd.failed_rows"), 0);
    client.batch_execute("SELECT undistribute_table('items')").unwrap();
    wait_status(&nodes.coordinator, db, "items", "sync_status = 'synced' AND synced_rows = 50");
    wait_synced(&nodes.coordinator, db, "items");
    assert_eq!(number(&mut client, "SELECT count(*) FROM embedd.failed_rows"), 0);
}

/// The documents of rows on the worker node, which has another time zone, equal the coordinator's.
#[test]
fn documents_are_the_same_on_every_node() {
    let Some(nodes) = nodes() else { return };
    let db = "zones";
    let mut client = nodes.database(db);
    client
        .batch_execute(
            r#"CREATE TABLE items (id int PRIMARY KEY, body text, made_at timestamptz);
             INSERT INTO items SELECT i, 'text ' || i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '1 hour'
               FROM generate_series(1, 300) i;
             SELECT embedd.create_vector_table('before', 'items',
                 '[{"name": "body", "role": "embedding"}, {"name": "made_at", "role": "embedding"}]', 'id',
                 sync_mode => 'batch', batch_interval => '1 year', start_backfill => true)"#,
        )
        .unwrap();
    wait_synced(&nodes.coordinator, db, "before");
    client
        .batch_execute(
            "SELECT create_distributed_table('items', 'id');
             CREATE VIEW shown AS SELECT id, body, made_at FROM items;",
        )
        .unwrap();
    for (name, source) in [("after", "items"), ("through", "shown")] {
        client
            .batch_execute(&format!(
                r#"SELECT embedd.create_vector_table('{name}', '{source}',
                     '[{{"name": "body", "role": "embedding"}}, {{"name": "made_at", "role": "embedding"}}]', 'id',
                     sync_mode => 'batch', batch_interval => '1 year', start_backfill => true)"#
            ))
            .unwrap();
        wait_status(&nodes.coordinator, db, name, "sync_status = 'synced' AND synced_rows = 300");
    }
    for name in ["before", "after", "through"] {
        let differences = format!("SELECT count(*) FROM embedd.verify('{name}')");
        assert_eq!(number(&mut client, &differences), 0, "{name}");
        let wrong = format!(
            "SELECT count(*) FROM {} WHERE embedded_text NOT LIKE '%+00'",
            relation(&mut client, name)
        );
        assert_eq!(number(&mut client, &wrong), 0, "{name}");
    }
    // In the caller's transaction the nodes have their own settings again afterwards.
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute("SELECT * FROM embedd.verify('after')").unwrap();
    let zones = "SELECT string_agg(DISTINCT right(made_at::text, 3), ' ') FROM items";
    let zones: String = transaction.query_one(zones, &[]).unwrap().get(0);
    assert_eq!(zones, "+00 -05");
    transaction.commit().unwrap();
}
