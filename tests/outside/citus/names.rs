//! Tables that Citus recreates under their names, and names of shards.

use super::{BODY, nodes, number, relation, synced_texts, wait_status, wait_synced};

#[test]
fn recreated_vectors_are_found_by_their_name() {
    let Some(nodes) = nodes() else { return };
    let db = "names";
    let mut client = nodes.database(db);
    synced_texts(&nodes.coordinator, db, &mut client, "items", 100);
    let vectors = relation(&mut client, "items");
    let steps = [
        // A table with a single shard on the coordinator, whose name contains its oid.
        format!("SELECT citus_add_local_table_to_metadata('{vectors}')"),
        format!("SELECT undistribute_table('{vectors}')"),
        format!("SELECT create_distributed_table('{vectors}', 'pk_value')"),
        format!("SELECT alter_distributed_table('{vectors}', shard_count := 8)"),
        format!("SELECT undistribute_table('{vectors}')"),
    ];
    for (number_of, step) in steps.iter().enumerate() {
        client.batch_execute(step).unwrap();
        let id = 1000 + number_of;
        client.batch_execute(&format!("INSERT INTO items VALUES ({id}, 'new {id}')")).unwrap();
        wait_status(
            &nodes.coordinator,
            db,
            "items",
            &format!("synced_rows = {} AND sync_status = 'synced'", 101 + number_of),
        );
        wait_synced(&nodes.coordinator, db, "items");
        assert_eq!(relation(&mut client, "items"), vectors, "after {step}");
        let found = number(
            &mut client,
            r#"SELECT count(*) FROM embedd.query('items', 'text 1', "limit" => 1000)"#,
        );
        assert_eq!(found, 101 + number_of as i64);
    }
}

#[test]
fn a_source_that_citus_converts_for_a_foreign_key_is_restored() {
    let Some(nodes) = nodes() else { return };
    let db = "references_";
    let mut client = nodes.database(db);
    client
        .batch_execute(&format!(
            "CREATE TABLE kinds (kind int PRIMARY KEY);
             SELECT create_reference_table('kinds');
             INSERT INTO kinds SELECT generate_series(0, 9);
             CREATE TABLE items (id int PRIMARY KEY, body text, kind int);
             INSERT INTO items SELECT i, 'text ' || i, i % 10 FROM generate_series(1, 100) i;
             SELECT embedd.create_vector_table('items', 'items', '{BODY}', start_backfill => true);
             SELECT embedd.create_vector_table('compared', 'items', '{BODY}', 'id', sync_mode => 'batch',
                 batch_interval => '1 s', start_backfill => true)"
        ))
        .unwrap();
    wait_synced(&nodes.coordinator, db, "items");
    client
        .batch_execute(
            "ALTER TABLE items ADD CONSTRAINT kinds FOREIGN KEY (kind) REFERENCES kinds (kind)",
        )
        .unwrap();
    wait_status(
        &nodes.coordinator,
        db,
        "items",
        "sync_status = 'error' AND last_error LIKE '%Citus%batch%'",
    );
    client
        .batch_execute("INSERT INTO items VALUES (1000, 'new', 1); DELETE FROM items WHERE id = 1")
        .unwrap();
    // The comparison continues.
    wait_status(
        &nodes.coordinator,
        db,
        "compared",
        "synced_rows = 100 AND total_rows = 100 AND sync_status = 'synced'",
    );
    let name = "SELECT count(*) FROM embedd.vector_tables WHERE source_name = 'public.items'";
    assert_eq!(number(&mut client, name), 2, "no shard's name is noted");
    client.batch_execute("ALTER TABLE items DROP CONSTRAINT kinds").unwrap();
    wait_synced(&nodes.coordinator, db, "items");
    client.batch_execute("INSERT INTO items VALUES (1001, 'new', 1)").unwrap();
    wait_status(&nodes.coordinator, db, "items", "synced_rows = 101 AND sync_status = 'synced'");
    wait_synced(&nodes.coordinator, db, "items");
}
