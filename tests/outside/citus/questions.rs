//! Queries of vectors in shards: complete results from all nodes.

use postgres::Client;

use super::{nodes, number, relation, wait_synced};

const COLUMNS: &str =
    r#"[{"name": "body", "role": "embedding"}, {"name": "kind", "role": "metadata"}]"#;

/// Rows of the source; one in a hundred matches the filter.
const ROWS: i64 = 12_000;

/// How many rows a query finds.
fn found(client: &mut Client, arguments: &str) -> i64 {
    number(client, &format!("SELECT count(*) FROM embedd.query('items', 'text 7', {arguments})"))
}

/// A first load into distributed vectors, then changes, counts and queries.
#[test]
fn vectors_in_shards_are_loaded_synced_and_found() {
    let Some(nodes) = nodes() else { return };
    let (db, cluster) = ("questions", &nodes.coordinator);
    let mut client = nodes.database(db);
    client
        .batch_execute(&format!(
            "CREATE TABLE items (id int PRIMARY KEY, body text, kind int);
             INSERT INTO items SELECT i, 'text ' || i, i % 100 FROM generate_series(1, {ROWS}) i;
             SELECT embedd.create_vector_table('items', 'items', '{COLUMNS}')"
        ))
        .unwrap();
    let vectors = relation(&mut client, "items");
    // All of them on the other node.
    let coordinator =
        "SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', false)
         FROM pg_dist_node WHERE groupid = 0";
    client.batch_execute(coordinator).unwrap();
    // For so few rows the planner would prefer a sequential scan.
    nodes.worker.psql("postgres", "ALTER DATABASE questions SET enable_seqscan = off");
    client
        .batch_execute(&format!("SELECT create_distributed_table('{vectors}', 'pk_value')"))
        .unwrap();
    client.batch_execute("SELECT embedd.backfill('items')").unwrap();
    wait_synced(&nodes.coordinator, db, "items");
    let indexes = format!(
        "SELECT count(*) FROM pg_index WHERE indrelid = '{vectors}'::regclass AND indisvalid"
    );
    assert_eq!(number(&mut client, &indexes), 2, "the vector index is back");

    client
        .batch_execute(
            "UPDATE items SET body = 'text 7 anew' WHERE id = 7; UPDATE items SET kind = 100 WHERE id = 8;
             DELETE FROM items WHERE id = 9; INSERT INTO items VALUES (0, 'text new', 0)",
        )
        .unwrap();
    wait_synced(&nodes.coordinator, db, "items");
    client.batch_execute("SELECT embedd.reconcile('items')").unwrap();
    cluster.wait_for(
        db,
        support::LONG,
        "the comparison to end",
        "SELECT status = 'completed' FROM embedd.tasks ORDER BY task_id DESC LIMIT 1",
    );
    assert_eq!(
        number(
            &mut client,
            "SELECT different_rows FROM embedd.tasks ORDER BY task_id DESC LIMIT 1"
        ),
        0
    );

    // Above ten thousand rows the count is an estimate, from the size of the shards on all nodes.
    let synced = number(&mut client, "SELECT synced_rows FROM embedd.sync_status('items')");
    assert!((ROWS / 2..ROWS * 2).contains(&synced), "{synced} rows");

    // A session whose connections to the other node are new and have that setting.
    let mut client = cluster.connect(db);
    assert_eq!(found(&mut client, r#""limit" => 1000"#), 1000);
    assert_eq!(found(&mut client, r#""limit" => 10, filters => '{"kind": 33}'"#), 10);
    assert_eq!(found(&mut client, r#""limit" => 1000, filters => '{"kind": 33}'"#), 120);
}

/// In the caller's transaction, on connections that are used again later: its own settings are back.
#[test]
fn a_query_leaves_no_settings_behind() {
    let Some(nodes) = nodes() else { return };
    let mut client = nodes.database("settings");
    client
        .batch_execute(&format!(
            "CREATE TABLE items (id int PRIMARY KEY, body text, kind int);
             INSERT INTO items SELECT i, 'text ' || i, i % 100 FROM generate_series(1, 2000) i;
             CREATE TABLE probe (id int PRIMARY KEY);
             SELECT create_distributed_table('probe', 'id');
             INSERT INTO probe SELECT generate_series(1, 20);
             SELECT embedd.create_vector_table('items', 'items', '{COLUMNS}', start_backfill => true)"
        ))
        .unwrap();
    wait_synced(&nodes.coordinator, "settings", "items");
    let vectors = relation(&mut client, "items");
    client
        .batch_execute(&format!("SELECT create_distributed_table('{vectors}', 'pk_value')"))
        .unwrap();
    let mut transaction = client.transaction().unwrap();
    // Each row of the probe shows the settings of its node.
    let settings =
        "SELECT string_agg(DISTINCT coalesce(current_setting('hnsw.ef_search', true), '') || ' '
        || current_setting('timezone'), ', ') FROM probe";
    transaction
        .batch_execute(&format!("SELECT count(embedding <-> embedding) FROM {vectors}"))
        .unwrap();
    let before: String = transaction.query_one(settings, &[]).unwrap().get(0);
    let many = "SELECT count(*) FROM embedd.query('items', 'text 7', \"limit\" => 1000)";
    assert_eq!(transaction.query_one(many, &[]).unwrap().get::<_, i64>(0), 1000);
    transaction.batch_execute("SELECT * FROM embedd.verify('items')").unwrap();
    let after: String = transaction.query_one(settings, &[]).unwrap().get(0);
    assert_eq!(before, after);
    transaction.commit().unwrap();
}
